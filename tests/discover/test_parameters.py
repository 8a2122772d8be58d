"""A block's parameters are those of its own segments, against a brute force: which of them move its operands."""

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from networks import Chain, Does, Residual, lively, mlp, normal
from unbraid.form import trace

X = normal(3, 6)
WIDE = nn.Linear(6, 6).weight.numel() + 6


def counted(model, x=X):
    form = trace(lively(model), x)
    return {block.name: block.parameters for block in form.all_blocks}


def numbers(module):
    return sum(parameter.numel() for parameter in module.parameters())


class Experts(nn.Module):
    """A residual layer of which each row goes to the experts that a router picks."""

    def __init__(self):
        super().__init__()
        self.norm, self.router = nn.LayerNorm(6), nn.Linear(6, 3, bias=False)
        self.experts = nn.ModuleList(mlp(6) for _ in range(3))

    def forward(self, x):
        h = self.norm(x)
        shares, chosen = self.router(h).softmax(-1).topk(2, -1)
        routes = nn.functional.one_hot(chosen, 3).to(x.dtype)
        weights = (shares[..., None] * routes).sum(1)
        return x + sum(weights[:, k, None] * expert(h) for k, expert in enumerate(self.experts))


def test_a_router_counts_what_is_upstream_of_it_to_no_expert():
    model = Chain(Residual(mlp(6)), Experts(), Residual(mlp(6)), Experts())
    wanted = {f"blocks.{k}": numbers(block) for k, block in enumerate(model.blocks)}
    assert counted(model) == wanted


def test_masks_and_look_ups_of_data_count_nothing_upstream():
    def forward(net, x):
        h = net.first(x)
        seen = (h > 0).any(-1, keepdim=True)
        return h + net.f(h).masked_fill(seen, 0.0) + 0 * net.table(h.argmax(-1))

    model = Chain(Residual(mlp(6)), Does(forward, first=mlp(6), f=mlp(6), table=nn.Embedding(6, 6)))
    found = counted(model)
    inner = model.blocks[1]
    assert found["blocks.0"] == numbers(model.blocks[0])
    assert found["blocks.1"] == numbers(inner.f) + numbers(inner.table)


def test_a_layer_that_two_blocks_share_counts_in_both():
    shared = mlp(6)
    found = counted(Chain(Residual(shared), Residual(mlp(6)), Residual(shared)))
    assert list(found.values()) == [2 * WIDE] * 3


def test_one_tensor_under_two_names_counts_once_in_a_block():
    first, second = nn.Linear(6, 6), nn.Linear(6, 6)
    second.weight = first.weight
    model = Chain(Residual(nn.Sequential(first, nn.Tanh(), second)))
    assert list(counted(model).values()) == [36 + 6 + 6]


def test_a_weight_that_is_computed_counts_in_each_block_that_reads_it():
    normed = weight_norm(nn.Linear(6, 6))
    model = Chain(Residual(nn.Sequential(normed, nn.Tanh())), Residual(nn.Sequential(normed, nn.Tanh())))
    assert list(counted(model).values()) == [numbers(normed)] * 2


def test_what_only_one_block_makes_of_another_input_is_its_own():
    """A gate that reads a condition, keys that read an encoder: computed for this block alone, wherever from."""

    def forward(net, x):
        condition = torch.tanh(net.c(x))
        h = net.stem(x)
        for gate, branch in zip(net.gates, net.branches, strict=True):
            h = h + torch.sigmoid(gate(condition)) * branch(h)
        return h

    gates, branches = (nn.ModuleList(mlp(6) for _ in range(2)) for _ in range(2))
    model = Does(forward, c=nn.Linear(6, 6), stem=nn.Linear(6, 6), gates=gates, branches=branches)
    assert list(counted(model).values()) == [4 * WIDE, 4 * WIDE], "what both read of the condition is no block's own"


@pytest.mark.parametrize("name", ["experts", "shared", "nested"])
def test_brute_force(name):
    """The parameters of a block are those that move its sum while everything that it reads of data is held."""
    shared = mlp(6)
    model = {
        "experts": lambda: Chain(Residual(mlp(6)), Experts(), Experts()),
        "shared": lambda: Chain(Residual(shared), Experts(), Residual(shared)),
        "nested": lambda: Chain(Residual(nn.Sequential(nn.Linear(6, 6), Residual(mlp(6)))), Residual(mlp(6))),
    }[name]()
    model = lively(model)
    form = trace(model, X)
    inputs = []
    handles = [m.register_forward_pre_hook(lambda *call: inputs.append(call[1][0])) for m in model.blocks]
    model(X)
    for handle in handles:
        handle.remove()
    for block, module, given in zip(form.blocks, model.blocks, inputs, strict=True):
        own = torch.autograd.grad(module(given.detach()).square().sum(), list(model.parameters()), allow_unused=True)
        moved = [p for p, g in zip(model.parameters(), own, strict=True) if g is not None]
        assert block.parameters == sum(p.numel() for p in moved)


def small(name, head, **settings):
    """A model of transformers; its structure is traced on the meta device."""
    pytest.importorskip("torchvision_stub")
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{name}Config")(vocab_size=30, bos_token_id=1, eos_token_id=2, **settings)
    return getattr(transformers, f"{name}{head}")(config).eval()


IDS = torch.randint(3, 30, (2, 5), generator=torch.Generator().manual_seed(0))
LAYERS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}


@pytest.mark.parametrize("name", ["Mixtral", "Qwen3Moe"])
def test_experts_of_transformers(name):
    """Counted from the modules: the layer's attention with its norm, and its experts with the router and theirs."""
    settings = {"intermediate_size": 48, "moe_intermediate_size": 48, "num_local_experts": 4, "num_experts": 4}
    model = small(name, "ForCausalLM", **LAYERS, **settings, num_experts_per_tok=2, head_dim=8, pad_token_id=0)
    form = trace(model, (), {"input_ids": IDS, "use_cache": False}, device="meta")
    wanted = []
    for layer in model.model.layers:
        wanted += [numbers(layer.input_layernorm) + numbers(layer.self_attn)]
        wanted += [numbers(layer.post_attention_layernorm) + numbers(layer.mlp)]
    assert [block.parameters for block in form.blocks] == wanted


def test_cross_attention_of_transformers():
    """The keys and values that a decoder layer makes of the encoder's output are that layer's own."""
    sizes = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24}
    model = small(
        "Bart", "ForConditionalGeneration", d_model=16, encoder_layers=1, decoder_layers=2, **sizes, pad_token_id=0
    )
    call = {"input_ids": IDS, "decoder_input_ids": IDS[:, :4], "use_cache": False}
    form = trace(model, (), call, device="meta")
    wanted = [
        numbers(part)
        for stack in (model.model.encoder.layers, model.model.decoder.layers)
        for layer in stack
        for part in _parts(layer)
    ]
    # A norm after the sum lies on the trunk, in no block.
    assert [block.parameters for block in form.blocks] == wanted


def _parts(layer):
    yield layer.self_attn
    if hasattr(layer, "encoder_attn"):
        yield layer.encoder_attn
    yield nn.ModuleList([layer.fc1, layer.fc2])
