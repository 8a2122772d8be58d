"""Every known answer: blocks and their kinds, path counts, lengths, values, lesions, saving."""

import pytest

from kinds import (
    concatenations,
    dense,
    gates,
    highways,
    mixes,
    one_trunk,
    rests,
    spelled_sums,
    stacks,
    two_trunks,
    unets,
)
from kinds.checks import asked

FAMILIES = {
    "two trunks": two_trunks,
    "one trunk": one_trunk,
    "rest": rests,
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


# One of each family in every run.
QUICK = (
    "two trunks: reversible",
    "one trunk: several depths",
    "highway: x + t(f - x)",
    "gate: gated fusion as lerp",
    "dense: a list",
    "dense: gated",
    "U-Net: 3 levels",
    "mix: doubly stochastic, einsum",
    "stack: stacked anew",
)


@pytest.mark.parametrize(("name", "check"), asked(CASES, QUICK))
def test_a_known_answer(name, check):
    check(CASES[name])
