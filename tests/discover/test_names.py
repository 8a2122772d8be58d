"""How blocks are called: by modules of the model, each name once, the same by either tracer and after loading.

The oracle of a name is a hook on the module that bears it: with that module's result at zero, the model is the form
without the block.
"""

import pytest
import torch
from torch import nn

from networks import Chain, Does, Residual, error, lively, mlp, normal
from unbraid import trace
from unbraid.form import load

X = normal(3, 6)


def heads(x):
    return torch.softmax(x @ x.transpose(-1, -2), -1) @ x


class Layer(nn.Module):
    """A transformer's layer as OPT, BART and Whisper write it: one module of attention, the layers of the MLP bare."""

    def __init__(self):
        super().__init__()
        self.attn, self.norm = nn.Linear(6, 6), nn.LayerNorm(6)
        self.fc1, self.fc2 = nn.Linear(6, 9), nn.Linear(9, 6)

    def forward(self, x):
        x = x + self.attn(heads(self.norm(x)))
        return x + nn.functional.dropout(self.fc2(torch.relu(self.fc1(x))), 0.1, self.training)


class Fused(nn.Module):
    """Attention and MLP side by side behind one projection, twice in one module."""

    def __init__(self):
        super().__init__()
        self.inward, self.attn_out, self.mlp_out = nn.Linear(6, 12), nn.Linear(6, 6), nn.Linear(6, 6)
        self.after = nn.Linear(6, 6)

    def forward(self, x):
        a, b = self.inward(x).chunk(2, -1)
        x = x + self.attn_out(heads(a)) + self.mlp_out(torch.relu(b))
        return x + torch.tanh(self.after(x))


class Bare(nn.Module):
    """Weights without modules, a weight used past its module, and a branch without weights."""

    def __init__(self):
        super().__init__()
        self.u, self.v = nn.Parameter(torch.ones(6, 6)), nn.Linear(6, 6)

    def forward(self, x):
        x = x + torch.relu(x @ self.u)
        x = x + torch.tanh(nn.functional.linear(x, self.v.weight))
        return x + torch.relu(x.cumsum(1))


def twice(net, x):
    x = x + net.f(x)
    return x + net.f(x)


class Stem(nn.Module):
    """A block in a module that holds all other blocks too, and a block within a block in one module."""

    def __init__(self):
        super().__init__()
        self.position, self.layers = nn.Sequential(nn.Linear(6, 6), nn.Tanh()), Chain(Layer(), Residual(mlp(6)))
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x):
        x = self.layers(x + self.position(x))
        h = torch.tanh(self.a(x))
        return x + self.b(torch.relu(h + torch.relu(self.position[0](h))))


MODELS = {
    "layers": (
        lambda: Chain(Layer(), Layer()),
        ["blocks.0.attn", "blocks.0.fc2", "blocks.1.attn", "blocks.1.fc2"],
    ),
    "fused": (lambda: Chain(Fused()), ["blocks.0.attn_out+mlp_out", "blocks.0.after"]),
    "bare": (lambda: Chain(Bare()), ["blocks.0.u", "blocks.0.v", "blocks.0.cumsum"]),
    "shared": (lambda: Does(twice, f=mlp(6)), ["f@1", "f@2"]),
    "a layer twice": (
        lambda: Does(lambda net, x: net.layer(net.layer(x)), layer=Layer()),
        ["layer.attn@1", "layer.fc2@1", "layer.attn@2", "layer.fc2@2"],
    ),
    "a residual module twice": (
        lambda: Does(lambda net, x: net.r(net.r(x)), r=Residual(mlp(6))),
        ["r@1", "r@2"],
    ),
    "stem": (Stem, ["position", "layers.blocks.0.attn", "layers.blocks.0.fc2", "layers.blocks.1", "b", "position.0"]),
}


@pytest.fixture(scope="module", params=MODELS)
def named(request):
    made, names = MODELS[request.param]
    model = lively(made()).double()
    return model, trace(model, X), names


def test_each_block_has_a_name_of_its_own(named):
    _, form, names = named
    assert [block.name for block in form.all_blocks] == names
    for block in form.all_blocks:
        assert len(set(block.branches)) == len(block.branches)


def test_with_the_named_module_at_zero_the_model_is_the_form_without_the_block(named):
    """A module that is called once, and is no residual block itself, makes the branch and nothing else."""
    model, form, _ = named
    modules = dict(model.named_modules())
    for block in form.blocks:
        module, results = modules.get(block.name), []
        if module is None or isinstance(module, Residual):
            continue
        handle = module.register_forward_hook(lambda *given, seen=results: seen.append(0 * given[-1]) or seen[-1])
        wanted = model(X).detach()
        handle.remove()
        if len(results) == 1:
            assert error(form.without(block.index)(X), wanted) < 1e-12


def test_a_branch_is_named_by_what_makes_it():
    form = trace(lively(Chain(Fused())).double(), X)
    assert form.blocks[0].branches == ("blocks.0.attn_out", "blocks.0.mlp_out")
    assert form.blocks[1].branches == ("blocks.0.after",)


@pytest.mark.parametrize("which", ["bare", "a layer twice", "stem"])
def test_names_are_the_same_by_either_tracer_and_after_saving(which, tmp_path):
    made, names = MODELS[which]
    model = lively(made()).double()
    form = trace(model, X)
    assert [block.name for block in trace(model, X, tracer="dispatch").all_blocks] == names
    form.save(tmp_path / "form")
    assert [block.name for block in load(tmp_path / "form").all_blocks] == names
    assert [block.name for block in form.without(0).all_blocks] == names


def test_layers_of_opt():
    pytest.importorskip("torchvision_stub")
    from zoo.catalogue import find

    made = find("OPT").make()
    form = trace(made.model, made.args, made.kwargs)
    layers = [f"model.decoder.layers.{k}" for k in range(2)]
    assert [b.name for b in form.blocks] == [f"{layer}.{name}" for layer in layers for name in ("self_attn", "fc2")]
    handle = made.model.model.decoder.layers[1].fc2.register_forward_hook(lambda *given: 0 * given[-1])
    wanted = made.model(**made.kwargs).logits.detach()
    handle.remove()
    assert error(form.without(3)(**made.kwargs).logits.detach(), wanted) < 1e-5
