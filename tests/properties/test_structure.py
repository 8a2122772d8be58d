"""Which additions are blocks: spectra against an oracle whose marks come from a model's source or its generator."""

import fnmatch
from contextlib import ExitStack
from dataclasses import replace

import pytest
import torch
from torch import nn

from marks import quick
from networks import F64, Chain, Does, Residual, lively, mlp, normal
from oracles.structure import Marks, Widened, begun, by_length, departure, marked
from real_models import real
from unbraid import gradient_spectrum, trace

EXACT = 1e-10
WIDTH = 4


def read_off(model, args, kwargs, scalar, modules, source=None):
    """The gradient by length at the model's first floating-point input, or at what a module returns first."""
    marks, leaves = Marks(), []
    if source is None:
        args = [a.detach().requires_grad_() if torch.is_tensor(a) and a.is_floating_point() else a for a in args]
        leaves += [a for a in args if torch.is_tensor(a) and a.requires_grad]
    with ExitStack() as stack:
        stack.enter_context(marked(modules, marks))
        if source is not None:
            stack.enter_context(begun(source, leaves))
        output = model(*args, **kwargs)
    return by_length(marks, scalar(output), leaves[0])


def first(output):
    return output[..., 0].sum()


def agreement(model, modules, *, nested=False):
    """How far the form of a model of [3, WIDTH] is from the oracle with these modules marked."""
    lively(model, scale=0.7)
    x = normal(3, WIDTH, seed=1)
    spectrum = gradient_spectrum(
        trace(model, x), x, target=lambda output: output[..., 0].flatten(1).sum(1), nested=nested
    )
    return departure(spectrum.gradients, read_off(model, (x,), {}, first, modules))


def headed(*blocks):
    return Chain(*blocks, nn.Linear(WIDTH, 3), nn.Unflatten(1, (1, 3)))


def branches(model):
    return [module.branch for module in model.modules() if isinstance(module, Residual)]


def parallel(*functions):
    return Does(
        lambda self, x: x + sum(f(x) for f in self.functions),
        functions=nn.ModuleList(functions),
    )


@pytest.mark.parametrize("depth", [1, 4, 9])
def test_a_chain(depth):
    model = headed(*(Residual(mlp(WIDTH)) for _ in range(depth)))
    assert agreement(model, branches(model)) < EXACT


def test_parallel_branches():
    """(1 + 2t)(1 + 3t): five marks, and no path passes more than two of them."""
    model = headed(parallel(mlp(WIDTH), mlp(WIDTH)), parallel(mlp(WIDTH), mlp(WIDTH), mlp(WIDTH)))
    assert agreement(model, [f for block in model.blocks[:2] for f in block.functions]) < EXACT


def test_nested_blocks():
    """Closed, the outer branch is one step; open, only what is inside counts."""
    inner = [Residual(mlp(WIDTH)) for _ in range(2)]
    outer = Residual(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), *inner, nn.Linear(WIDTH, WIDTH)))
    plain = Residual(mlp(WIDTH))
    model = headed(plain, outer)
    assert agreement(model, [plain.branch, outer.branch]) < EXACT
    assert agreement(model, [plain.branch, *(block.branch for block in inner)], nested=True) < EXACT


def test_a_module_used_three_times():
    """Three blocks, whose branches are one module."""
    block = Residual(mlp(WIDTH))
    model = headed(block, block, Residual(mlp(WIDTH)), block)
    assert agreement(model, branches(model)) < EXACT


def test_projections_and_what_follows_a_sum():
    branch, other = mlp(WIDTH), mlp(WIDTH)
    model = headed(
        Does(lambda self, x: torch.relu(self.skip(x) + self.branch(x)), branch=branch, skip=nn.Linear(WIDTH, WIDTH)),
        Does(lambda self, x: self.norm(x + self.branch(x)), branch=other, norm=nn.LayerNorm(WIDTH)),
    )
    assert agreement(model, [branch, other]) < EXACT


def test_two_trunks_of_which_one_reads_the_other():
    f, g, meeting = mlp(WIDTH), mlp(WIDTH), mlp(WIDTH)

    def forward(self, x):
        a, b = self.a(x), self.b(x)
        a, b = a + self.f(a), b + self.g(b)
        b = b + self.meeting(b * torch.sigmoid(a))
        return self.head(b)[:, None]

    parts = {"a": nn.Linear(WIDTH, WIDTH), "b": nn.Linear(WIDTH, WIDTH), "head": nn.Linear(WIDTH, 3)}
    assert agreement(Does(forward, f=f, g=g, meeting=meeting, **parts), [f, g, meeting]) < EXACT


@pytest.mark.parametrize("wrong", ["a mark too few", "a mark too many"])
def test_the_oracle_sees_a_wrong_structure(wrong):
    """Sums over all lengths do not: they are the gradient either way."""
    model = headed(Residual(mlp(WIDTH)), nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()), Residual(mlp(WIDTH)))
    right = branches(model)
    assert agreement(model, right) < EXACT
    assert agreement(model, right[1:] if wrong == "a mark too few" else [*right, model.blocks[1]]) > 1e-3


def test_the_oracle_sees_a_block_that_was_missed(monkeypatch):
    """The finder forgets one: every sum still agrees, and the lengths do not."""
    from unbraid.discover._find import find
    from unbraid.form import _assemble

    model = headed(*(Residual(mlp(WIDTH)) for _ in range(3)))
    assert agreement(model, branches(model)) < EXACT

    def forgetful(*args):
        finding = find(*args)
        return replace(finding, blocks=finding.blocks[:-1])

    monkeypatch.setattr(_assemble, "find", forgetful)
    assert agreement(model, branches(model)) > 1e-3


# What is added to the skip, by the line of the library's source that adds it.
ADDED = {
    "resnet18": ("layer*.bn2",),  # resnet.py: x = self.bn2(x); ...; x += shortcut
    "vit_tiny_patch16_224": ("blocks.*.drop_path1", "blocks.*.drop_path2"),  # x = x + self.drop_path1(...)
    "convnext_atto": ("stages.*.drop_path",),  # x = self.drop_path(x) + self.shortcut(shortcut)
    "GPT2": ("transformer.h.?.attn", "transformer.h.?.mlp"),  # hidden_states = attn_output + residual
    "Llama": ("model.layers.?.self_attn", "model.layers.?.mlp"),  # hidden_states = residual + hidden_states
    "Bloom": ("*.self_attention.dense", "*.dense_4h_to_h"),  # dropout_add(output, residual, ...)
}
EMBEDDING = {"GPT2": "transformer.wte", "Llama": "model.embed_tokens", "Bloom": "transformer.word_embeddings"}
# Built as in the zoo: two branches side by side, norms after the sum, an encoder that a decoder reads.
OF_THE_ZOO = {
    "GPTJ": ("transformer.h.?.attn", "transformer.h.?.mlp"),  # attn_outputs + feed_forward_hidden_states + residual
    "Bert": ("*.output.dropout",),  # self.LayerNorm(hidden_states + input_tensor)
    "T5": ("*.layer.?.dropout",),  # hidden_states + self.dropout(attention_output)
}
BEGINS = {"GPTJ": "transformer.wte", "Bert": "embeddings.word_embeddings", "T5": "encoder.embed_tokens"}


def named(model, patterns):
    return [
        module for name, module in model.named_modules() if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)
    ]


@pytest.mark.parametrize("name", quick(ADDED, "resnet18", "vit_tiny_patch16_224", "GPT2", "Llama", "Bloom"))
def test_a_real_model(name):
    model, args, kwargs, form, target = real(name)
    modules = named(model, ADDED[name])
    source = model.get_submodule(EMBEDDING[name]) if name in EMBEDDING else None

    def scalar(output):
        output = output if torch.is_tensor(output) else output.logits
        return (output[:, target] if isinstance(target, int) else output[:, target[0], target[1]]).sum()

    with Widened():
        expected = read_off(model, args, kwargs, scalar, modules, source)
    spectrum = gradient_spectrum(form, args, kwargs, target=target)
    assert spectrum.gradients.dtype is F64
    assert departure(spectrum.gradients, expected) < EXACT
    assert len(spectrum.gradients) == len(modules) + 1


@pytest.mark.parametrize("name", quick(OF_THE_ZOO, "Bert"))
def test_a_model_of_the_zoo(name):
    pytest.importorskip("torchvision_stub")
    find = pytest.importorskip("zoo.catalogue").find
    made = find(name).make()
    model = lively(made.model, scale=0.3)

    def logits(output):
        return next(iter(output.values()))

    with Widened():
        modules = named(model, OF_THE_ZOO[name])
        source = model.get_submodule(BEGINS[name])
        expected = read_off(model, (), made.kwargs, lambda o: logits(o)[:, 1, 2].sum(), modules, source)
    form = trace(model, (), made.kwargs)
    spectrum = gradient_spectrum(form, (), made.kwargs, target=(1, 2))
    assert departure(spectrum.gradients, expected) < EXACT
