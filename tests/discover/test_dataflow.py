"""Values flow on through integers, detached tensors and regions without gradients; gradients end there."""

from functools import cache

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

import unbraid
from networks import Chain, Does, Residual, error, lively, mlp, normal
from unbraid import paths
from unbraid.errors import InexactError
from unbraid.form import trace
from unbraid.freeze._freezer import Freezer

X = normal(3, 6)
EXACT = 1e-10


def trunk(seed=0):
    return Chain(*(Residual(mlp(6)) for _ in range(2)))


def broken(between):
    """Two blocks, something between, two blocks, a head."""
    parts = {"a": trunk(), "b": trunk(), "head": nn.Linear(6, 4), "table": nn.Embedding(6, 6)}
    return lively(Does(lambda net, x: net.head(net.b(between(net, net.a(x)))), **parts))


def nearest(net, h):
    return net.table(torch.cdist(h, net.table.weight).argmin(-1))


def without_gradients(function):
    def ran(net, h):
        with torch.no_grad():
            return function(h)

    return ran


def scaled_bytes(h):
    return (255 * h.sigmoid()).byte().to(h.dtype) / 255


def cached(net, h):
    """What a model may do to a tensor that it keeps between calls."""
    return h.detach().clone().requires_grad_(False)


# Between two trunks: what passes values and no gradients.
CHOICES = {
    "argmax and embedding": lambda net, h: net.table(h.argmax(-1)),
    "nearest code": nearest,
    "one-hot": lambda net, h: functional.one_hot(h.argmax(-1), 6).to(h.dtype),
    "a comparison": lambda net, h: (h > 0).to(h.dtype),
    "a row of a parameter": lambda net, h: net.table.weight[h.argmax(-1)],
    "ranks": lambda net, h: h.argsort(-1).argsort(-1).to(h.dtype) / 6,
}
ROUNDED = {
    "bytes": lambda net, h: scaled_bytes(h),
    "whole numbers": lambda net, h: (10 * h).long().to(h.dtype),
    "rounded": lambda net, h: (10 * h).round() / 10,
}
DETACHED = {
    "detach": lambda net, h: h.detach(),
    "no_grad": without_gradients(lambda h: h * 1),
    "cached": cached,
}
BREAKS = {**CHOICES, **ROUNDED, **DETACHED}
LOOPS = {  # each with a detached stage in every block
    "coordinates that are refined": lambda net, x: _refined(net, x),
    "a frozen backbone": lambda net, x: _frozen(net, x),
    "detached branches": lambda net, x: _branches(net, x),
    "detached skips": lambda net, x: _skips(net, x),
    "straight through": lambda net, x: _straight(net, x),
}


def _blocks(net):
    return [*net.a.blocks, *net.b.blocks]


def _refined(net, x):
    for block in _blocks(net):
        x = x.detach()
        x = x + block.branch(x)
    return net.head(x)


def _frozen(net, x):
    with torch.no_grad():
        h = net.a(x)
    return net.head(net.b(h))


def _branches(net, x):
    for block in net.a.blocks:
        x = x + block.branch(x).detach()
    return net.head(net.b(x))


def _skips(net, x):
    for block in net.a.blocks:
        x = x.detach() + block.branch(x)
    return net.head(net.b(x))


def _straight(net, x):
    h = net.a(x)
    for block in net.b.blocks:
        f = block.branch(h)
        h = h + torch.tanh(f) + (torch.sign(f) - torch.tanh(f)).detach()
    return net.head(h)


def looped(function):
    parts = {"a": trunk(), "b": trunk(), "head": nn.Linear(6, 4)}
    return lively(Does(function, **parts))


@cache
def traced(name):
    """A model of the lists above, and its form."""
    model = broken(BREAKS[name]) if name in BREAKS else looped(LOOPS[name])
    return model, trace(model, X)


def own_gradient(model, x):
    """The model's own autograd, by a plain backward pass."""
    leaf = x.clone().requires_grad_()
    output = model(leaf)[:, 1].sum()
    if output.requires_grad:
        output.backward()
    model.zero_grad()
    return torch.zeros_like(x) if leaf.grad is None else leaf.grad


def own_gradients_at_blocks(model, x):
    """The same at the output of each block: zeros where nothing comes back."""
    seen = []
    handles = [
        m.register_forward_hook(lambda *call: seen.append(call[2])) for m in model.modules() if type(m) is Residual
    ]
    with torch.enable_grad():
        output = model(x.clone().requires_grad_())[:, 1].sum()
    for handle in handles:
        handle.remove()
    return [
        torch.autograd.grad(output, one, retain_graph=True, materialize_grads=True, allow_unused=True)[0]
        if one.requires_grad
        else torch.zeros_like(one)
        for one in seen
    ]


def target(output):
    return output[:, 1]


@pytest.mark.parametrize("name", BREAKS)
def test_blocks_are_found_and_counted_behind_it(name):
    _, form = traced(name)
    assert [block.name for block in form.blocks] == ["a.blocks.0", "a.blocks.1", "b.blocks.0", "b.blocks.1"]
    assert [block.skip for block in form.blocks] == ["identity"] * 4
    assert form.path_counts() == [1, 4, 6, 4, 1]
    assert form.sources == ("x",)


@pytest.mark.parametrize("name", BREAKS)
def test_gradients_are_the_models_own_at_the_source_and_at_each_block(name):
    model, form = traced(name)
    assert torch.equal(own_gradient(model, X), torch.zeros_like(X)), "the model passes none"
    spectrum = unbraid.gradient_spectrum(form, X, target=target)
    assert torch.equal(spectrum.gradients, torch.zeros(5, *X.shape, dtype=X.dtype))
    for block, own in enumerate(own_gradients_at_blocks(model, X)):
        found = unbraid.gradient_spectrum(form, X, target=target, at=block)
        assert error(found.total(), own) < EXACT
        assert bool(own.any()) == (block >= 2)


@pytest.mark.parametrize("name", LOOPS)
def test_gradients_of_stages_that_are_detached(name):
    model, form = traced(name)
    assert sum(len(block.branches) for block in form.blocks) >= 4
    assert error(unbraid.gradient_spectrum(form, X, target=target).total(), own_gradient(model, X)) < EXACT


@pytest.mark.parametrize("name", DETACHED)
def test_values_pass_a_detached_tensor_as_if_it_were_none(name):
    """Frozen values know nothing of gradients: each length's share is that of the model without the break."""
    (_, form), plain = traced(name), trace(broken(lambda net, h: h), X)
    found, wanted = (unbraid.value_spectrum(one, X, target=target) for one in (form, plain))
    assert error(found.from_input, wanted.from_input) < EXACT
    assert error(found.from_constants, wanted.from_constants) < EXACT
    assert error(unbraid.unravel(form, X).values, unbraid.unravel(plain, X).values) < EXACT


def test_the_check_sees_values_that_end_at_a_detached_tensor(monkeypatch):
    """With the operator itself in the frozen form, the values before it are lost, and the sum says so."""
    call = Freezer.call

    def kept(freezer, target, *args, **kwargs):
        made = call(freezer, target, *args, **kwargs)
        if target is not torch.ops.aten.detach.default:
            return made
        node = freezer.graph.call_function(target, (made,))
        freezer._mine.add(node)
        return node

    monkeypatch.setattr(Freezer, "call", kept)
    with pytest.raises(InexactError, match=r"value_spectrum: the lengths must sum to the target"):
        unbraid.value_spectrum(traced("detach")[1], X, target=target)


@pytest.mark.parametrize("name", CHOICES)
def test_what_a_choice_looks_up_is_a_constant(name):
    model, form = traced(name)
    spectrum = unbraid.value_spectrum(form, X, target=target)
    assert not spectrum.from_input.any()
    assert error(spectrum.from_constants.sum(0), model(X)[:, 1]) < EXACT
    terms = unbraid.unravel(form, X)
    assert terms.names == ("input", "a.blocks.0", "a.blocks.1", "b.blocks.0", "b.blocks.1", "constants")
    assert not terms.values[:3].any()
    assert error(terms.values[5], CHOICES[name](model, model.a(X))) < EXACT


def test_rounded_numbers_are_an_activation_with_a_gate():
    """q(h) = (q(h)/h)·h where q(0) = 0: the terms before it are scaled alike."""
    model, form = traced("whole numbers")
    terms = unbraid.unravel(form, X)
    before = model.a(X)
    gate = ROUNDED["whole numbers"](model, before) / before
    first = model.a.blocks[0].branch(X)
    assert error(terms.values[0], gate * X) < EXACT
    assert error(terms.values[1], gate * first) < EXACT


def analyses(model, form):
    """Every analysis of one form at one input."""
    data = [(X, torch.tensor([0, 1, 2])), (normal(3, 6, seed=5), torch.tensor([1, 1, 2]))]
    yield lambda: form.verify(X)
    yield lambda: unbraid.unravel(form, X).attribute(1)
    yield lambda: unbraid.unravel(form, X).lens()
    yield lambda: unbraid.unravel(form, X).lens("frozen")
    yield lambda: [unbraid.unravel(form, X)[k].unravel() for k in range(1, len(form.blocks) + 1)]
    yield lambda: [unbraid.unravel(form, X)[k](X) for k in range(len(form.blocks) + 1)]
    yield lambda: unbraid.attribute(form, X, target=1)
    yield lambda: paths.gradient_parts(form, X, target=1)
    yield lambda: paths.gradient_parts(form, X, target=1, by="pair")
    yield lambda: paths.mean_spectrum(form, data)
    yield lambda: unbraid.value_spectrum(form, X, target=lambda output: output.square().sum(1))
    for way in ("frozen", "jacobian"):
        yield lambda way=way: unbraid.top_paths(form, X, target=1, linearize=way, limit=2, beam=4)
        yield lambda way=way: unbraid.sample_paths(form, X, target=1, linearize=way)
    yield lambda: unbraid.derivative_chain(form, X)
    yield lambda: unbraid.derivative_chain(form, X, small=0)
    yield lambda: unbraid.signal(form, data)
    yield lambda: unbraid.diagnose(model, data)
    yield lambda: unbraid.lesion(form, data, functional.cross_entropy)
    yield lambda: unbraid.subsets(form, data, functional.cross_entropy)


SOME = ("argmax and embedding", "one-hot", "bytes", "no_grad", "a frozen backbone", "detached branches")
MORE = tuple(name for name in (*BREAKS, *LOOPS) if name not in SOME)


@pytest.mark.parametrize("name", [*SOME, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)])
def test_every_analysis_works(name):
    """Each is checked against autograd, or against the target, by itself; what is not finite is no number."""
    model, form = traced(name)
    shown = str(unbraid.gradient_spectrum(form, X, target=1).table().caption)
    assert ("it ends in integers, or where tensors are detached" in shown) == (not own_gradient(model, X).any())
    for analysis in analyses(model, form):
        found = analysis()
        checked = getattr(found, "error", 0.0)
        assert not checked > EXACT
    for way in ("frozen", "jacobian"):
        every = unbraid.all_paths(form, X, target=1, linearize=way)
        assert len(every) == sum(form.path_counts()), "each path is listed, its value zero where nothing passes"
        assert error(every.values.sum(0) + every.constants, model(X)[:, 1]) < EXACT


def test_reentrant_checkpoints_are_what_they_compute():
    def model(x):
        for block in _blocks(net):
            x = checkpoint(block, x, use_reentrant=True)
        return net.head(x)

    net = looped(lambda net, x: model(x))
    plain = looped(lambda net, x: net.head(net.b(net.a(x))))
    form = trace(net, X)
    assert len(form.blocks) == 4
    spectrum = unbraid.gradient_spectrum(form, X, target=target)
    assert error(spectrum.total(), own_gradient(net, X)) < EXACT
    assert error(spectrum.gradients, unbraid.gradient_spectrum(trace(plain, X), X, target=target).gradients) < EXACT


def test_tracing_leaves_checkpoints_as_they_were():
    before = torch.utils.checkpoint.CheckpointFunction.__dict__.copy()
    trace(looped(lambda net, x: net.head(checkpoint(net.b, net.a(x), use_reentrant=True))), X)
    assert torch.utils.checkpoint.CheckpointFunction.__dict__ == before


# What is asked for its size alone passes nothing on.
SIZES = {
    "expand_as": lambda net, x: net.table.weight[0].expand_as(x),
    "zeros_like": lambda net, x: torch.zeros_like(x) + net.table.weight[0],
    "ones_like": lambda net, x: torch.ones_like(x) * net.table.weight[0],
    "full_like": lambda net, x: torch.full_like(x, 2.0) @ net.table.weight,
    "new_zeros": lambda net, x: x.new_zeros(x.shape) + net.table.weight[0],
    "type_as": lambda net, x: net.table.weight[0].type_as(x).expand(x.shape),
    "arange": lambda net, x: net.table(torch.arange(x.shape[0])),
    "fill": lambda net, x: x.clone().fill_(1.0) @ net.table.weight,
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_no_data(name):
    def forward(net, x):
        return net.head(net.a(x + SIZES[name](net, x)))

    model = lively(Does(forward, a=trunk(), head=nn.Linear(6, 4), table=nn.Embedding(6, 6)))
    form = trace(model, X)
    assert [block.name for block in form.blocks] == ["a.blocks.0", "a.blocks.1"]
    assert form.path_counts() == [1, 2, 1], "no paths by way of a size"
    assert error(unbraid.value_spectrum(form, X, target=target).total(), model(X)[:, 1]) < EXACT


IDS = torch.randint(2, 6, (2, 5), generator=torch.Generator().manual_seed(0))


def counted_positions(net, ids):
    mask = ids.ne(1).long()
    positions = (mask.cumsum(1) * mask).long()
    h = net.table(ids) + net.table(positions)
    return net.head(net.a(h))


def expanded_positions(net, ids):
    positions = torch.arange(ids.shape[1]).expand_as(ids)
    return net.head(net.a(net.table(ids) + net.table(positions)))


def token_types(net, ids):
    return net.head(net.a(net.table(ids) + net.table(torch.zeros_like(ids))))


@pytest.mark.parametrize("forward", [counted_positions, expanded_positions, token_types])
def test_positions_counted_from_ids_begin_no_trunk(forward):
    model = lively(Does(forward, a=trunk(), head=nn.Linear(6, 4), table=nn.Embedding(6, 6)))
    form = trace(model, IDS)
    assert [block.name for block in form.blocks] == ["a.blocks.0", "a.blocks.1"]
    assert len(form.sources) == 1
    assert form.path_counts() == [1, 2, 1]


def test_an_embedding_of_the_models_own_numbers_is_no_source():
    """The sum before it is part of the trunk, not the caller's number."""
    model = broken(lambda net, h: net.table(h.abs().long().clamp(0, 5)[:, 0]))
    form = trace(model, X)
    assert form.sources == ("x",)
    assert form.path_counts() == [1, 4, 6, 4, 1]


@pytest.mark.parametrize(
    "chosen",
    [
        lambda ids, h: (ids + h.argmax(-1)) % 6,
        lambda ids, h: torch.where((h > 0).any(-1), ids, 1),
        lambda ids, h: torch.cat([ids, h.argmax(-1)], 1),
    ],
)
def test_an_index_that_is_partly_the_models_own_begins_nothing(chosen):
    """Ids that are moved by what a first trunk chose: the second trunk goes on from the first."""

    def forward(net, ids):
        h = net.a(net.table(ids))
        return net.head(net.b(net.table(chosen(ids, h))))

    model = lively(Does(forward, a=trunk(), b=trunk(), head=nn.Linear(6, 4), table=nn.Embedding(6, 6)))
    form = trace(model, IDS)
    assert len(form.blocks) == 4
    assert form.sources == ("embedding",)
    assert form.path_counts() == [1, 4, 6, 4, 1]


def test_an_embedding_of_the_callers_numbers_is_one_even_where_they_come_as_floats():
    def forward(net, x):
        return net.head(net.a(net.table(x[:, 0].abs().long() % 6)))

    model = lively(Does(forward, a=trunk(), head=nn.Linear(6, 4), table=nn.Embedding(6, 6)))
    x = torch.tensor([[0.0], [3.0], [5.0]], dtype=torch.float64)
    form = trace(model, x)
    assert form.sources == ("embedding",)
    assert bool(unbraid.gradient_spectrum(form, x, target=target).norms.all())


# Sizes that data decide.
def masked(net, x):
    return x + torch.relu(net.f(x))[x[:, 0] > -9]


def picked_up(net, x):
    return x + torch.relu(net.f(x))[(x[:, 0] > -9).nonzero()[:, 0]]


def selected(net, x):
    rows = (x > -9).sum(-1).eq(6)
    return x + torch.masked_select(torch.relu(net.f(x)), rows[:, None]).view(-1, 6)


def dense_and_back(net, x):
    """As PyTorch Geometric's GPSConv: rows into a dense batch, attention, and back to rows by the same mask."""
    mask = torch.tensor([[True, True], [True, False]])
    dense = x.new_zeros(2, 2, 6)
    dense[mask] = x
    mixed = torch.softmax(dense @ dense.transpose(1, 2), -1) @ net.f(dense)
    return x + mixed[mask]


@pytest.mark.parametrize("function", [masked, picked_up, selected, dense_and_back])
def test_a_size_that_data_decide_is_equal_to_what_it_meets(function):
    model = lively(Chain(*(Does(function, f=nn.Linear(6, 6)) for _ in range(2)), nn.Linear(6, 4)))
    form = trace(model, X, tracer="dispatch" if function is dense_and_back else "auto")
    assert [block.skip for block in form.blocks] == ["identity", "identity"]
    assert form.refusals == ()
    assert error(unbraid.gradient_spectrum(form, X, target=target).total(), own_gradient(model, X)) < EXACT
