"""Items worked on by many ranks, their rows handed out as if one had done it all.

An analysis maps each batch to a row of sums and adds rows up. Rows are handed out in the order of the batches, whoever
made them, so that sums are independent of the number of ranks to the bit; a tree of sums would not be. Ranks work in
rounds of one item each, which bounds the memory. A round is also where the error of one rank reaches all, so that none
waits for ever, and where ranks that were given different data are found out.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

from torch import Tensor

from unbraid.errors import DataError, RankError
from unbraid.ranks._agree import agreed, fingerprint
from unbraid.ranks._gather import Message, Row, attempted, gather, raise_first
from unbraid.ranks._world import Share, World, world

__all__ = ["in_order"]

T = TypeVar("T")


def in_order(
    items: Iterable[T], work: Callable[[T, Share], Row], same: Callable[[], object] = lambda: None
) -> Iterator[Row]:
    """The row of each item, in the order of the items, on every rank.

    With W ranks items are taken W at a time; each rank works on one and all tell all. So memory does not grow with the
    items, and sums that are taken over the rows do not depend on W, to the bit. Where fewer than W items are left,
    several ranks share one: each is told its share of the work, and their rows are added. A row's names may differ
    from share to share.

    Args:
        items: the same on every rank, all of them.
        work: (item, share) -> numbers by name. With one rank the share is the whole.
        same: what must be alike on all ranks besides the items, such as the weights of a model.

    Raises:
        DataError: the ranks were given different items.
        ValueError: what must be the same differs.
        RankError: another rank's work raised; or an answer is missing.
    """
    here = world()
    if here.size == 1:
        for item in items:
            yield work(item, Share(0, 1))
        return
    agreed(same)
    source, done = iter(items), 0
    while True:
        messages = gather(_answer(source, work, here))
        raise_first(messages)
        count = _agreed(messages, done)
        yield from _rows(messages, here, count, done)
        done += count
        if count < here.size:
            return


def _answer(source: Iterator[T], work: Callable[[T, Share], Row], here: World) -> Message:
    """This rank's part of the next items. What it raises is told like any answer, so that nobody waits for it."""
    try:
        some = list(islice(source, here.size))
        facts: dict[str, Any] = {"met": [fingerprint(item) for item in some], "did": None}
        row: Row = {}
        if some:
            number, share = here.task(here.rank, len(some))
            row = work(some[number], share)
            facts["did"] = [number, share.index, share.of]
        return Message(facts, row)
    except Exception as error:
        return attempted(error)


def _agreed(messages: list[Message], done: int) -> int:
    """How many items all ranks have met, and they the same.

    A sampler that gives each rank other batches, or a shuffle that each draws for itself, would count some examples
    twice and others never.
    """
    met = [message.facts["met"] for message in messages]
    for rank, marks in enumerate(met):
        if marks != met[0]:
            places = zip(marks, met[0], strict=False)
            first = next((n for n, (mine, theirs) in enumerate(places) if mine != theirs), min(len(marks), len(met[0])))
            raise DataError(
                f"ranks: each must be given all batches, the same in the same order; batch {done + first} of rank "
                f"{rank} is not that of rank 0. Give no DistributedSampler, and shuffle by one seed: unbraid shares "
                "the batches out itself."
            )
    return len(met[0])


def _rows(messages: list[Message], here: World, count: int, done: int) -> Iterator[Row]:
    rows: list[dict[str, Tensor]] = [{} for _ in range(count)]
    wanted = [here.task(rank, count) for rank in range(here.size)] if count else []
    given = [message.facts["did"] for message in messages]
    expected: list[list[int] | None] = [[number, share.index, share.of] for number, share in wanted]
    if given != (expected or [None] * here.size):
        lost = sorted({task[0] + done for task in expected if task is not None and task not in given})
        raise RankError(
            f"ranks: the answers do not cover what was shared out: a share of items {lost} is missing, so that "
            "nothing is added up.",
            rank=None,
            kind="RankError",
            bad_input=False,
        )
    for (number, _), message in zip(wanted, messages, strict=False):
        for name, value in message.row.items():
            rows[number][name] = rows[number][name] + value if name in rows[number] else value
    yield from rows
