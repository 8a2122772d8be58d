"""How ranks find one another in a store that remembers those who are dead."""

import threading

import pytest
from torch.distributed import HashStore

from unbraid import RankError
from unbraid.ranks import _meeting
from unbraid.ranks._meeting import meet


def met(store, size, late=None):
    """What each rank, in a thread of its own, is told in the part of the store it was given."""
    parts = {}

    def one(rank):
        parts[rank] = meet(store, rank, size)

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(size) if rank != late]
    for thread in threads:
        thread.start()
    if late is not None:
        one(late)
    for thread in threads:
        thread.join(30)
    parts[0].set("address", f"of rank 0 of {size}")
    return [parts[rank].get("address") for rank in range(size)]


@pytest.mark.parametrize("late", [None, 0])
def test_a_second_start_does_not_meet_the_first(late):
    """The second has other ranks, as after the loss of a machine; rank 0 may come last, as others read the old name."""
    store = HashStore()
    assert met(store, 3) == [b"of rank 0 of 3"] * 3
    assert met(store, 2, late) == [b"of rank 0 of 2"] * 2
    assert met(store, 4, late) == [b"of rank 0 of 4"] * 4


def test_a_rank_that_does_not_come_is_named(monkeypatch):
    monkeypatch.setattr(_meeting, "_PATIENCE", 0.1)
    with pytest.raises(RankError, match=r"rank 1 did not come within 0 seconds\. See whether it was started"):
        meet(HashStore(), 0, 2)
    with pytest.raises(RankError, match="rank 0 did not come"):
        meet(HashStore(), 1, 2)
