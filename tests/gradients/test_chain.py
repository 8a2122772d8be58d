"""The chain rule's factors against autograd's own Jacobians, in plain and residual networks."""

from functools import reduce

import pytest
import torch
from torch import nn

from networks import F64, Chain, Residual, error, lively, mlp, normal
from real_models import real
from unbraid import chain, trace
from unbraid.errors import InexactError
from unbraid.gradients import derivative_chain
from unbraid.gradients._chain_link import Link
from unbraid.gradients._lanczos import extreme_singular_values

pytestmark = pytest.mark.filterwarnings("ignore")


def jacobian(function, x):
    """[batch, out, in], one example at a time."""
    rows = [torch.autograd.functional.jacobian(lambda one: function(one[None])[0], example) for example in x]
    return torch.stack(rows)


def test_factors_of_a_residual_network_are_i_plus_the_branches_jacobian():
    """Equation 11.6: ∏ (I + ∂f_k/∂h)."""
    network = lively(Chain(*(Residual(mlp(4)) for _ in range(3)), nn.Linear(4, 2)))
    x = normal(3, 4)
    found = derivative_chain(trace(network, x), x)
    assert [factor.name for factor in found.factors] == ["blocks.0", "blocks.1", "blocks.2", "after"]
    h = x
    for block, factor in zip(network.blocks[:3], found.factors, strict=False):
        assert error(factor.jacobian, torch.eye(4, dtype=F64) + jacobian(block.branch, h)) < 1e-12
        h = block(h).detach()
    product = reduce(lambda p, factor: factor.jacobian @ p, found.factors, torch.eye(4, dtype=F64).expand(3, 4, 4))
    assert error(product, jacobian(network, x)) < 1e-12
    assert found.error < 1e-12
    assert error(found.gradient, jacobian(network, x).sum(1)) < 1e-12


def test_factors_of_a_plain_network_are_the_layers_jacobians():
    """Equation 11.3: ∏ ∂f_k/∂h, layers of different sizes."""
    layers = [nn.Sequential(nn.Linear(a, b), nn.Tanh()) for a, b in ((5, 4), (4, 6), (6, 3))]
    network = lively(Chain(*layers))
    x = normal(2, 5)
    found = derivative_chain(chain(network, x, layers=["blocks"]), x)
    assert [tuple(factor.jacobian.shape[1:]) for factor in found.factors] == [(4, 5), (6, 4), (3, 6)]
    product = found.factors[2].jacobian @ found.factors[1].jacobian @ found.factors[0].jacobian
    assert error(product, jacobian(network, x)) < 1e-12


def test_singular_values_are_those_of_the_jacobians():
    network, x = lively(Chain(*(Residual(mlp(6)) for _ in range(2)))), normal(4, 6)
    found = derivative_chain(trace(network, x), x)
    for factor in found.factors:
        values = torch.linalg.svdvals(factor.jacobian)
        assert error(factor.largest, values[:, 0]) < 1e-12
        assert error(factor.smallest, values[:, -1]) < 1e-12


def test_large_streams_have_singular_values_without_jacobians():
    """With as many steps as dimensions Lanczos is exact; with few, the largest is close and the smallest a bound."""
    network, x = lively(Chain(*(Residual(mlp(12)) for _ in range(2)))), normal(3, 12)
    form = trace(network, x)
    written, exact, few = (
        derivative_chain(form, x, small=small, steps=steps) for small, steps in ((512, 1), (1, 12), (1, 7))
    )
    for a, b, c in zip(written.factors, exact.factors, few.factors, strict=True):
        assert b.jacobian is None
        assert error(b.largest, a.largest) < 1e-8
        assert error(b.smallest, a.smallest) < 1e-6
        assert (c.largest <= a.largest * (1 + 1e-9)).all()
        assert error(c.largest, a.largest) < 0.05
        assert (c.smallest >= a.smallest * (1 - 1e-9)).all()


def test_lanczos_on_a_matrix_of_known_singular_values():
    left, right = (torch.linalg.qr(normal(2, 9, 9, seed=seed)).Q for seed in (0, 1))
    matrix = left @ torch.diag(torch.linspace(0.1, 3, 9, dtype=F64)) @ right

    def push(v):
        return (matrix @ v[..., None])[..., 0]

    def pull(u):
        return (matrix.mT @ u[..., None])[..., 0]

    largest, smallest = extreme_singular_values(push, pull, normal(2, 9), 9)
    assert error(largest, torch.full((2,), 3.0, dtype=F64)) < 1e-10
    assert error(smallest, torch.full((2,), 0.1, dtype=F64)) < 1e-8


def test_lanczos_stops_where_the_space_is_used_up():
    """Of rank one: the first step has all there is."""
    a, b = normal(1, 6, seed=3), normal(1, 6, seed=4)
    largest, _ = extreme_singular_values(
        lambda v: (b * v).sum(1, keepdim=True) * a, lambda u: (a * u).sum(1, keepdim=True) * b, normal(1, 6), 6
    )
    assert error(largest, a.norm(dim=1) * b.norm(dim=1)) < 1e-10


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
def test_real_models_multiply_out_to_their_gradient(name):
    model, args, kwargs, form, _ = real(name)
    leaf = args[0].clone().requires_grad_()
    (wanted,) = torch.autograd.grad(model(leaf).sum(), leaf)
    found = derivative_chain(form, args, kwargs, steps=3)
    assert error(found.gradient, wanted) < 1e-10
    assert len(found.factors) == len(form.blocks) + 2


def test_fused_attention_has_singular_values_without_its_jacobian():
    """Its kernel has no second derivative, which J v takes; the written-out Jacobian is the oracle."""

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.out = nn.Linear(4, 12), nn.Linear(4, 4)

        def forward(self, x):
            queries, keys, values = self.inner(x).unflatten(-1, (3, 1, 4)).permute(2, 0, 3, 1, 4)
            read = nn.functional.scaled_dot_product_attention(queries, keys, values, is_causal=True)
            return self.out(read.transpose(1, 2).flatten(2))

    network, x = lively(Chain(Residual(Attention()), Residual(mlp(4)))), normal(2, 3, 4)
    form = trace(network, x)
    whole, without = derivative_chain(form, x), derivative_chain(form, x, small=1)
    for written, krylov in zip(whole.factors, without.factors, strict=True):
        assert krylov.jacobian is None
        assert error(krylov.largest, written.largest) < 1e-8
        assert error(krylov.smallest, written.smallest) < 1e-6


def test_a_wrong_factor_is_seen(monkeypatch):
    network, x = lively(Chain(*(Residual(mlp(4)) for _ in range(3)))), normal(2, 4)
    pull = Link.pull

    def wrong(self, cotangent):
        return pull(self, cotangent) * (1 + 1e-6 * (self.end == "add_1"))

    monkeypatch.setattr(Link, "pull", wrong)
    with pytest.raises(InexactError, match=r"the product of the factors must be the gradient to 1e-10; it departs by"):
        derivative_chain(trace(network, x), x)


def test_blocks_of_two_trunks_are_no_chain():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = Residual(mlp(4)), Residual(mlp(4))

        def forward(self, x):
            return torch.cat([self.first(x), self.second(2 * x)], dim=1)

    network, x = lively(Two()), normal(2, 4)
    with pytest.raises(ValueError, match="the 2 blocks of this form do not follow one another on one trunk"):
        derivative_chain(trace(network, x), x)


def test_a_chain_speaks():
    network, x = lively(Chain(*(Residual(mlp(4)) for _ in range(3)), nn.Linear(4, 2))), normal(2, 4)
    found = derivative_chain(trace(network, x), x)
    assert found.table().row_count == 4
    assert len(found.to_dict()["factors"][0]["largest"]) == 2
    assert "The largest stretch" in found.plot().get_suptitle()
