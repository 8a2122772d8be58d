"""States that are carried over positions are no blocks, whatever the length; a layer that runs again is one each."""

import pytest
from torch import nn

from kinds.checks import CHECKS, asked, values
from kinds.known import WIDTH, Known
from kinds.recurrences import CASES, LENGTHS, STATES, linear
from kinds.told import Told
from kinds.trails import binomials
from marks import slow
from networks import Residual, error, lively, mlp, normal
from unbraid import trace
from unbraid.errors import InexactError


@pytest.mark.parametrize("length", [LENGTHS[0], slow(LENGTHS[1])])
@pytest.mark.parametrize(("name", "check"), asked(STATES, ["scan"]))
def test_a_recurrence_is_no_block(name, check, length):
    if (name, check) == ("a cell", values):
        with pytest.raises(InexactError, match=r"no rule makes the operator aten\.gru_cell\.default affine, in 'cell'"):
            check(CASES[name, length])
        return
    check(CASES[name, length])


@pytest.mark.slow
@pytest.mark.parametrize("name", STATES)
def test_the_structure_does_not_depend_on_the_length(name):
    """The same blocks, and the same refusals: one for each line, not one for each position."""
    short, long = (CASES[name, length].form for length in LENGTHS)
    assert [(b.name, b.skip, b.join) for b in short.all_blocks] == [(b.name, b.skip, b.join) for b in long.all_blocks]
    assert [(r.where, r.reason) for r in short.refusals] == [(r.where, r.reason) for r in long.refusals]
    assert len({r.where for r in short.refusals}) == len(short.refusals)


# --- depth ------------------------------------------------------------------------------------------------------------


class Looped(nn.Module):
    """One layer that runs several times: universal transformers, and depth-recurrent language models."""

    def __init__(self, layer, times, again=False):
        super().__init__()
        self.embed, self.layer, self.head = linear(), layer, linear(3)
        self.times, self.again = times, again

    def forward(self, x):
        h = e = self.embed(x)
        for _ in range(self.times):
            h = self.layer(h + e) if self.again else self.layer(h)
        return self.head(h)


@pytest.mark.parametrize("times", [2, slow(5)])
def test_a_layer_that_runs_again_is_a_block_each_time(times):
    model, x = lively(Looped(Residual(mlp(WIDTH)), times)), normal(2, WIDTH, seed=1)
    form = trace(model, x)
    assert [b.name for b in form.all_blocks] == [f"layer@{k}" for k in range(1, times + 1)]
    assert {(b.skip, b.join) for b in form.all_blocks} == {("identity", "sum")}
    assert form.path_counts() == binomials(times)
    assert form.refusals == ()
    assert error(form(x), model(x)) <= 1e-12


@pytest.mark.slow
def test_a_branch_that_runs_again_is_a_block_each_time():
    def story(net, mark, x):
        for k in range(3):
            x = x + mark(f"f{k}", net.f(x))
        return net.head(x)

    case = Known(lambda: Told(story, f=mlp(WIDTH), head=linear(3)), "f0 f1 f2", binomials(3))
    assert [b.name for b in case.form.blocks] == ["f@1", "f@2", "f@3"]
    for check in CHECKS:
        check(case)


def test_a_layer_that_is_given_the_input_again():
    """h ← layer(h + e): the sum of the stream and its embedding is the trunk at another depth."""
    model, x = lively(Looped(Residual(mlp(WIDTH)), 3, again=True)), normal(2, WIDTH, seed=1)
    form = trace(model, x)
    assert [(b.name, b.skip) for b in form.all_blocks] == [(f"layer@{k}", "identity") for k in (1, 2, 3)]
    # e + e is 2 e; then (1 + t), and twice more the stream and e, and (1 + t).
    assert form.path_counts() == [3, 6, 4, 1]
    assert form.refusals
    assert error(form(x), model(x)) <= 1e-12
