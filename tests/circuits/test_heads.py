"""Edges between the attention heads of GPT-2, against the model patched by hooks on its own modules.

Head h writes its columns of the output projection; head h reads where its query, key and value alone see the patched
stream: the attention is run on that stream beside the model, and h's part of what the projection gets is put in.
"""

from dataclasses import dataclass, field
from functools import cache

import pytest
import torch
from torch import nn

import unbraid
from networks import error, lively
from patching import EFFECTS, TOLERANCE, hook, library, run_model

pytestmark = pytest.mark.filterwarnings("ignore")

HEADS, WIDTH = 2, 16
SIZE = WIDTH // HEADS


@dataclass(frozen=True)
class HeadsOfGPT2:
    """Writers are the input, each head and each MLP; the biases of the projections belong to the trunk."""

    model: nn.Module
    readers: tuple = field(default_factory=lambda: (*heads(0), (0, None), *heads(1), (1, None)))

    @property
    def levels(self):
        return (-1, *(2 * layer + (head is None) for layer, head in self.readers))

    def written(self, inputs):
        kept = {}
        with hook(self._layer(0).ln_1.register_forward_pre_hook(lambda m, args: kept.update(input=args[0]))):
            mixed = [self._mixed(inputs, layer) for layer in (0, 1)]
        values = [kept["input"]]
        for layer, head in self.readers:
            if head is None:
                values.append(self._mlp_output(inputs, layer))
            else:
                part = slice(head * SIZE, (head + 1) * SIZE)
                values.append(mixed[layer][..., part] @ self._layer(layer).attn.c_proj.weight[part])
        return values

    def patched(self, inputs, written, reader):
        level = (*self.levels, 4)[reader + 1]
        stream = written[0]
        for value, at in zip(written[1:], self.levels[1:], strict=True):
            stream = stream + value if at < level else stream
        for layer in range((level + 1) // 2):
            stream = stream + self._layer(layer).attn.c_proj.bias
        if reader == len(self.readers):
            return self._run(inputs, self.model.transformer.ln_f, lambda seen: stream)
        layer, head = self.readers[reader]
        if head is None:
            return self._run(inputs, self._layer(layer).ln_2, lambda seen: stream)
        part = slice(head * SIZE, (head + 1) * SIZE)
        other = self._mixed(inputs, layer, stream)[..., part]

        def put_in(mixed):
            return torch.cat([mixed[..., : part.start], other, mixed[..., part.stop :]], -1)

        return self._run(inputs, self._layer(layer).attn.c_proj, put_in)

    def _layer(self, layer):
        return self.model.transformer.h[layer]

    def _run(self, inputs, module, change):
        with hook(module.register_forward_pre_hook(lambda m, args: (change(args[0]), *args[1:]))):
            return run_model(self.model, inputs)

    def _mixed(self, inputs, layer, stream=None):
        """What a layer's heads give to the projection; of another stream where one is given."""
        kept, attention = {}, self._layer(layer).attn.c_proj
        with hook(attention.register_forward_pre_hook(lambda m, args: kept.update(mixed=args[0]))):
            self._run(inputs, self._layer(layer).ln_1, lambda seen: seen if stream is None else stream)
        return kept["mixed"]

    def _mlp_output(self, inputs, layer):
        kept = {}
        with hook(self._layer(layer).mlp.register_forward_hook(lambda m, args, output: kept.update(output=output))):
            run_model(self.model, inputs)
        return kept["output"]


def heads(layer):
    return tuple((layer, head) for head in range(HEADS))


@cache
def gpt2():
    transformers = library("transformers")
    config = transformers.GPT2Config(
        vocab_size=20, bos_token_id=1, eos_token_id=2, n_layer=2, n_embd=WIDTH, n_head=HEADS, n_positions=8
    )
    ids = torch.randint(3, 20, (2, 3, 5), generator=torch.Generator().manual_seed(0))
    network = HeadsOfGPT2(lively(transformers.GPT2LMHeadModel(config), scale=0.3))
    return network, {"input_ids": ids[0]}, {"input_ids": ids[1]}


@cache
def traced():
    network, clean, _ = gpt2()
    return unbraid.trace(network.model, (), {**clean, "use_cache": False})


def target(output):
    return output.logits[:, 3, 7] - output.logits[:, 3, 11]


def test_a_hook_without_a_change_changes_nothing():
    network, clean, corrupt = gpt2()
    with torch.no_grad():
        expected = target(run_model(network.model, clean))
        for reader in range(len(network.readers) + 1):
            assert error(target(network.patched(clean, network.written(clean), reader)), expected) < 1e-12
        other = target(network.patched(clean, network.written(corrupt), len(network.readers)))
        assert error(other, target(run_model(network.model, corrupt))) < 1e-12


@pytest.mark.parametrize("method", EFFECTS)
def test_effects_between_heads_are_those_of_hooks(method):
    """A projection's bias may have a row of its own: nothing of it changes."""
    network, clean, corrupt = gpt2()
    with torch.no_grad():
        instead = network.written(corrupt)
    study = unbraid.edges(traced(), clean, corrupt, target=target, method=method, by="head")
    names = []
    for layer, head in network.readers:
        block = f"transformer.h.{layer}"
        names.append(f"{block}.mlp" if head is None else f"{block}.attn head {head}")
    writers = [study.writers.index(name) for name in ("input", *names)]
    readers = [study.readers.index(name) for name in (*names, "head")]
    expected = EFFECTS[method](network, clean, instead, target)
    edge = ~expected.isnan()
    actual = study.per_example[writers][:, readers]
    assert torch.equal(~actual.isnan(), edge)
    assert error(actual[edge], expected[edge]) < TOLERANCE
    rest = [k for k in range(len(study.writers)) if k not in writers]
    assert study.effects[rest].nan_to_num().abs().max() < 1e-12 if rest else True
    assert study.readers[-1] == "head"
