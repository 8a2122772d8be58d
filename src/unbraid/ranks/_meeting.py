"""How the ranks of one start find one another, and not those of a start before.

They agree on names that nobody had before: torchrun's agent keeps its store over restarts, torch 2.13 reads in it the
addresses of the dead, and counts of restarts differ between machines.
"""

import time
from uuid import uuid4

from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]

from unbraid.errors import RankError

__all__ = ["meet"]

_SESSION = "unbraid/session"
_PATIENCE, _PAUSE = 300.0, 0.02  # seconds: until one that does not come is given up, and between two looks


def meet(store: Store, rank: int, size: int) -> Store:
    """A part of the store that nobody has written to yet.

    Torchrun's agent keeps one store over restarts, and torch would read in it the addresses of processes that are dead
    (pytorch issues 135712 and 167288). How often an agent has restarted is no remedy: each machine counts for itself.
    So each process takes a name that nobody had before. Rank 0 calls its own out, the others answer it with theirs,
    and each begins once rank 0 has said its name back: only a living rank 0 can have heard it.

    Raises:
        RankError: some did not come in five minutes.
    """
    name, end = uuid4().hex, time.monotonic() + _PATIENCE
    if rank == 0:
        store.set(_SESSION, name)
        for other in range(1, size):
            store.set(_reply(name, other), _heard(store, _answer(name, other), end, other))
        return PrefixStore(f"unbraid/{name}", store)
    while time.monotonic() < end:
        session = store.get(_SESSION).decode() if store.check([_SESSION]) else ""
        if session:
            store.set(_answer(session, rank), name)
            if store.check([_reply(session, rank)]) and store.get(_reply(session, rank)).decode() == name:
                return PrefixStore(f"unbraid/{session}", store)
        time.sleep(_PAUSE)
    raise _absent(0)


def _heard(store: Store, key: str, end: float, other: int) -> str:
    while time.monotonic() < end:
        if store.check([key]):
            return store.get(key).decode()
        time.sleep(_PAUSE)
    raise _absent(other)


def _answer(session: str, rank: int) -> str:
    return f"unbraid/{session}/answer/{rank}"


def _reply(session: str, rank: int) -> str:
    return f"unbraid/{session}/reply/{rank}"


def _absent(rank: int) -> RankError:
    return RankError(
        f"ranks: rank {rank} did not come within {_PATIENCE:.0f} seconds. See whether it was started, and whether "
        "machines reach MASTER_ADDR.",
        rank=rank,
        kind="RankError",
        bad_input=False,
    )
