"""The second tracer: one real run written down."""

import pytest
import torch
from torch import nn

from networks import Chain, Does, Residual, error, lively, mlp, normal
from unbraid.errors import InexactError, TraceError
from unbraid.form import trace


class Decides(nn.Module):
    """Its code looks at the values of its input."""

    def __init__(self):
        super().__init__()
        self.f, self.g, self.h = mlp(6), mlp(6), mlp(6)

    def forward(self, x):
        x = x + self.f(x)
        x = x + self.g(x) if x.sum() > 0 else x + self.h(x)
        return x + self.f(x)


class Selects(nn.Module):
    """A size of it depends on values."""

    def __init__(self):
        super().__init__()
        self.f, self.g = mlp(6), mlp(6)

    def forward(self, x):
        x = x + self.f(x)
        rows = x[x[:, 0] > 0]
        return x + self.g(x) * rows.mean()


class Escapes(nn.Module):
    """Its code leaves torch for numpy, which torch.export cannot follow."""

    def __init__(self):
        super().__init__()
        self.f = mlp(6)

    def forward(self, x):
        scale = float(x.detach().numpy().std())
        return x + scale * self.f(x)


X = normal(3, 6)


def quiet(model):
    return lively(model).eval()


@pytest.mark.parametrize("model", [Decides, Escapes])
def test_what_cannot_be_exported_is_recorded(model):
    network = quiet(model())
    with pytest.raises(TraceError, match=r"captured as a graph\.\n  Try: .*\n  export.*\(in the model itself, a"):
        trace(network, X, tracer="export")
    form = trace(network, X)
    assert form.tracer == "dispatch"
    assert form.error <= 1e-12
    assert torch.equal(form(X), network(X))


def test_the_way_taken_is_checked_at_each_call():
    network = quiet(Decides())
    there = next(
        normal(3, 6, seed=s) for s in range(1, 99) if _goes(network, normal(3, 6, seed=s)) != _goes(network, X)
    )
    same = next(normal(3, 6, seed=s) for s in range(1, 99) if _goes(network, normal(3, 6, seed=s)) == _goes(network, X))
    form = trace(network, X)
    assert error(form(same), network(same)) <= 1e-12
    with pytest.raises(
        InexactError, match=r"one recorded run(.|\n)*was \[(True|False)\] then and is \[(True|False)\] now"
    ):
        form(there)


def _goes(network, x):
    return bool((x + network.f(x)).sum() > 0)


def test_a_size_that_depends_on_values_is_checked():
    network = quiet(Selects())
    form = trace(network, X, tracer="dispatch")
    assert torch.equal(form(X), network(X))
    others = [normal(3, 6, seed=seed) for seed in range(1, 20)]
    other = next(x for x in others if _rows(network, x) != _rows(network, X))
    with pytest.raises(
        InexactError, match=rf"was \[{_rows(network, X)}, 6\] then and is \[{_rows(network, other)}, 6\] now"
    ):
        form(other)


def _rows(network, x):
    return int(((x + network.f(x))[:, 0] > 0).sum())


def test_both_tracers_find_the_same():
    network = quiet(Chain(*(Residual(mlp(6)) for _ in range(3)), nn.Linear(6, 2)))
    one, other = trace(network, X, tracer="export"), trace(network, X, tracer="dispatch")
    assert [b.name for b in one.blocks] == [b.name for b in other.blocks] == ["blocks.0", "blocks.1", "blocks.2"]
    assert [b.where for b in one.blocks] == [b.where for b in other.blocks]
    assert [b.parameters for b in one.blocks] == [b.parameters for b in other.blocks]
    assert other.path_counts() == [1, 3, 3, 1]


class InPlaceOnASlice(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.f = nn.Linear(6, 6), mlp(6, outputs=4)

    def forward(self, x):
        h = self.stem(x)
        h[:, :4] += self.f(h)
        return h.tanh()


def test_an_addition_in_place_on_a_slice():
    network = quiet(InPlaceOnASlice())
    form = trace(network, X, tracer="dispatch")
    assert len(form.blocks) == 1
    assert form.blocks[0].where.startswith("test_dispatch.py:")
    assert error(form(X), network(X)) <= 1e-12


class WithoutGradients(nn.Module):
    def __init__(self):
        super().__init__()
        self.f, self.g = mlp(6), mlp(6)

    def forward(self, x):
        with torch.no_grad():
            scale = self.g(x)
        return x + scale * self.f(x)


def test_no_gradient_leaves_a_region_without():
    network = quiet(WithoutGradients())
    form = trace(network, X, tracer="dispatch")
    x, y = X.clone().requires_grad_(), X.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(form(x).sum(), x)
    (expected,) = torch.autograd.grad(network(y).sum(), y)
    assert error(gradient, expected) <= 1e-12


def test_a_run_in_train_mode_changes_nothing():
    network = lively(
        Chain(Residual(nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Dropout(0.5)))), dtype=torch.float64
    )
    network.train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    torch.manual_seed(5)
    state = torch.get_rng_state()
    trace(network, X, tracer="dispatch")
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert network.training
    assert not torch.nn.modules.module._global_forward_pre_hooks
    assert not torch.nn.modules.module._global_forward_hooks


class GivesASet(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = mlp(6)

    def forward(self, x):
        return {x + self.f(x), x}


def test_an_output_without_an_order():
    message = r"export.*GivesASet returns a set of tensors(.|\n)*dispatch: .*returns a set of tensors"
    with pytest.raises(TraceError, match=message) as caught:
        trace(quiet(GivesASet()), X)
    assert set(caught.value.reasons) >= {"export", "dispatch"}


@pytest.mark.parametrize(
    "spelled",
    [lambda h, f: torch.cat([h[None], f[None]]).sum(0), lambda h, f: 2 * torch.cat([h[None], f[None]]).mean(0)],
)
def test_what_lies_one_after_the_other_and_is_summed(spelled):
    """torch stands for each recorded value apart, and would compute with no two of them."""
    model = lively(Does(lambda net, x: spelled(x, net.f(x)), f=mlp(6)))
    x = normal(3, 6)
    form = trace(model, x, tracer="dispatch")
    assert [block.skip for block in form.blocks] == ["identity"]
    assert error(form(x), model(x)) < 1e-12
