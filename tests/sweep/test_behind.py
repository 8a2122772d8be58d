"""Where a variant lies in a stack: last if it is asked for, so that what flows from row to row reaches it."""

from dataclasses import replace

import pytest
import torch

from unbraid import trace
from unbraid.sweep import Room, lesioned, merge, run_variants, schedule, used
from unbraid.walk import run

DEPTH, MIXES = 4, 3


class Sums(torch.nn.Module):
    """The last branch adds up the rows before each row, or those after it."""

    def __init__(self, backward):
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(5, 5) for _ in range(DEPTH))
        self.backward = backward

    def forward(self, x):
        for number, layer in enumerate(self.layers):
            h = torch.tanh(layer(x))
            if number == MIXES:
                h = h.flip(0).cumsum(0).flip(0) if self.backward else h.cumsum(0)
            x = x + h
        return x


@pytest.mark.parametrize("behind", range(MIXES + 1))
@pytest.mark.parametrize("backward", [False, True])
def test_nodes_that_are_to_come_last_have_all_others_before_them(behind, backward):
    """So sums of the rows before them change these, and sums of those after them do not."""
    torch.manual_seed(0)
    form = trace(Sums(backward).double(), torch.randn(2, 5, dtype=torch.float64))
    variants = lesioned(form, [(), *([k] for k in range(MIXES))])
    inputs = form.inputs((torch.randn(1, 5, dtype=torch.float64),), {})
    (out,) = form.graph.outputs
    with torch.no_grad():
        alone = run(replace(form.graph, steps=variants[behind]), form.state, inputs)[out]
    merged = merge(form.graph, variants)
    room = [len(variants)] * merged.needs.shape[1]
    found = dict(run_variants(merged, schedule(merged, Room(room, room)), form.state, inputs, used(merged, [behind])))
    assert torch.allclose(found[behind][out], alone, rtol=1e-13, atol=1e-13) == backward
