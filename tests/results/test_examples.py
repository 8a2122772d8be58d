"""Streams whose rows are no examples: contributions, norms and Jacobians of each example are right all the same.

Oracles: each example run by itself, where examples are separate; the sum over the batch, by autograd, where not.
"""

import pytest
import torch
from torch import nn

import unbraid
from networks import error, lively, mlp, normal
from unbraid.errors import InexactError
from unbraid.gradients import derivative_chain
from unbraid.results import _examples

X = normal(3, 4, 6)


class Encoder(nn.Module):
    """Batch first outside; torch's own default, positions first, inside."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(6, 2, 12, dropout=0.0)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(6, 5)

    def forward(self, x):
        return self.head(self.encoder(x.transpose(0, 1)).transpose(0, 1).mean(1))


class Blocks(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks, self.head = nn.ModuleList(mlp(6) for _ in range(3)), nn.Linear(6, 5)

    def through(self, h):
        for block in self.blocks:
            h = h + block(h)
        return h


class BatchOutside(Blocks):
    """[batch · positions, width]."""

    def forward(self, x):
        return self.head(self.through(x.reshape(-1, 6)).reshape(x.shape[0], -1, 6).mean(1))


class PositionsOutside(Blocks):
    """[positions · batch, width]."""

    def forward(self, x):
        return self.head(self.through(x.transpose(0, 1).reshape(-1, 6)).reshape(-1, x.shape[0], 6).mean(0))


class Streams(Blocks):
    """Several streams of an example beside one another, folded into the batch, as in hyper-connections."""

    def forward(self, x):
        h = x.repeat_interleave(4, 0)
        for block in self.blocks:
            summed = h.reshape(x.shape[0], 4, *x.shape[1:]).mean(1)
            h = h + block(summed).repeat_interleave(4, 0) * (1 + torch.arange(4).repeat(x.shape[0])[:, None, None])
        return self.head(h.reshape(x.shape[0], 4, *x.shape[1:]).sum(1).mean(1))


class Windows(Blocks):
    """[batch, positions, width] as windows [positions / 2, batch, 2, width] of which every second is turned around."""

    def forward(self, x):
        h = x.reshape(x.shape[0], 2, 2, 6).transpose(0, 1)
        h = torch.stack([h[0], h[1].flip(0)])
        h = self.through(h)
        return self.head((h[0] + h[1].flip(0)).mean(1))


SEPARATE = {kind.__name__: kind for kind in (Encoder, BatchOutside, PositionsOutside, Streams, Windows)}


@pytest.fixture(scope="module", params=SEPARATE)
def separate(request):
    model = lively(SEPARATE[request.param]())
    return model, unbraid.trace(model, X)


TARGET = torch.tensor([4, 0, 2])


def test_each_example_is_as_if_it_were_alone(separate):
    _, form = separate
    together = [
        unbraid.attribute(form, X, target=TARGET),
        unbraid.unravel(form, X).attribute(TARGET),
        unbraid.all_paths(form, X, target=TARGET),
        unbraid.all_paths(form, X, target=TARGET, linearize="jacobian"),
    ]
    values = unbraid.value_spectrum(form, X, target=TARGET)
    assert not any(found.summed for found in (*together, values))
    for example in range(3):
        x, target = X[example : example + 1], int(TARGET[example])
        alone = [
            unbraid.attribute(form, x, target=target),
            unbraid.unravel(form, x).attribute(target),
            unbraid.all_paths(form, x, target=target),
            unbraid.all_paths(form, x, target=target, linearize="jacobian"),
        ]
        for whole, one in zip(together, alone, strict=True):
            assert error(whole.values[:, example], one.values[:, 0]) < 1e-10
            assert error(whole.constants[example], one.constants[0]) < 1e-10
        one = unbraid.value_spectrum(form, x, target=target)
        assert error(values.from_input[:, example], one.from_input[:, 0]) < 1e-10
        assert error(values.from_constants[:, example], one.from_constants[:, 0]) < 1e-10


def test_norms_at_a_block_are_means_over_the_examples(separate):
    _, form = separate
    found = unbraid.gradient_spectrum(form, X, target=TARGET, at=1)
    each = [unbraid.gradient_spectrum(form, X[b : b + 1], target=int(TARGET[b]), at=1).norms for b in range(3)]
    assert error(found.norms, torch.stack(each).mean(0)) < 1e-10
    parts = unbraid.gradient_parts(form, X, target=TARGET, at=0)
    each = [unbraid.gradient_parts(form, X[b : b + 1], target=int(TARGET[b]), at=0).norms for b in range(3)]
    assert error(parts.norms, torch.stack(each).mean(0)) < 1e-10


def test_jacobians_are_those_of_each_example(separate):
    _, form = separate
    found = derivative_chain(form, X)
    assert not found.summed
    for b in range(3):
        alone = derivative_chain(form, X[b : b + 1])
        for one, other in zip(found.factors, alone.factors, strict=True):
            assert error(one.largest[b], other.largest[0]) < 1e-9
            # Rows and columns may lie in another order: what is the same is every singular value.
            wanted = torch.linalg.svdvals(other.jacobian[0])
            assert error(torch.linalg.svdvals(one.jacobian[b]), wanted) < 1e-9


class Mixed(Encoder):
    """Attention goes over the batch: examples influence one another."""

    def forward(self, x):
        return self.head(self.encoder(x).mean(1))


class Graph(nn.Module):
    """Rows are nodes, and neighbours speak."""

    def __init__(self):
        super().__init__()
        self.layers, self.head = nn.ModuleList(nn.Linear(6, 6) for _ in range(3)), nn.Linear(6, 5)

    def forward(self, x, sends, hears):
        for layer in self.layers:
            x = x + torch.tanh(torch.zeros_like(x).index_add(0, hears, layer(x)[sends]))
        return self.head(x)


class BatchNorm(nn.Module):
    """In training the batch's own statistics join its examples."""

    def __init__(self):
        super().__init__()
        self.layer, self.norm, self.head = (
            nn.Linear(6, 6),
            nn.BatchNorm1d(6, track_running_stats=False),
            nn.Linear(6, 5),
        )

    def forward(self, x):
        h = x + torch.relu(self.norm(self.layer(x)))
        return self.head(h + torch.relu(self.norm(self.layer(h))))


EDGES = torch.tensor([0, 1, 2, 3, 4]), torch.tensor([1, 2, 3, 4, 0])
SUMMED = {
    "attention over the batch": (Mixed, (X,)),
    "nodes": (Graph, (normal(5, 6), *EDGES)),
    "batch norm": (BatchNorm, (normal(5, 6),)),
}


@pytest.mark.parametrize("name", SUMMED)
def test_where_examples_influence_one_another_the_sum_is_split(name):
    kind, args = SUMMED[name]
    model = lively(kind())
    form = unbraid.trace(model, args)
    leaf = args[0].clone().requires_grad_()
    wanted = model(leaf, *args[1:])[:, 2].sum()
    (gradient,) = torch.autograd.grad(wanted, leaf)
    everything = [
        unbraid.all_paths(form, args, target=2, linearize="jacobian"),
        unbraid.gradient_spectrum(form, args, target=2),
        unbraid.gradient_parts(form, args, target=2),
    ]
    if name != "batch norm":  # frozen, its statistics are held, and examples are separate again
        everything += [unbraid.value_spectrum(form, args, target=2), unbraid.all_paths(form, args, target=2)]
    for found in everything:
        assert found.summed
        assert found.to_dict()["summed"] is True
        assert "examples influence one another: the sum over the batch" in found.table().caption
    assert everything[0].target.shape == (1,)
    assert error(everything[0].target[0], wanted.detach()) < 1e-12
    paths = everything[0]
    assert error(paths.values.sum(), (gradient * args[0]).sum()) < 1e-10
    spectrum = everything[1]
    assert error(spectrum.total(), gradient) < 1e-10
    assert error(spectrum.norms[0], spectrum.gradients[0].norm()) < 1e-12
    chain = derivative_chain(form, args)
    assert chain.summed
    assert chain.factors[0].largest.shape == (1,)
    jacobian = torch.autograd.functional.jacobian(lambda x: model(x, *args[1:]), args[0]).reshape(-1, args[0].numel())
    product = chain.factors[0].jacobian[0]
    for factor in chain.factors[1:]:
        product = factor.jacobian[0] @ product
    assert error(product, jacobian) < 1e-10


def test_graphs_of_one_batch_are_examples():
    """Nodes of three graphs of two, three and one nodes, pooled by graph: rows of a graph are its own."""

    class Pooled(Graph):
        def forward(self, x, sends, hears, graph):
            h = x
            for layer in self.layers:
                h = h + torch.tanh(torch.zeros_like(h).index_add(0, hears, layer(h)[sends]))
            return self.head(h.new_zeros(3, 6).index_add(0, graph, h))

    model, x = lively(Pooled()), normal(6, 6)
    sends, hears = torch.tensor([0, 1, 2, 3, 4]), torch.tensor([1, 0, 3, 4, 2])
    graph = torch.tensor([0, 0, 1, 1, 1, 2])
    form = unbraid.trace(model, (x, sends, hears, graph))
    found = unbraid.all_paths(form, (x, sends, hears, graph), target=2)
    assert not found.summed
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(leaf, sends, hears, graph)[:, 2].sum(), leaf)
    jacobian = unbraid.all_paths(form, (x, sends, hears, graph), target=2, linearize="jacobian")
    along = torch.zeros(3, dtype=x.dtype).index_add(0, graph, (gradient * x).sum(1))
    assert error(jacobian.values.sum(0), along) < 1e-10
    assert error(found.values.sum(0) + found.constants, found.target) < 1e-10


def test_a_function_counts_the_examples_where_the_output_does_not_begin_with_them():
    """[positions, batch, classes] from a model that has positions first outside, too."""

    class Outside(Encoder):
        def forward(self, x):
            return self.head(self.encoder(x))

    model = lively(Outside())
    form = unbraid.trace(model, X)
    found = unbraid.all_paths(form, X, target=lambda output: output[-1].sum(-1))
    assert not found.summed
    assert error(found.values.sum(0) + found.constants, model(X)[-1].sum(-1).detach()) < 1e-10


@pytest.mark.parametrize("count", [2, 17, 300])
def test_examples_beyond_the_powers_are_told_digit_by_digit(count):
    model = lively(PositionsOutside())
    x = normal(count, 4, 6)
    form = unbraid.trace(model, x)
    found = unbraid.attribute(form, x, target=1)
    assert not found.summed
    assert error(found.total(), model(x)[:, 1].detach()) < 1e-10
    last = unbraid.attribute(form, x[-1:], target=1)
    assert error(found.values[:, -1], last.values[:, 0]) < 1e-10


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_in_coarser_types(dtype):
    model = lively(PositionsOutside()).to(dtype)
    x = X.to(dtype)
    found = unbraid.all_paths(unbraid.trace(model, x), x, target=1)
    assert not found.summed
    assert found.values.shape == (8, 3)


def test_an_example_taken_for_another_is_seen(monkeypatch):
    """Give each row to another example: what each example adds no longer sums to its target."""
    whole = _examples._owners

    def turned(numbers, gradient):
        owners = whole(numbers, gradient)
        return _examples.Owners(owners.numbers.roll(1, 0), owners.dimension) if len(gradient) == 12 else owners

    model = lively(PositionsOutside())
    form = unbraid.trace(model, X)
    monkeypatch.setattr(_examples, "_owners", turned)
    for call in (unbraid.attribute, unbraid.value_spectrum, unbraid.all_paths):
        with pytest.raises(InexactError, match=r"must sum to the target to 1e-10; they\s+depart by"):
            call(form, X, target=TARGET)
