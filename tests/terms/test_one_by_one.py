"""`attribute` takes the terms one by one; the oracle is the product with all of them at once, or autograd."""

import pytest
import torch
from torch import nn

from book_networks import LINEAR
from networks import Residual, error, lively, mlp, normal
from real_models import TEXT, real
from unbraid import attribute, chain, trace, unravel
from unbraid.errors import InexactError
from unbraid.terms._last_linear_map import _scores, readout
from unbraid.terms._spill_file import SpillFile


@pytest.mark.parametrize("name", [*TEXT, "resnet18", "vit_tiny_patch16_224", "convnext_atto", *LINEAR])
def test_contributions_are_those_of_the_terms(name):
    _, args, kwargs, form, target = real(name)
    found, wanted = (
        attribute(form, args, kwargs, target=target),
        unravel(form, args, kwargs).attribute(target),
    )
    assert found.names == wanted.names
    assert error(found.values, wanted.values) < 1e-12
    assert error(found.constants, wanted.constants) < 1e-12
    assert error(found.target, wanted.target) < 1e-14


@pytest.mark.parametrize("name", ["GPT2", "Llama"])
def test_heads_are_branches_of_their_own(name):
    _, args, kwargs, form, target = real(name)
    found = attribute(form, args, kwargs, target=target, by="head")
    wanted = unravel(form, args, kwargs, by="head").attribute(target)
    assert found.names == wanted.names
    assert error(found.values, wanted.values) < 1e-12


@pytest.mark.parametrize("name", ["GPT2", "Gemma2", "resnet18"])
def test_a_function_gives_what_an_index_gives(name):
    _, args, kwargs, form, target = real(name)

    def pick(output):
        """A function receives what the model returns: scores, or a transformer's own class that holds them."""
        return output[:, target] if isinstance(target, int) else output.logits[:, target[0], target[1]]

    found = attribute(form, args, kwargs, target=pick)
    wanted = attribute(form, args, kwargs, target=target)
    assert error(found.values, wanted.values) < 1e-12
    assert error(found.constants, wanted.constants) < 1e-12


def test_a_chain_has_one_term_and_what_its_trunk_adds():
    network = lively(nn.Sequential(*(Residual(mlp(6)) for _ in range(3))))
    x = normal(3, 6)
    form = chain(network, x, layers=["0", "1"])
    found, wanted = attribute(form, x, target=2), unravel(form, x).attribute(2)
    assert found.names == wanted.names
    assert error(found.values, wanted.values) < 1e-13


def test_where_examples_change_their_place_on_the_trunk_the_terms_are_held():
    """[batch, n, f] becomes [n, batch, f] between two blocks: where a term joins, rows are no examples."""

    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(Residual(mlp(6)) for _ in range(3))

        def forward(self, x):
            first, second, third = self.blocks
            return third(second(first(x).transpose(0, 1)).transpose(0, 1))

    network = lively(Turned())
    x = normal(3, 5, 6)
    form = trace(network, x)
    found, wanted = attribute(form, x, target=(1, 2)), unravel(form, x).attribute((1, 2))
    assert error(found.values, wanted.values) < 1e-13
    assert error(found.total(), network(x)[:, 1, 2].detach()) < 1e-12


def test_a_term_that_comes_back_wrong_is_seen(monkeypatch):
    """Give one term back doubled: the contributions no longer sum to the target."""
    _, args, kwargs, form, target = real("GPT2")
    whole, seen = SpillFile.take, []

    def take(self, name, device):
        seen.append(name)
        return whole(self, name, device) * (2 if len(seen) == 2 else 1)

    monkeypatch.setattr(SpillFile, "take", take)
    with pytest.raises(InexactError, match="attribute: the contributions must sum to the target to 1e-10"):
        attribute(form, args, kwargs, target=target)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int64, torch.bool])
def test_the_shelf_gives_back_what_was_put_there(dtype):
    tensors = {f"t{i}": torch.randn(2000, i, 50).mul(9).to(dtype).transpose(0, 2) for i in range(4)}
    tensors["one"] = torch.ones((), dtype=dtype)
    with SpillFile.opened() as spilled:
        for name, tensor in tensors.items():
            spilled.put(name, tensor)
        for name in reversed(tensors):
            assert torch.equal(spilled.take(name, torch.device("cpu")), tensors[name])


@pytest.mark.parametrize("bias", [True, False])
def test_positions_that_nothing_asks_for_are_left_out_of_the_derivative(bias):
    features, weight = normal(3, 4, 5).requires_grad_(), normal(7, 5)
    shift = normal(7) if bias else None
    cotangent = normal(3, 4, 7) * (torch.rand(3, 4, 1, generator=torch.Generator().manual_seed(0)) < 0.5)
    (wanted,) = torch.autograd.grad(torch.nn.functional.linear(features, weight, shift), features, cotangent)
    (found,) = torch.autograd.grad(_scores(features, weight, shift), features, cotangent)
    assert error(found, wanted) < 1e-14


def test_the_readout_is_what_the_model_ends_in():
    """The features, times W, plus b, are the scores; a head with a soft cap on its scores has no such end."""
    model, args, kwargs, form, _ = real("GPT2")
    last = readout(form.graph, form.output)
    assert last.weight in {"lm_head.weight", "transformer.wte.weight"}
    from unbraid.walk import run

    with torch.no_grad():
        features = run(last.graph, form.state, form.inputs(args, kwargs))[last.features]
        assert error(features @ form.state[last.weight].T, model(*args, **kwargs).logits) < 1e-13
    capped = real("Gemma2")[3]
    assert readout(capped.graph, capped.output) is None
