"""Edges of real architectures against the models themselves, patched by one forward pre-hook on the reader."""

from functools import cache

import pytest
import torch
from torch import nn

import unbraid
from networks import error, lively, normal
from patching import EFFECTS, TOLERANCE, Hooked, assert_effects, library, run_model, zeros

# timm and transformers warn about their own and each other's deprecations.
pytestmark = pytest.mark.filterwarnings("ignore")

IDENTITY = nn.Identity()
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
TOKENS = {"vocab_size": 20, "bos_token_id": 1, "eos_token_id": 2}
POSITION, TOKEN, OTHER = 3, 7, 11


def pre_norm(model, readers, writers):
    return Hooked(model, readers, writers, [IDENTITY] * len(writers), [IDENTITY] * len(writers))


def gpt2():
    transformers = library("transformers")
    config = transformers.GPT2Config(**TOKENS, n_layer=2, n_embd=16, n_head=2, n_positions=8)
    model = lively(transformers.GPT2LMHeadModel(config), scale=0.3)
    readers, writers = [], []
    for layer in model.transformer.h:
        readers += [layer.ln_1, layer.ln_2]
        writers += [layer.attn, layer.mlp]
    return pre_norm(model, [*readers, model.transformer.ln_f], writers)


def llama():
    transformers = library("transformers")
    model = lively(
        transformers.LlamaForCausalLM(transformers.LlamaConfig(**TOKENS, **SMALL, num_key_value_heads=1)), scale=0.3
    )
    readers, writers = [], []
    for layer in model.model.layers:
        readers += [layer.input_layernorm, layer.post_attention_layernorm]
        writers += [layer.self_attn, layer.mlp]
    return pre_norm(model, [*readers, model.model.norm], writers)


def bert():
    """Norms stand after the sums."""
    transformers = library("transformers")
    config = transformers.BertConfig(vocab_size=20, max_position_embeddings=8, **SMALL)
    model = lively(transformers.BertForMaskedLM(config), scale=0.3)
    readers, writers, after = [], [], []
    for layer in model.bert.encoder.layer:
        readers += [layer.attention.self, layer.intermediate]
        writers += [layer.attention.output.dense, layer.output.dense]
        after += [layer.attention.output.LayerNorm, layer.output.LayerNorm]
    return Hooked(model, [*readers, model.cls], writers, [IDENTITY] * 4, after)


def vit():
    options = {"depth": 2, "img_size": 32, "embed_dim": 16, "num_heads": 2, "num_classes": 5}
    model = lively(library("timm").create_model("vit_tiny_patch16_224", **options), scale=0.2)
    readers, writers = [], []
    for block in model.blocks:
        readers += [block.norm1, block.norm2]
        writers += [block.attn, block.mlp]
    return pre_norm(model, [*readers, model.norm], writers)


def resnet():
    """ReLUs on the trunk, and projections where the size changes."""
    made = library("timm.models.resnet")
    model = lively(
        made.ResNet(made.BasicBlock, (1, 1, 1, 1), num_classes=5, channels=(4, 4, 6, 6), stem_width=4), scale=0.5
    )
    blocks = [stage[0] for stage in (model.layer1, model.layer2, model.layer3, model.layer4)]
    return Hooked(
        model,
        [*(block.conv1 for block in blocks), model.global_pool],
        [block.bn2 for block in blocks],
        [block.downsample or IDENTITY for block in blocks],
        [block.act2 for block in blocks],
    )


MODELS = {"gpt2": gpt2, "llama": llama, "bert": bert, "vit": vit, "resnet": resnet}
TEXT = ("gpt2", "llama", "bert")
EACH = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == "llama" else ()) for name in MODELS]
)


@cache
def hooked(name):
    """A model with its hooks, and two inputs of one size."""
    network = MODELS[name]()
    if name in TEXT:
        ids = torch.randint(3, 20, (2, 3, 5), generator=torch.Generator().manual_seed(0))
        return network, {"input_ids": ids[0]}, {"input_ids": ids[1]}
    return network, normal(3, 3, 32, 32, seed=1), normal(3, 3, 32, 32, seed=2)


@cache
def traced(name):
    network, clean, _ = hooked(name)
    if name not in TEXT:
        return unbraid.trace(network.model, (clean,))
    options = {} if name == "bert" else {"use_cache": False}
    return unbraid.trace(network.model, (), {**clean, **options})


def target(output):
    """A difference of two logits."""
    logits = output if isinstance(output, torch.Tensor) else output.logits[:, POSITION]
    return logits[:, 0] - logits[:, 1] if logits.shape[1] == 5 else logits[:, TOKEN] - logits[:, OTHER]


@cache
def by_hand(name, method):
    network, clean, corrupt = hooked(name)
    with torch.no_grad():
        instead = network.written(corrupt)
    return EFFECTS[method](network, clean, instead, target)


@EACH
def test_a_hook_without_a_change_changes_nothing(name):
    """What the trunk makes of the cached outputs is what every reader reads, so each patch is of the right place."""
    network, clean, corrupt = hooked(name)
    with torch.no_grad():
        expected = target(run_model(network.model, clean))
        for reader in range(len(network.levels)):
            patched = target(network.patched(clean, network.written(clean), reader))
            assert error(patched, expected) < 1e-12
        other = target(network.patched(clean, network.written(corrupt), len(network.writers)))
        assert error(other, target(run_model(network.model, corrupt))) < 1e-12


@EACH
def test_the_oracles_see_every_edge(name):
    """None is zero by chance, and the slope is not the whole step. A ViT's class token begins alike in every image."""
    exact, slope = by_hand(name, "exact"), by_hand(name, "attribution")
    edge = ~exact.isnan()
    largest = exact.abs().amax(-1)
    assert largest[edge[..., 0]].sort().values[2 if name == "vit" else 0] > 1e-6
    assert error(slope[edge], exact[edge]) > 1e-3


@pytest.mark.parametrize("method", EFFECTS)
@EACH
def test_effects_are_those_of_hooks(name, method):
    network, clean, corrupt = hooked(name)
    study = unbraid.edges(traced(name), clean, corrupt, target=target, method=method)
    assert_effects(study, by_hand(name, method))
    assert error(study.target, target(run_model(network.model, clean)).detach()) < TOLERANCE
    assert study.writers[1:5] == tuple(block.name for block in traced(name).blocks)


@pytest.mark.parametrize("method", EFFECTS)
@pytest.mark.parametrize("name", ["gpt2", "bert"])
def test_effects_of_zeros_are_those_of_hooks(name, method):
    """The input's zeros are those of what the first block reads: positions and a stem come before it."""
    network, clean, _ = hooked(name)
    with torch.no_grad():
        instead = zeros(network.written(clean))
    study = unbraid.edges(traced(name), clean, target=target, method=method, fill="zero")
    assert_effects(study, EFFECTS[method](network, clean, instead, target))


def divergence(output):
    """KL of a fixed distribution from the model's, averaged over examples and positions: its slope is not zero."""
    fixed = normal(20, seed=4).log_softmax(0)
    return (fixed.exp() * (fixed - output.logits.log_softmax(-1))).sum(-1).mean()


@pytest.mark.parametrize("method", EFFECTS)
@pytest.mark.parametrize("name", ["gpt2"])
def test_a_metric_of_the_whole_batch(name, method):
    """No average of what a target says of each example: one number, of all positions."""
    network, clean, corrupt = hooked(name)
    with torch.no_grad():
        instead = network.written(corrupt)
    expected = EFFECTS[method](network, clean, instead, divergence)
    edge = ~expected.isnan()
    actual = unbraid.edges(traced(name), clean, corrupt, metric=divergence, method=method).effects[: len(expected)]
    assert torch.equal(~actual.isnan(), edge)
    assert error(actual[edge], expected[edge]) < TOLERANCE
    assert expected[edge].abs().min() > 1e-6


@pytest.mark.parametrize("method", EFFECTS)
@pytest.mark.parametrize("name", ["resnet"])
def test_a_mean_as_a_metric_is_the_targets_mean(name, method):
    _, clean, corrupt = hooked(name)
    by_metric = unbraid.edges(traced(name), clean, corrupt, metric=lambda out: target(out).mean(), method=method)
    expected = by_hand(name, method).mean(-1)
    edge = ~expected.isnan()
    assert error(by_metric.effects[: len(expected)][edge], expected[edge]) < TOLERANCE


@pytest.mark.parametrize("method", EFFECTS)
def test_an_index_as_a_target(method):
    """A pair (position, class), as everywhere."""
    network, clean, corrupt = hooked("gpt2")
    with torch.no_grad():
        instead = network.written(corrupt)
    study = unbraid.edges(traced("gpt2"), clean, corrupt, target=(POSITION, TOKEN), method=method)
    assert_effects(study, EFFECTS[method](network, clean, instead, lambda output: output.logits[:, POSITION, TOKEN]))
