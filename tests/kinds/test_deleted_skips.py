"""A skip that is deleted: the story in which it is zero. Which one of a U-Net matters?"""

import pytest
import torch

from kinds import dense, highways, mixes, two_trunks, unets
from kinds.checks import FORWARD
from kinds.told import Skipless
from marks import quick
from networks import error

CASES = {
    "U-Net": unets.CASES["3 levels"],
    "DenseNet": dense.CASES["growing"],
    "reversible": two_trunks.CASES["reversible"],
    "highway": highways.CASES["x + t(f - x)"],
    "mHC": mixes.CASES["doubly stochastic, einsum"],
}


@pytest.mark.parametrize("name", quick(CASES, "U-Net"))
def test_a_deleted_skip_is_zero(name):
    case = CASES[name]
    for index, block in enumerate(case.every):
        with torch.no_grad():
            expected = case.network.told(Skipless(block), *case.inputs)
        assert error(expected, case.run(*case.inputs)) > 1e-3, f"the skip of {block} is none of the story's"
        for which in ((index, "skip"), (index, -1)):
            found = case.form.without(which)(*case.inputs)
            assert error(found.detach(), expected) <= FORWARD, f"without {which}"
