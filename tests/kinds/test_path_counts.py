"""The path counts of the tables, by the oracle itself."""

import pytest

from kinds import one_trunk, rests, two_trunks
from kinds.known import counted_by_ones
from kinds.one_trunk import of_dense_former
from kinds.two_trunks import of_reversible

CASES = {**two_trunks.CASES, **one_trunk.CASES, **rests.CASES}


def test_the_counts_of_a_reversible_network_are_fibonacci_numbers():
    assert [sum(of_reversible(layers)) for layers in range(5)] == [1, 5, 13, 34, 89]
    assert sum(of_dense_former()) == 27


# Without those that scale by numbers, cut halves, or come to a branch by
# several ways that make the same choices: there the gradient of a path is not 1.
SCALED = ("halves", "nodes", "two chains", "an input", "residual in residual, scaled")


@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith(SCALED)])
def test_the_oracle_counts_the_paths_where_every_map_is_the_identity(name):
    case = CASES[name]
    assert counted_by_ones(case, opened=True) == [*(case.opened or case.counts)]
