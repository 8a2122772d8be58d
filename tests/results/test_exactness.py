"""How errors are measured: relative to the largest of the parts and of their sum."""

import pytest
import torch
from torch import nn

import unbraid
from networks import Chain, Residual, error, lively, mlp, normal
from unbraid.errors import InexactError
from unbraid.results import Examples, _exactness, check_error, check_sum, relative_error, sum_error, tolerance
from unbraid.walk import Masks, PathStack, Polynomial, Polynomials


def test_by_hand():
    parts = torch.tensor([[5.0, 1.0], [-5.001, 2.0]])
    assert sum_error(parts, parts.sum(0)) == 0
    assert sum_error(parts, torch.tensor([-0.001, 3.5])) == pytest.approx(0.5 / 5.001, rel=1e-5)
    assert sum_error(parts, torch.tensor([-0.001, 30.0])) == pytest.approx(27 / 30, rel=1e-5)
    assert sum_error(torch.zeros(2, 3), torch.zeros(3)) == 0
    assert sum_error(torch.zeros(2, 3), torch.tensor([0.0, 0.0, 2.0])) == 1
    assert sum_error(torch.tensor([[1.0], [-1.0]]), torch.tensor([0.0])) == 0
    assert sum_error(torch.tensor([[1.0], [-0.5]]), torch.tensor([0.0])) == 0.5
    assert sum_error(torch.tensor([[torch.inf], [1.0]]), torch.tensor([1.0])) == torch.inf
    assert sum_error(torch.zeros(2, 0), torch.zeros(0)) == 0


def whole_at_once(a, b):
    """‖a − b‖∞ / ‖b‖∞ with copies in float64, over what is finite in both."""
    x, y = a.to(torch.float64), b.to(torch.float64)
    finite = x.isfinite() & y.isfinite()
    if not finite.any() or not ((x == y) | (x.isnan() & y.isnan()) | finite).all():
        return float("inf")
    distance, size = (x - y)[finite].abs().max().item(), y[finite].abs().max().item()
    return distance / size if size else distance


@pytest.mark.parametrize("piece", [1, 4, 7, 100])
@pytest.mark.parametrize(
    "put",
    [
        (),
        ((3, "inf", "inf"),),
        ((3, "nan", "nan"), (19, "inf", "inf")),
        ((3, "nan", "inf"),),
        ((19, "nan", "0"),),
        tuple((n, "nan", "nan") for n in range(20)),
        tuple((n, "-inf", "-inf") for n in range(4)),
    ],
    ids=[
        "finite",
        "infinite alike",
        "nan alike",
        "nan and infinite",
        "nan alone",
        "nothing finite",
        "a piece infinite",
    ],
)
def test_the_error_is_that_of_the_whole_however_it_is_cut(piece, put, monkeypatch):
    monkeypatch.setattr(_exactness, "_PIECE", piece)
    a, b = normal(4, 5, dtype=torch.float32), normal(4, 5, seed=1, dtype=torch.float32)
    for place, here, there in put:
        a.view(-1)[place], b.view(-1)[place] = float(here), float(there)
    assert relative_error(a, b) == whole_at_once(a, b)
    assert relative_error(a.T, b.T) == whole_at_once(a, b)
    assert relative_error(a, torch.zeros_like(a)) == whole_at_once(a, torch.zeros_like(a))


@pytest.mark.parametrize("departure", [2e-10, float("inf"), float("nan")])
def test_what_departs_is_refused_with_its_rule(departure):
    form = unbraid.trace(Chain(Residual(mlp(3))), normal(2, 3, dtype=torch.float32))
    about = {"precision": torch.float64, "graph": form.graph, "where": "sum_1"}
    check_sum(1e-10, "terms: they must sum", **about)
    with pytest.raises(InexactError) as caught:
        check_sum(departure, "terms: they must sum", **about)
    assert str(caught.value) == f"terms: they must sum to 1e-10; they depart by {departure:.2e}."
    assert caught.value.where == "sum_1"
    with pytest.raises(InexactError, match="it is wrong"):
        check_error(departure, 1e-10, "it is wrong", where="sum_1")


def test_complex_types_have_the_tolerance_of_their_parts():
    assert tolerance("sum", torch.complex128) == 1e-10
    assert tolerance("forward", torch.complex64) == 1e-5


@pytest.fixture(scope="module")
def close():
    """Two logits that differ by a thousandth, each a sum of terms of size five and more, in float32."""
    model = lively(Chain(*(Residual(mlp(16)) for _ in range(4)), nn.Linear(16, 2)), dtype=torch.float32)
    x = normal(1, 16, dtype=torch.float32)
    with torch.no_grad():
        model.blocks[-1].weight.mul_(10)
        model.blocks[-1].bias[1] += (model(x)[0, 0] - model(x)[0, 1]) + 1e-3
    return model, unbraid.trace(model, x), x


def difference(output):
    return output[:, 1] - output[:, 0]


CALLS = {
    "attribute": lambda form, x, target: unbraid.attribute(form, x, target=target),
    "Terms.attribute": lambda form, x, target: unbraid.unravel(form, x).attribute(target),
    "value_spectrum": lambda form, x, target: unbraid.value_spectrum(form, x, target=target),
    "all_paths": lambda form, x, target: unbraid.all_paths(form, x, target=target),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_difference_that_nearly_cancels_is_no_error(close, name):
    model, form, x = close
    found = CALLS[name](form, x, difference)
    assert found.target.abs().max() < 2e-3
    parts = found.from_input if name == "value_spectrum" else found.values
    assert parts.abs().max() > 5
    assert found.error < 1e-5
    whole = parts.sum(0) + (found.from_constants.sum(0) if name == "value_spectrum" else found.constants)
    assert error(whole, difference(model(x)).detach()) * 1e-3 / parts.abs().max() < 1e-5


def test_a_stream_that_nearly_cancels_is_no_error():
    """The last branch takes off what the stream holds: h − h(1 − 1e-6) is as exact as h."""

    class Cancels(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = mlp(6), nn.Linear(6, 6, bias=False)

        def forward(self, x):
            h = x + self.first(x)
            return h + torch.tanh(self.last(h)) * 1e3

    model = lively(Cancels(), dtype=torch.float32)
    with torch.no_grad():
        model.last.weight.copy_(-1e-3 * (1 - 1e-5) * torch.eye(6))
    x = normal(3, 6, dtype=torch.float32) / 10
    form = unbraid.trace(model, x, tolerance=1.0)
    terms = unbraid.unravel(form, x)
    assert terms.stream.abs().max() < 1e-3 * terms.values.abs().max()
    assert terms.error < 1e-6


def scaled_branch(monkeypatch, algebra, kind):
    """A hundredth more of what passes the branch of block 1."""
    enter = algebra.enter

    def wrong(self, add, operand, value):
        passed = enter(self, add, operand, value)
        changed = {**vars(passed), "stack": passed.stack * 1.01}
        return kind(**changed) if add.block == 1 and operand >= 0 else passed

    monkeypatch.setattr(algebra, "enter", wrong)


@pytest.mark.parametrize("name", CALLS)
def test_an_error_beside_the_largest_part_is_seen_all_the_same(close, name, monkeypatch):
    _, form, x = close
    if name == "value_spectrum":
        scaled_branch(monkeypatch, Polynomials, Polynomial)
    elif name == "all_paths":
        scaled_branch(monkeypatch, Masks, PathStack)
    else:
        dot, calls = Examples.dot, []

        def wrong(self, stream, gradients, value):
            calls.append(stream)  # where terms stream, those of the head come first; one term is changed, or all alike
            changed = 4 if name == "attribute" else 1
            return dot(self, stream, gradients, value) * (1.01 if len(calls) == changed else 1)

        monkeypatch.setattr(Examples, "dot", wrong)
    with pytest.raises(InexactError, match=r"must sum to the target to 0\.0001; they\s+depart by"):
        CALLS[name](form, x, difference)
