"""Models of others: the frozen form's value splits over sources and constants, and GPT-2's terms are those of hooks.

The oracle of every whole-model identity is the model's own output.
"""

from dataclasses import replace
from functools import cache

import pytest
import torch

from book_networks import LINEAR, batch, features
from networks import F64, error, lively, normal
from unbraid.errors import InexactError
from unbraid.form import trace
from unbraid.freeze import freeze
from unbraid.graph.operators import TABLE
from unbraid.terms import unravel
from unbraid.walk import Cotangents, constants, record, run, walk

# timm and transformers warn about their own and each other's deprecations.
pytestmark = pytest.mark.filterwarnings("ignore")

_SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
TEXT = {
    "GPT2": {"n_layer": 2, "n_embd": 16, "n_head": 2},
    "Llama": {**_SMALL, "num_key_value_heads": 1},
    "Bloom": {"hidden_size": 16, "n_layer": 1, "n_head": 2},
    "Gemma2": {**_SMALL, "num_key_value_heads": 1, "head_dim": 8},
}
IMAGES = {
    "resnet18": (64, {}),
    "vit_tiny_patch16_224": (32, {"depth": 2, "img_size": 32, "embed_dim": 24, "num_heads": 2}),
    "convnext_atto": (32, {"depths": (1, 1, 2, 1), "dims": (8, 12, 16, 20)}),
}


@cache
def made(name: str):
    """A small model in float64 with lively parameters, its arguments, and its form with casts widened."""
    if name in IMAGES:
        pytest.importorskip("torchvision_stub")
        timm = pytest.importorskip("timm")
        size, options = IMAGES[name]
        model = lively(timm.create_model(name, num_classes=5, **options), scale=0.1)
        args, kwargs = (normal(2, 3, size, size),), {}
    elif name in LINEAR:
        model = features(order=name)
        args, kwargs = (batch(model),), {}
    else:
        transformers = pytest.importorskip("transformers")
        config = getattr(transformers, f"{name}Config")(vocab_size=30, bos_token_id=1, eos_token_id=2, **TEXT[name])
        head = "GPT2LMHeadModel" if name == "GPT2" else f"{name}ForCausalLM"
        model = lively(getattr(transformers, head)(config), scale=0.3)
        ids = torch.randint(3, 30, (2, 5), generator=torch.Generator().manual_seed(0))
        args, kwargs = (), {"input_ids": ids, "use_cache": False}
    return model, args, kwargs, trace(model, args, kwargs).exact


def frozen(name: str):
    _, args, kwargs, form = made(name)
    inputs = form.inputs(args, kwargs)
    graph, state = freeze(form.graph, form.state, inputs)
    return form, inputs, graph, {key: tensor.detach() for key, tensor in state.items()}


def parts(form, inputs, graph, state, seed):
    """⟨∂/∂source, source⟩ and the sum over all constants, each of a random direction of the output."""
    tape = record(graph, state, inputs)
    own = list(constants(graph, state, tape.values))
    found = walk(graph, Cotangents(graph, tape), {form.output: seed}, {*form.sources, *(s for s, _ in own)})
    from_sources = sum((found[s] * tape.values[s]).sum() for s in form.sources if s in found)
    return from_sources, sum((found[s] * value).sum() for s, value in own if s in found)


@pytest.mark.parametrize("name", [*IMAGES, *TEXT, *LINEAR])
def test_value_is_gradient_times_source_plus_constants(name):
    """The frozen form equals the model; its gradient at the sources and its constants tell its whole value."""
    form, inputs, graph, state = frozen(name)
    whole = run(form.graph, form.state, inputs)[form.output].detach()
    assert error(run(graph, state, inputs)[form.output], whole) < 1e-12
    seed = normal(*whole.shape, seed=7)
    from_sources, from_constants = parts(form, inputs, graph, state, seed)
    target = (whole * seed).sum()
    scale = max(abs(from_sources), abs(from_constants))
    assert scale > 1e-3 * abs(target)
    assert abs(from_sources + from_constants - target) < 1e-10 * scale


@pytest.mark.parametrize("name", ["GPT2", "vit_tiny_patch16_224"])
def test_constants_are_what_is_left_without_the_source(name):
    """The frozen form run with its sources at zero, against the constants piece by piece."""
    form, inputs, graph, state = frozen(name)
    values = run(graph, state, inputs, keep=form.sources)
    seed = normal(*values[form.output].shape, seed=7)
    _, from_constants = parts(form, inputs, graph, state, seed)
    zero = {s: torch.zeros_like(values[s]) for s in form.sources}
    remade = {
        step.id: step for step in graph.steps if getattr(step, "outputs", ()) and zero.keys().isdisjoint(step.outputs)
    }
    known = {**inputs, **zero}
    for step in graph.steps:
        if getattr(step, "id", None) in remade:
            result = step.code(*(known[s] for s in step.inputs), *(state[p] for p in step.params))
            known.update(zip(step.outputs, result if len(step.outputs) > 1 else (result,), strict=True))
        elif not hasattr(step, "id"):
            known[step.output] = sum(known[s] for _, s in step.operands)
    assert error((known[form.output] * seed).sum(), from_constants) < 1e-10


@pytest.mark.parametrize("name", [*IMAGES, *TEXT])
def test_terms_and_attribution_of_real_models(name):
    _, args, kwargs, form = made(name)
    terms = unravel(form, args, kwargs)
    assert error(terms.values.sum(0), terms.stream) < 1e-10
    output = run(form.graph, form.state, form.inputs(args, kwargs))[form.output].detach()
    target, wanted = (1, output[:, 1]) if output.ndim == 2 else ((3, 7), output[:, 3, 7])
    found = terms.attribute(target)
    assert error(found.total(), wanted) < 1e-10
    assert len(terms) >= len(form.blocks) + 1


def test_gpt2_by_hooks_and_by_hand():
    """Terms are what attention and MLP put out; a logit is Σ (term − mean)·γ/σ·W_U + β·W_U, σ of the whole stream."""
    model, args, kwargs, form = made("GPT2")
    seen = {}
    watched = [m for block in model.transformer.h for m in (block.attn, block.mlp)]
    for number, module in enumerate(watched):
        module.register_forward_hook(
            lambda module, args, output, number=number: seen.__setitem__(
                number, (output[0] if isinstance(output, tuple) else output).detach()
            )
        )
    with torch.no_grad():
        logits = model(**kwargs).logits
    ids = kwargs["input_ids"]
    embedding = model.transformer.wte(ids) + model.transformer.wpe(torch.arange(ids.shape[1]))
    terms = unravel(form, args, kwargs)
    assert error(terms.values[0], embedding.detach()) < 1e-13
    for k in range(4):
        assert error(terms.values[k + 1], seen[k]) < 1e-12

    norm, row = model.transformer.ln_f, model.lm_head.weight[9].detach()
    stream = embedding.detach() + sum(seen.values())
    scale = norm.weight.detach() * torch.rsqrt(stream.var(-1, correction=0, keepdim=True) + norm.eps)
    by_hand = [((t - t.mean(-1, keepdim=True)) * scale)[:, 4] @ row for t in (embedding.detach(), *seen.values())]
    found = terms.attribute((4, 9))
    assert error(found.values, torch.stack(by_hand)) < 1e-11
    assert error(found.constants, (norm.bias.detach() @ row).expand(2)) < 1e-11
    assert error(found.target, logits[:, 4, 9]) < 1e-12


def test_gpt2_frozen_patterns_end_the_paths_through_queries_and_keys():
    """The gradient of the frozen form is autograd's of the model with patterns, scales and gates detached, by hand."""
    model = made("GPT2")[0]
    form, inputs, graph, state = frozen("GPT2")
    source = form.sources[0]
    seed = normal(2, 5, 30, seed=8)
    tape = record(graph, state, inputs)
    (found,) = walk(graph, Cotangents(graph, tape), {form.output: seed}, [source]).values()

    def normed(x, norm):
        centred = x - x.mean(-1, keepdim=True)
        return (
            centred * torch.rsqrt(x.var(-1, correction=0, keepdim=True) + norm.eps).detach() * norm.weight + norm.bias
        )

    def heads(x):
        return x.reshape(2, 5, 2, 8).transpose(1, 2)

    leaf = tape.values[source].clone().requires_grad_()
    h = leaf + model.transformer.wpe(torch.arange(5))
    causal = torch.full((5, 5), -torch.inf, dtype=F64).triu(1)
    for block in model.transformer.h:
        q, k, v = map(heads, block.attn.c_attn(normed(h, block.ln_1)).split(16, -1))
        pattern = torch.softmax(q @ k.mT / 8**0.5 + causal, -1).detach()
        h = h + block.attn.c_proj((pattern @ v).transpose(1, 2).reshape(2, 5, 16))
        z = block.mlp.c_fc(normed(h, block.ln_2))
        h = h + block.mlp.c_proj(z * (0.5 * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (z + 0.044715 * z**3)))).detach())
    output = model.lm_head(normed(h, model.transformer.ln_f))
    assert error(output.detach(), tape.values[form.output]) < 1e-12
    (wanted,) = torch.autograd.grad((output * seed).sum(), leaf)
    assert error(found, wanted) < 1e-11


def test_the_identity_sees_a_lost_constant():
    """Without one of them the parts no longer make the whole."""
    form, inputs, graph, state = frozen("GPT2")
    whole = run(form.graph, form.state, inputs)[form.output].detach()
    seed = normal(*whole.shape, seed=7)
    tape = record(graph, state, inputs)
    stream, value = max(constants(graph, state, tape.values), key=lambda pair: pair[1].abs().max())
    gradient = walk(graph, Cotangents(graph, tape), {form.output: seed}, [stream])[stream]
    assert abs((gradient * value).sum()) > 1e-6 * abs((whole * seed).sum())


def test_a_model_with_an_operator_that_has_no_rule():
    """The refusal reaches the caller of freeze with operator and module, from within a real model."""
    _, args, kwargs, form = made("convnext_atto")
    packet = torch.ops.aten.layer_norm
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TABLE, packet, replace(TABLE[packet], freeze=None))
        with pytest.raises(InexactError, match=r"aten\.layer_norm\.default affine, in 'stem\.1'"):
            freeze(form.graph, form.state, form.inputs(args, kwargs))
