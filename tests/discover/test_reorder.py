"""`reorder` equals the model whose modules stand in that order."""

import copy

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import nn

import unbraid
from networks import Chain, Does, Residual, error, lively, mlp, normal
from real_models import real
from unbraid import ShapeError, chain, trace
from unbraid import nn as ours

X = normal(3, 6)


class After(nn.Module):
    """tanh(x + f(x)), or a norm of it: what the trunk does with the sum belongs to the block."""

    def __init__(self, after):
        super().__init__()
        self.f, self.after = mlp(6), after

    def forward(self, x):
        return self.after(x + self.f(x))


class Side(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = mlp(6), mlp(6)

    def forward(self, x):
        return x + self.a(x) + self.b(x)


def network():
    inner = nn.Sequential(nn.Linear(6, 6), Residual(mlp(6)), nn.Linear(6, 6))
    blocks = Residual(mlp(6)), After(nn.Tanh()), Side(), Residual(inner), After(nn.LayerNorm(6))
    return lively(Chain(*blocks, nn.Linear(6, 4)))


@pytest.fixture(scope="module")
def model():
    return network()


@pytest.fixture(scope="module")
def form(model):
    return trace(model, X)


def in_order(model, order, gone=()):
    """The model itself with its blocks in another order, and some of them silent."""
    other = copy.deepcopy(model)
    blocks = list(other.blocks)
    for k in gone:
        for parameter in (p for name, p in blocks[k].named_parameters() if not name.startswith("after")):
            parameter.data.zero_()
    other.blocks = nn.ModuleList([*(blocks[k] for k in order), *blocks[len(order) :]])
    return other


permutations = st.permutations(range(5))
quick = settings(max_examples=10, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))


@quick
@given(permutations)
def test_any_order(model, form, order):
    x = normal(2, 6, seed=1)
    moved = form.reorder(order)
    assert error(moved(x), in_order(model, order)(x)) < 1e-12
    assert moved.order == tuple(order)
    assert moved.blocks == form.blocks
    assert moved.path_counts() == form.path_counts()


@quick
@given(permutations, permutations)
def test_permutations_compose_and_cancel(form, p, q):
    x = normal(2, 6, seed=1)
    both = form.reorder(p).reorder(q)
    assert both.order == tuple(p[i] for i in q)
    assert both(x).equal(form.reorder([p[i] for i in q])(x))
    inverse = sorted(range(5), key=p.__getitem__)
    back = form.reorder(p).reorder(inverse)
    assert back(x).equal(form(x))
    assert back.order == form.order == tuple(range(5))
    assert back.verify(X).error < 1e-12


@quick
@given(permutations, st.sets(st.integers(0, 3), max_size=3))
def test_deletions_and_orders_commute(model, form, order, gone):
    x = normal(2, 6, seed=1)
    first, last = form.without(*gone).reorder(order), form.reorder(order).without(*gone)
    assert first(x).equal(last(x))
    # Silent parameters do not silence what is behind a tanh, so only the blocks without one have this oracle.
    plain = [k for k in gone if k in (0, 2)]
    assert error(form.reorder(order).without(*plain)(x), in_order(model, order, plain)(x)) < 1e-12


def test_a_random_branch_after_a_deletion_keeps_its_index(form):
    moved = form.reorder([4, 3, 2, 1, 0])
    assert not moved.without((2, 1))(X).equal(moved.without((2, 0))(X))
    assert moved.without((2, 0)).without((2, 1))(X).equal(moved.without(2)(X))


def test_a_reordered_form_shows_its_blocks_in_the_order_in_which_they_run(form):
    lines = str(form.reorder([2, 0, 1, 4, 3])).splitlines()[2:7]
    assert [line.split()[:2] for line in lines] == [[str(k), f"blocks.{k}"] for k in (2, 0, 1, 4, 3)]


def test_an_edited_form_has_no_model_to_be_checked_against(form):
    with pytest.raises(ValueError, match=r"verify: this form was edited"):
        form.reorder([1, 0, 2, 3, 4]).verify(X)


def test_a_reordered_form_is_saved_and_loaded(form, tmp_path):
    moved = form.reorder([2, 0, 1, 4, 3]).without(1)
    loaded = unbraid.load(moved.save(tmp_path / "form"))
    assert loaded.order == moved.order
    assert error(loaded(X), moved(X)) < 1e-12


# What is no permutation, and what cannot move.


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [0, 1, 2, 3, 3], [0, 1, 2, 3, 5], [-1, 4, 1, 2, 3]])
def test_every_position_comes_once(form, order):
    with pytest.raises(ValueError, match=r"must hold each of the positions 0 to 4 once; got \["):
        form.reorder(order)


def test_positions_count_from_the_end_as_well(form):
    assert form.reorder([-1, 0, 1, 2, 3]).order == (4, 0, 1, 2, 3)


def test_blocks_that_change_the_shape():
    network = lively(ours.conv1d(layers=14, width=4, norm="group", shortcut="projection"), scale=0.3)
    x = normal(3, 1, 16)
    form = trace(network, x)
    assert [block.skip for block in form.blocks] == ["identity"] * 2 + ["projection", "identity"] * 2
    assert form.interchangeable() == [[0, 1], [2], [3], [4], [5]]
    swapped = copy.deepcopy(network)
    swapped.blocks = nn.Sequential(*(network.blocks[k] for k in (1, 0, 2, 3, 4, 5)))
    assert error(form.reorder([1, 0, 2, 3, 4, 5])(x), swapped(x)) < 1e-12
    with pytest.raises(ShapeError) as caught:
        form.reorder([0, 2, 1, 3, 4, 5])
    assert str(caught.value) == (
        "reorder: block 1 ('blocks.1') cannot follow block 2 ('blocks.2'), as their shapes disagree.\n"
        "  block 2 gives ['batch', 8, '(((n1 - 1)//2)) + 1']\n"
        "  block 1 takes ['batch', 4, 'n1']\n"
        "  Exchange blocks of one shape."
    )
    assert caught.value.shapes == {"block 2": (8,), "block 1": (4,)}


def test_blocks_that_change_the_shape_back_and_forth():
    """Two blocks that fit one another in either order, but not what comes before and after them."""

    def projected(inputs, outputs):
        return Does(lambda net, x: net.p(x) + net.f(x), p=nn.Linear(inputs, outputs), f=mlp(inputs, 5, outputs))

    model = lively(Chain(projected(6, 4), projected(4, 6), nn.Linear(6, 2)))
    form = trace(model, X)
    with pytest.raises(
        ShapeError,
        match=r"1 \(.*\) cannot take the place of block 0 \(.*\n.*0 takes \['batch', 6\]\n.*1 takes \['batch', 4\]",
    ):
        form.reorder([1, 0])
    twice = lively(Chain(projected(6, 4), projected(4, 6), projected(6, 4), projected(4, 6), nn.Linear(6, 2)))
    form = trace(twice, X)
    assert form.interchangeable() == [[0, 2], [1, 3]]
    assert error(form.reorder([2, 1, 0, 3])(X), in_order(twice, [2, 1, 0, 3])(X)) < 1e-12
    assert error(form.reorder([2, 3, 0, 1])(X), in_order(twice, [2, 3, 0, 1])(X)) < 1e-12


class Two(nn.Module):
    """Two trunks, of which the second reads the end of the first in each of its blocks."""

    def __init__(self):
        super().__init__()
        self.a = nn.ModuleList(After(nn.ReLU()) for _ in range(3))
        self.b = nn.ModuleList(mlp(6) for _ in range(3))

    def forward(self, x, y):
        for block in self.a:
            x = block(x)
        for f in self.b:
            y = y + f(y * x)
        return y


def test_blocks_stay_on_their_trunk_and_read_the_others_end():
    model = lively(Two())
    x, y = X, normal(3, 6, seed=1)
    form = trace(model, (x, y))
    assert form.interchangeable() == [[0, 1, 2], [3, 4, 5]]
    other = copy.deepcopy(model)
    other.a = nn.ModuleList(model.a[k] for k in (2, 0, 1))
    other.b = nn.ModuleList(model.b[k] for k in (1, 0, 2))
    assert error(form.reorder([2, 0, 1, 4, 3, 5])(x, y), other(x, y)) < 1e-12
    with pytest.raises(
        ValueError, match=r"block 3 \('b.0'\) cannot take the place of block 2 \('a.2'\): they lie on different"
    ):
        form.reorder([0, 1, 3, 2, 4, 5])


def test_a_trunk_that_a_deletion_took_along():
    class Meets(nn.Module):
        def __init__(self):
            super().__init__()
            self.f, self.g, self.h = mlp(6), mlp(6), mlp(6)

        def forward(self, a, b):
            a = a + self.f(a)
            a = a + self.g(a)
            return b + self.h(a * b)

    a, b = X, normal(3, 6, seed=1)
    form = trace(lively(Meets()), (a, b)).without(2)
    assert form.reorder([1, 0, 2])(a, b).equal(b)
    with pytest.raises(ValueError, match=r"they lie on different trunks"):
        form.reorder([2, 1, 0])


def test_a_block_that_reads_what_another_makes_cannot_run_before_it():
    class Hands(nn.Module):
        """The second block uses what the first has computed inside."""

        def __init__(self):
            super().__init__()
            self.f, self.g, self.out = mlp(6), mlp(6), mlp(6)

        def forward(self, x):
            inside = self.f(x)
            x = x + self.out(inside)
            return x + self.g(x) * inside

    form = trace(lively(Hands()), X)
    with pytest.raises(ValueError, match=r"reorder: block 1 reads '\w+', which would be made after it"):
        form.reorder([1, 0])


def test_a_plain_network():
    model = lively(Chain(mlp(6), mlp(6), mlp(6), nn.Linear(6, 2)))
    form = chain(model, X, layers=[f"blocks.{k}" for k in range(3)])
    assert error(form.reorder([2, 0, 1])(X), in_order(model, [2, 0, 1])(X)) < 1e-12
    assert form.reorder([2, 0, 1]).path_counts() == [0, 0, 0, 1]


# Models of other libraries.


@pytest.mark.parametrize(
    ("name", "order", "move"),
    [
        ("resnet18", [1, 0, 2, 3, 4, 5, 6, 7], lambda m: _swap(m.layer1, 0, 1)),
        ("vit_tiny_patch16_224", [4, 5, 2, 3, 0, 1], lambda m: _swap(m.blocks, 0, 2)),
        ("GPT2", [2, 3, 0, 1], lambda m: _swap(m.transformer.h, 0, 1)),
        ("Llama", [2, 3, 0, 1], lambda m: _swap(m.model.layers, 0, 1)),
    ],
)
def test_real_models(name, order, move):
    model, args, kwargs, form, _ = real(name)
    other = copy.deepcopy(model)
    move(other)
    with torch.no_grad():
        there, here = other(*args, **kwargs), form.reorder(order)(*args, **kwargs)
    tensors = (here, there) if isinstance(there, torch.Tensor) else (here.logits, there.logits)
    assert error(*tensors) < 1e-12


def _swap(blocks, a, b):
    blocks[a], blocks[b] = blocks[b], blocks[a]
