"""Every known answer: blocks and their kinds, path counts, lengths, values, lesions, saving."""

import pytest

from kinds import concatenations, dense, gates, highways, mixes, one_trunk, spelled_sums, stacks, two_trunks, unets
from kinds.checks import CHECKS
from marks import quick

FAMILIES = {
    "two trunks": two_trunks,
    "one trunk": one_trunk,
    "highway": highways,
    "gate": gates,
    "dense": dense,
    "concatenation": concatenations,
    "U-Net": unets,
    "mix": mixes,
    "stack": stacks,
    "sum": spelled_sums,
}
CASES = {f"{family}: {name}": case for family, module in FAMILIES.items() for name, case in module.CASES.items()}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", quick(CASES, *CASES))
def test_a_known_answer(name, check):
    check(CASES[name])
