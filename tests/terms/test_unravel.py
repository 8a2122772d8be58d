"""Equation 11.5: the stream is the input plus one term a block. The oracles are forward hooks on the model itself."""

import inspect
import sys
import weakref

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from book_networks import CONV, LINEAR, batch, features, images, observed, sequences
from networks import F64, Chain, Does, Residual, error, lively, mlp, normal
from unbraid.errors import InexactError
from unbraid.form import chain, trace
from unbraid.graph import Add, makes
from unbraid.terms import _push_terms, unravel
from unbraid.walk import run

NETWORKS = {
    **{f"mlp {order}": (features, {"order": order}) for order in LINEAR},
    **{f"conv2d {order}": (images, {"order": order}) for order in CONV},
    **{f"mlp {norm}": (features, {"order": LINEAR[3], "norm": norm, "width": 8}) for norm in ("layer", "rms", "group")},
    **{f"mlp {act}": (features, {"order": LINEAR[3], "activation": act}) for act in ("leaky_relu", "elu", "gelu")},
    "mlp silu": (features, {"order": LINEAR[4], "activation": "silu"}),
    "mlp tanh": (features, {"order": LINEAR[4], "activation": "tanh"}),
    "mlp without norm": (features, {"order": LINEAR[3], "norm": None}),
    "mlp learned scale": (features, {"scale": "learned"}),
    "mlp scale 1/sqrt(K)": (features, {"scale": "1/sqrt(K)"}),
    "mlp of 20 blocks": (features, {"depth": 20, "scale": "1/sqrt(2)"}),
    "mlp of a plain number of blocks": (features, {"depth": 1}),
    "conv1d": (sequences, {}),
    "conv1d preactivation": (sequences, {"order": CONV[-1], "norm": "group"}),
    "conv2d projections": (images, {"shortcut": "projection"}),
    "conv2d projections, layer norm": (images, {"shortcut": "projection", "norm": "layer", "order": CONV[1]}),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_terms_sum_to_what_a_hook_sees(name):
    """Through any order, norm, activation, scale and shortcut, the stream is the last block's own output."""
    make, options = NETWORKS[name]
    network = make(**options)
    x = batch(network)
    form = trace(network, x)
    terms, seen = unravel(form, x), observed(network, x)
    last = seen[form.blocks[-1].name][1]
    assert error(terms.stream, last) < 1e-12
    assert error(terms.values.sum(0), last) < 1e-10
    assert error(terms.total(), last) < 1e-10
    assert terms.error < 1e-10
    blocks = tuple(block.name for block in form.blocks)
    assert terms.names in {("input", *blocks), ("input", *blocks, "constants")}


@pytest.mark.parametrize("make", [features, sequences, images])
def test_in_float32(make):
    network = make().float()
    x = batch(network).float()
    terms = unravel(trace(network, x), x)
    assert terms.values.dtype is torch.float32
    assert error(terms.total(), terms.stream) < 1e-4


@pytest.mark.parametrize(
    "options", [{"order": LINEAR[7]}, {"order": LINEAR[1]}, {"order": LINEAR[0], "scale": "learned"}]
)
def test_with_identities_alone_each_term_is_its_branch(options):
    """y = x + f1[x] + f2[x + f1[x]] + ...: each term is what the block's branch gave, and nothing was added to it."""
    network = features(**options)
    x = batch(network)
    form = trace(network, x)
    terms, seen = unravel(form, x), observed(network, x)
    assert terms.names == ("input", "blocks.0", "blocks.1", "blocks.2")
    assert error(terms.values[0], seen["blocks.0"][0]) < 1e-14
    for k in range(3):
        inside, out = seen[f"blocks.{k}"]
        assert error(terms.values[k + 1], out - inside) < 1e-12
    if "scale" not in options:
        assert all(error(terms.values[k + 1], seen[f"blocks.{k}.branch"][1]) < 1e-14 for k in range(3))


def test_through_a_relu_each_term_is_gated():
    """Three blocks of ReLU after the addition: term k passes every later gate 1[h > 0], by hand from the hooks."""
    network = features(order="linear act linear + act", norm=None)
    x = batch(network)
    terms, seen = unravel(trace(network, x), x), observed(network, x)
    gates = [(seen[f"blocks.{k}"][1] > 0).to(F64) for k in range(3)]
    wanted = [seen["blocks.0"][0] * gates[0] * gates[1] * gates[2]]
    for k in range(3):
        term = seen[f"blocks.{k}.branch"][1]
        for gate in gates[k:]:
            term = term * gate
        wanted.append(term)
    assert terms.names == ("input", "blocks.0", "blocks.1", "blocks.2")
    for term, other in zip(terms.values, wanted, strict=True):
        assert error(term, other) < 1e-12


def test_a_norm_after_the_addition_freezes_its_scale_and_its_bias_is_a_constant():
    """Post-norm, by hand: every term is centred and scaled by σ of the whole; biases are a term of their own."""
    stages = [nn.Sequential(Residual(mlp(6)), nn.LayerNorm(6)) for _ in range(2)]
    network = lively(Chain(*stages, Residual(mlp(6))))
    x = normal(4, 6)
    terms, seen = unravel(trace(network, x), x), observed(network, x)
    parts, biases = [x], torch.zeros_like(x)
    for k in range(2):
        norm, (inside, _) = network.blocks[k][1], seen[f"blocks.{k}.1"]
        scale = torch.rsqrt(inside.var(-1, correction=0, keepdim=True) + norm.eps) * norm.weight.detach()
        whole = [*parts, seen[f"blocks.{k}.0.branch"][1], biases]
        *parts, biases = ((part - part.mean(-1, keepdim=True)) * scale for part in whole)
        biases = biases + norm.bias.detach()
    assert terms.names == ("input", "blocks.0.0", "blocks.1.0", "blocks.2", "constants")
    for term, other in zip(terms.values, [*parts, seen["blocks.2.branch"][1], biases], strict=True):
        assert error(term, other) < 1e-11


@pytest.mark.parametrize(
    "name", ["mlp act linear +", f"mlp {LINEAR[7]}", f"mlp {LINEAR[3]}", f"conv2d {CONV[0]}", "conv1d"]
)
def test_the_last_network_transforms_an_ensemble(name):
    """terms[k].unravel() takes apart the input of the k-th block's branch, which a hook sees."""
    make, options = NETWORKS[name]
    network = make(**options)
    x = batch(network)
    form = trace(network, x)
    terms, seen = unravel(form, x), observed(network, x)
    for k, block in enumerate(form.blocks, start=1):
        ensemble = terms[k].unravel()
        assert error(ensemble.total(), seen[block.name][0]) < 1e-10
        assert ensemble.names[:k] == ("input", *(b.name for b in form.blocks[: k - 1]))
        assert ensemble.error < 1e-10


def test_at_another_input_a_substituted_term_is_the_branch_itself():
    """Nothing but additions follows, so f_k[x + f_1[x] + ...] is a network of x alone: at any x, at any batch size."""
    network = features(order=LINEAR[7])
    x, other = batch(network), batch(network, seed=9)[:2]
    terms, seen = unravel(trace(network, x), x), observed(network, other)
    for k in (1, 2, 3):
        assert terms[k].substituted
        assert error(terms[k](other), seen[f"blocks.{k - 1}.branch"][1]) < 1e-14
    assert error(terms[0](other), seen["blocks.0"][0]) < 1e-14


def test_at_another_input_a_gated_term_freezes_the_gates_there():
    """Where a gate follows, it says so, and gives the term of the other input; after the last block none follows."""
    network = features(order="act linear +", norm=None)
    network.blocks[1].after = nn.ReLU()
    x, other = batch(network), batch(network, seed=9)
    form = trace(network, x)
    terms, seen = unravel(form, x), observed(network, other)
    assert [terms[k].substituted for k in range(4)] == [False, False, False, True]
    assert "freezes the later gates" in type(terms[1]).__doc__
    gate = (seen["blocks.1"][1] > 0).to(F64)
    assert error(terms[1](other), seen["blocks.0.branch"][1] * gate) < 1e-12
    assert error(terms[2](other), seen["blocks.1.branch"][1] * gate) < 1e-12
    assert error(terms[3](other), seen["blocks.2.branch"][1]) < 1e-14
    assert not torch.equal(gate, (observed(network, x)["blocks.1"][1] > 0).to(F64))


def test_a_projection_is_no_free_way():
    network = images(shortcut="projection", order=CONV[-1])
    x = batch(network)
    terms = unravel(trace(network, x), x)
    assert [terms[k].substituted for k in range(4)] == [False, False, False, True]


def test_parallel_branches_are_one_term():
    """GPT-J's block: one term holds both branches."""
    both = Does(lambda self, x: x + self.a(x) + self.b(x), a=mlp(6), b=mlp(6))
    network = lively(Chain(both, Residual(mlp(6))))
    x = normal(3, 6)
    form, seen = trace(network, x), observed(network, x)
    terms = unravel(form, x)
    assert form.blocks[0].branches != form.blocks[1].branches
    assert error(terms.values[1], seen["blocks.0.a"][1] + seen["blocks.0.b"][1]) < 1e-14
    assert error(terms[1](x), terms.values[1]) < 1e-14


def test_a_deleted_block_has_no_term():
    network = features()
    x = batch(network)
    form = trace(network, x).without(1)
    terms = unravel(form, x)
    assert terms.names == ("input", "blocks.0", "blocks.2")
    h = network.stem(x)
    for k in (0, 2):
        h = network.blocks[k](h)
    assert error(terms.total(), h.detach()) < 1e-12


def test_a_plain_network_has_its_last_layer_alone():
    """Equation 11.1: there is no skip, so nothing of x is left but through the last layer."""
    network = features().plain()
    x = batch(network)
    terms, seen = unravel(chain(network, x, layers="layers"), x), observed(network, x)
    assert terms.names == ("input", "layers.2")
    assert not terms.values[0].any()
    assert error(terms.values[1], seen["layers.2"][1]) < 1e-14


def test_many_blocks_do_not_exhaust_the_stack():
    """120 blocks with a gate before each, and 100 frames: the way along the trunk is a loop."""

    def forward(self, x):
        for _ in range(120):
            x = self.block(torch.relu(x))
        return x

    network = lively(Does(forward, block=Residual(nn.Linear(2, 2))), scale=0.01)
    x = normal(2, 2).abs()
    form = trace(network, x)
    trunk = _push_terms.FrozenTrunk.of(form, form.inputs(x))
    assert len(trunk.graph.steps) > 240
    limit = sys.getrecursionlimit()
    try:
        sys.setrecursionlimit(len(inspect.stack()) + 100)
        terms = trunk.terms(form.end)
    finally:
        sys.setrecursionlimit(limit)
    assert len(terms) == 121
    assert error(sum(terms.values()), network(x).detach()) < 1e-10


def test_terms_are_let_go_of_after_their_last_reader(monkeypatch):
    """Along a chain of gates the terms of two streams are alive at a time, not those of all."""
    real, made, alive = _push_terms.push, [], []

    def watched(*arguments):
        found = real(*arguments)
        made.extend(weakref.ref(term) for terms in found for term in terms.values())
        alive.append(sum(reference() is not None for reference in made))
        return found

    monkeypatch.setattr(_push_terms, "push", watched)
    network = features(order=LINEAR[3], depth=8)
    unravel(trace(network, batch(network)), batch(network))
    assert len(made) == sum(range(2, 10))
    assert max(alive) <= 9 + 8


def test_the_input_has_no_branch():
    network = features()
    terms = unravel(trace(network, batch(network)), batch(network))
    with pytest.raises(ValueError, match="the term 'input' has no branch; terms 1 to K, those of the blocks, have one"):
        terms[0].unravel()
    with pytest.raises(IndexError):
        terms[4]


def test_norms_and_table_say_how_large_each_term_is():
    network = features()
    x = batch(network)
    terms = unravel(trace(network, x), x)
    by_hand = [value.square().mean().item() ** 0.5 for value in terms.values]
    assert terms.to_dict()["rms"] == pytest.approx(by_hand)
    assert terms.table().row_count == 4


def test_the_check_sees_a_lost_term(monkeypatch):
    """Drop the second block's branch from the sum: unravel must refuse, and name the block."""
    real = _push_terms.FrozenTrunk._sum

    def lossy(self, add, skip):
        return skip if add.block == 1 else real(self, add, skip)

    monkeypatch.setattr(_push_terms.FrozenTrunk, "_sum", lossy)
    network = features()
    with pytest.raises(InexactError, match=r"depart by .*, first at block 1 \('blocks\.1'\)") as caught:
        unravel(trace(network, batch(network)), batch(network))
    assert caught.value.error > 1e-3


def test_the_check_sees_a_gate_left_live(monkeypatch):
    """Push terms through the trunk as it is, not frozen: its ReLU is not linear, and the sum departs."""

    def live(graph, state, inputs, segments, seen):
        for stream, value in run(graph, state, inputs, keep=[s for step in graph.steps for s in makes(step)]).items():
            seen(stream, value)
        return graph, state

    monkeypatch.setattr(_push_terms, "freeze", live)
    network = features(order=LINEAR[3])
    with pytest.raises(InexactError, match=r"the terms must sum to the stream to 1e-10; they depart by .* at block 1"):
        unravel(trace(network, batch(network)), batch(network))


def test_a_trunk_operator_without_a_rule_is_named():
    strange = Does(lambda self, x: self.block(x).cumprod(-1), block=Residual(mlp(4)))
    network = lively(Chain(strange, Residual(mlp(4))))
    x = normal(2, 4)
    with pytest.raises(InexactError, match=r"aten\.cumprod\.default affine, in 'blocks\.0'"):
        unravel(trace(network, x), x)


@st.composite
def drawn(draw):
    depth = draw(st.integers(1, 6))
    options = {
        "depth": depth,
        "width": draw(st.integers(2, 8)),
        "order": draw(st.sampled_from(LINEAR)),
        "activation": draw(st.sampled_from(("relu", "leaky_relu", "elu", "gelu", "silu", "tanh"))),
        "norm": draw(st.sampled_from(("batch", "layer", "rms", None))),
        "scale": draw(st.sampled_from((1.0, "1/sqrt(K)", "learned"))),
    }
    return options, draw(st.integers(0, 2**31))


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(drawn())
def test_the_terms_of_any_network_sum_to_its_stream(network_and_seed):
    """And each block's own term, before what follows changes it, is what its branch gave."""
    options, seed = network_and_seed
    network = features(**options)
    x = normal(3, 5, seed=seed)
    form = trace(network, x)
    terms, seen = unravel(form, x), observed(network, x)
    assert error(terms.values.sum(0), seen[form.blocks[-1].name][1]) < 1e-10
    adds = [step for step in form.graph.steps if isinstance(step, Add)]
    trunk = terms._trunk
    for add, block in zip(adds, form.blocks, strict=True):
        inside = trunk.terms(add.output)
        assert sum(inside.values()).shape == seen[block.name][1].shape
        assert error(inside[add.block], trunk.values[add.branches[0]]) == 0
