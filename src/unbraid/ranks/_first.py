"""What one rank does for all, and what all do or none."""

from collections.abc import Callable
from typing import TypeVar

from unbraid.ranks._gather import Message, attempted, gather, raise_first
from unbraid.ranks._world import world

__all__ = ["from_first", "together"]

T = TypeVar("T")


def from_first(work: Callable[[], T]) -> T:
    """Do it on rank 0 alone; every rank gets what it gives, or its error. No rank goes on before it is done.

    Args:
        work: gives something that JSON can say, such as None or whether a folder exists.

    Raises:
        RankError: on the other ranks, for an error of rank 0.
    """
    here = world()
    if here.size == 1:
        return work()
    message = Message()
    if here.first:
        try:
            message = Message({"given": work()})
        except Exception as error:
            message = attempted(error)
    messages = gather(message)
    raise_first(messages)
    given: T = messages[0].facts["given"]
    return given


def together(work: Callable[[], T]) -> T:
    """Do it on every rank; an error on one is raised on all.

    Raises:
        RankError: for an error of another rank.
    """
    if world().size == 1:
        return work()
    try:
        given, message = work(), Message()
    except Exception as error:
        raise_first(gather(attempted(error)))
        raise
    raise_first(gather(message))
    return given
