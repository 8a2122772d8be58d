"""Transformers: against torch's own layers, the closed count of parameters, and what a causal one may see."""

import json
import re

import pytest
import torch
from torch import nn

from unbraid import gradient_spectrum, trace, value_spectrum
from unbraid.errors import ShapeError
from unbraid.nn import MeanOverPositions, Order, PlainNetwork, SelfAttention, SequenceEmbedding, build, transformer

F64 = torch.float64


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=draws(seed), dtype=F64)


def made(**options):
    """A network in float64 whose every parameter is drawn, so that no zero hides an error."""
    network = transformer(**{"inputs": 5, "positions": 8, "depth": 2, "width": 16, **options}).double().eval()
    with torch.no_grad():
        for number, parameter in enumerate(network.parameters()):
            parameter.copy_(0.4 * normal(*parameter.shape, seed=number))
    return network


def torchs(layers, width, *, norm_first):
    """torch.nn's encoder layers; its attention holds query, key and value in one matrix."""
    kind = {"batch_first": True, "norm_first": norm_first, "activation": "gelu", "dropout": 0.0, "dtype": F64}
    return [nn.TransformerEncoderLayer(width, 4, 4 * width, **kind).eval() for _ in range(layers)]


def copied(attention_block, linear_block, layer):
    """Put our weights of two blocks into one of torch's layers."""
    attention = next(m for m in attention_block.modules() if isinstance(m, SelfAttention))
    one, two = (m for m in linear_block.modules() if isinstance(m, nn.Linear))
    norms = [m for b in (attention_block, linear_block) for m in b.modules() if isinstance(m, nn.LayerNorm)]
    maps = (attention.query, attention.key, attention.value)
    with torch.no_grad():
        layer.self_attn.in_proj_weight.copy_(torch.cat([m.weight for m in maps]))
        layer.self_attn.in_proj_bias.copy_(torch.cat([m.bias for m in maps]))
    layer.self_attn.out_proj.load_state_dict(attention.out.state_dict())
    for theirs, ours in zip((layer.linear1, layer.linear2, layer.norm1, layer.norm2), (one, two, *norms), strict=True):
        theirs.load_state_dict(ours.state_dict())
    return layer


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("orders", [Order.PRE_NORM, Order.POST_NORM], ids=["pre", "post"])
def test_the_blocks_are_torchs_encoder_layers(orders, causal):
    network = made(orders=orders, causal=causal)
    h = theirs = network.stem(normal(3, 7, 5))
    mask = nn.Transformer.generate_square_subsequent_mask(7, dtype=F64) if causal else None
    for number, layer in enumerate(torchs(2, 16, norm_first=orders == Order.PRE_NORM)):
        attention, linear = network.blocks[2 * number : 2 * number + 2]
        h = linear(attention(h))
        theirs = copied(attention, linear, layer)(theirs, src_mask=mask, is_causal=causal)
        torch.testing.assert_close(h, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("causal", [False, True])
def test_attention_against_torchs_own(causal):
    attention = SelfAttention(6, heads=2, causal=causal).double()
    h = normal(2, 5, 6)
    parts = (m(h).view(2, 5, 2, 3).transpose(1, 2) for m in (attention.query, attention.key, attention.value))
    gathered = nn.functional.scaled_dot_product_attention(*parts, is_causal=causal).transpose(1, 2).reshape(2, 5, 6)
    torch.testing.assert_close(attention(h), attention.out(gathered), rtol=1e-12, atol=1e-12)


def test_many_at_once_are_each_alone():
    """vmap over stacked weights, as for training many networks at once."""
    networks = [transformer(inputs=5, positions=8, depth=2, width=8, causal=True, generator=draws(s)) for s in (0, 1)]
    stacked, buffers = torch.func.stack_module_state(networks)
    x = normal(2, 8, 5).float()

    def loss(weights):
        return torch.func.functional_call(networks[0], (weights, {}), (x,)).square().mean()

    assert not buffers
    gradients = torch.vmap(torch.func.grad(loss))(stacked)
    for number, network in enumerate(networks):
        network(x).square().mean().backward()
        for name, parameter in network.named_parameters():
            torch.testing.assert_close(gradients[name][number], parameter.grad, rtol=1e-3, atol=1e-6)


def test_values_and_gradients_split_over_paths():
    network = made(causal=True)
    form, x = trace(network, (normal(2, 8, 5),)), normal(3, 8, 5, seed=1)
    assert value_spectrum(form, (x,), target=2).error < 1e-10
    spectrum = gradient_spectrum(form, (x,), target=2)
    assert spectrum.error < 1e-10
    assert spectrum.counts == (1, 4, 6, 4, 1)


def test_a_causal_network_sees_no_later_position():
    causal, open_ = (made(causal=causal, readout="each") for causal in (True, False))
    x = normal(2, 8, 5)
    changed = x.clone()
    changed[:, 5:] += 1
    assert torch.equal(causal(x)[:, :5], causal(changed)[:, :5])
    assert not torch.equal(causal(x)[:, 5:], causal(changed)[:, 5:])
    assert not torch.equal(open_(x)[:, :5], open_(changed)[:, :5])


def test_without_positions_the_order_of_an_encoder_does_not_matter():
    network = made()
    nn.init.zeros_(network.stem.position)
    x = normal(2, 8, 5)
    torch.testing.assert_close(network(x), network(x.flip(1)), rtol=1e-11, atol=1e-11)
    nn.init.normal_(network.stem.position, generator=draws())
    assert (network(x) - network(x.flip(1))).abs().max() > 1e-3


@pytest.mark.parametrize("vocabulary", [None, 11])
@pytest.mark.parametrize("orders", [Order.PRE_NORM, Order.POST_NORM], ids=["pre", "post"])
def test_parameters_are_those_of_the_closed_formula(orders, vocabulary):
    """12 w² + 13 w a layer; a table or a map of the inputs, positions, one more norm, and the head."""
    w, depth, positions, classes = 12, 3, 9, 7
    network = transformer(
        vocabulary=vocabulary,
        inputs=5,
        positions=positions,
        classes=classes,
        width=w,
        depth=depth,
        orders=orders,
        heads=3,
    )
    ends = (vocabulary * w if vocabulary else 5 * w + w) + positions * w + 2 * w + (w * classes + classes)
    assert sum(p.numel() for p in network.parameters()) == depth * (12 * w**2 + 13 * w) + ends


def test_gpt2_has_its_published_size():
    """124,439,808 parameters with the head tied to the table, as torch counts them in transformers' GPT-2."""
    with torch.device("meta"):
        network = transformer(
            vocabulary=50_257,
            positions=1024,
            classes=50_257,
            width=768,
            depth=12,
            heads=12,
            causal=True,
            readout="each",
        )
    head = network.head[-1]
    counted = sum(p.numel() for p in network.parameters()) - head.weight.numel() - head.bias.numel()
    assert counted == 124_439_808


def test_the_ends_depend_on_where_the_norms_are():
    def kinds(module):
        return [type(m).__name__ for m in (module if isinstance(module, nn.Sequential) else [module])]

    pre, post = (transformer(orders=orders) for orders in (Order.PRE_NORM, Order.POST_NORM))
    assert (kinds(pre.stem), kinds(post.stem)) == (["SequenceEmbedding"], ["SequenceEmbedding", "LayerNorm"])
    assert kinds(pre.head) == ["LayerNorm", "MeanOverPositions", "Linear"]
    assert kinds(post.head) == ["MeanOverPositions", "Linear"]
    assert kinds(transformer(readout="each", norm=None).head) == ["Linear"]


def test_mlp_is_short_for_linear_act_linear():
    short, long = (transformer(orders=["norm attention +", f"norm {mlp} +"]) for mlp in ("mlp", "linear act linear"))
    assert str(short) == str(long)
    assert short.config["orders"] == ["norm attention +", "norm mlp +"]


def test_a_branch_widens_between_its_first_and_last_linear_layer_alone():
    orders = ["norm linear +", "linear act linear act linear +", "norm attention norm linear act linear +"]
    network = transformer(width=8, orders=orders, depth=1, expansion=3)
    sizes = [[m.weight.shape for m in b.modules() if isinstance(m, nn.Linear)] for b in network.blocks]
    assert sizes == [[(8, 8)], [(24, 8), (24, 24), (8, 24)], [(8, 8)] * 4 + [(24, 8), (8, 24)]]


@pytest.mark.parametrize("plain", [False, True])
def test_a_config_survives_json(plain):
    network = made(vocabulary=9, orders=Order.POST_NORM, scale="layerscale", stochastic_depth=0.3, norm="rms")
    network = network.plain() if plain else network
    config = json.loads(json.dumps(network.config))
    assert config == network.config
    again = build(config).double().eval()
    assert isinstance(again, PlainNetwork) == plain
    assert str(again) == str(network)
    again.load_state_dict(network.state_dict())
    x = torch.randint(0, 9, (2, 6), generator=draws())
    assert torch.equal(again(x), network(x))


def test_a_generator_keeps_torchs_own_untouched_and_draws_everything():
    before = torch.get_rng_state()
    one, same, other = (transformer(vocabulary=9, generator=draws(seed)) for seed in (7, 7, 8))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(map(torch.equal, one.state_dict().values(), same.state_dict().values()))
    drawn = [n for n, p in one.named_parameters() if not torch.equal(p, dict(other.named_parameters())[n])]
    assert drawn == [n for n, p in one.named_parameters() if p.ndim > 1]
    assert one.stem.content.weight.std().item() == pytest.approx(1, abs=5 / (2 * 9 * 64) ** 0.5)
    assert one.stem.position.std().item() == pytest.approx(0.02, abs=5 * 0.02 / (2 * 40 * 64) ** 0.5)


@pytest.mark.parametrize(
    ("options", "skips"),
    [
        ({}, {"identity"}),
        ({"orders": Order.POST_NORM, "stochastic_depth": 0.2}, {"identity"}),
        ({"causal": True, "readout": "each", "norm": "rms", "scale": "layerscale"}, {"identity"}),
        ({"orders": ["norm attention +"], "norm": None}, {"identity"}),
    ],
)
def test_transformers_are_traced_at_any_batch_and_length(options, skips):
    network = made(**options)
    form = trace(network, (normal(2, 8, 5),))
    assert len(form.blocks) == len(network.blocks)
    assert {block.skip for block in form.blocks} == skips
    assert form.error < 1e-12
    assert not form.silent
    x = normal(5, 4, 5, seed=1)
    torch.testing.assert_close(form(x), network(x), rtol=1e-12, atol=1e-12)


def test_the_trace_of_tokens_counts_the_paths_and_splits_the_heads():
    network = made(vocabulary=9, classes=9, causal=True, readout="each", heads=2)
    form = trace(network, (torch.randint(0, 9, (2, 8), generator=draws()),))
    assert form.path_counts() == [1, 4, 6, 4, 1]
    split = form.split("heads")
    # Two heads, and what the output map's bias adds.
    assert [len(block.branches) for block in split.blocks] == [3, 1, 3, 1]


MODULES = {
    "attention": (SelfAttention(4, heads=2), (2, 3, 4)),
    "causal": (SelfAttention(4, heads=1, causal=True, bias=False), (2, 3, 4)),
    "embedding": (SequenceEmbedding(nn.Linear(2, 3), positions=5, width=3), (2, 4, 2)),
    "mean": (MeanOverPositions(), (2, 3, 4)),
}


@pytest.mark.parametrize("kind", MODULES)
def test_every_module_has_the_right_derivative(kind):
    module, shape = MODULES[kind]
    module.double()
    names = [name for name, _ in module.named_parameters()]

    def forward(h, *values):
        return torch.func.functional_call(module, dict(zip(names, values, strict=True)), (h,))

    assert torch.autograd.gradcheck(forward, (normal(*shape).requires_grad_(), *module.parameters()))


def test_a_sequence_that_is_too_long_is_refused():
    with pytest.raises(ShapeError, match=r"may have 8 positions; this one has 9\.\n  Cut it, .* positions=9") as error:
        made()(normal(2, 9, 5))
    assert error.value.shapes == {"input": (2, 9, 5)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 5}, "attention: 5 heads cannot share 64 features evenly; nearest: heads=4."),
        ({"norm": "batch"}, 'norm: unknown name "batch"\n  Choose from: layer, rms.'),
        ({"readout": "last"}, 'readout: unknown name "last"\n  Choose from: mean, each.'),
        ({"orders": "norm attention +"}, "orders is a list, one order for each block of a layer"),
        ({"orders": []}, "orders is a list, one order for each block of a layer; got []"),
        (
            {"orders": ["norm attention +", "norm conv +"]},
            'the token "conv" of order "norm conv +"\n  It takes linear, ',
        ),
        ({"scale": "fixup"}, 'scale="fixup" is not derived for attention\n  Use scale="learned".'),
        ({"scale": "nf", "norm": None}, 'scale="nf" is not derived for attention'),
        ({"init": "looks_linear"}, 'init="looks_linear" cannot make attention linear'),
        ({"vocabulary": 0}, "vocabulary must be 1 or more, but is 0"),
    ],
)
def test_options_that_do_not_exist_are_refused(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        transformer(**options)


@pytest.mark.parametrize("scale", ["learned", "zero"])
def test_a_layer_starts_as_its_skip_and_can_leave(scale):
    network = transformer(inputs=5, positions=8, depth=1, width=16, scale=scale, generator=draws())
    h = normal(2, 8, 16).float()
    out = network.blocks(h)
    assert torch.equal(out, h)
    out.square().sum().backward()
    for block in network.blocks:
        assert any(p.grad is not None and p.grad.abs().max() > 0 for p in block.parameters())
