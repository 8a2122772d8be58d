"""Plain networks cut at their layers: Equation 11.1, one path of length K."""

import pytest
import torch
from torch import nn

from networks import Chain, error, lively, mlp, normal
from unbraid.errors import ShapeError, TraceError
from unbraid.form import chain

X = normal(3, 6)


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([mlp(6) for _ in range(3)])
        self.norm, self.wide, self.head = nn.LayerNorm(6), nn.Linear(6, 4), nn.Linear(4, 2)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.head(torch.relu(self.wide(self.norm(x))))


@pytest.fixture(scope="module")
def model():
    return lively(Plain())


@pytest.fixture(scope="module")
def form(model):
    return chain(model, X, layers=["layers"])


def test_a_container_stands_for_its_members(form):
    names = ["layers.0", "layers.1", "layers.2"]
    assert [b.name for b in form.blocks] == names
    assert [b.branches for b in form.blocks] == [(name,) for name in names]
    assert [b.skip for b in form.blocks] == ["none"] * 3


def test_the_form_is_the_model(model, form):
    assert form.error < 1e-12
    x = normal(5, 6, seed=1)
    assert error(form(x), model(x)) < 1e-12


def test_there_is_one_path_of_length_k(form):
    assert form.path_counts() == [0, 0, 0, 1]


@pytest.mark.parametrize(
    "layers",
    [["layers.0", "layers.1", "layers.2"], ["layers.0", "layers.2"], ["norm"], ["layers.1", "wide"]],
    ids="-".join,
)
def test_layers_of_choice(model, layers):
    form = chain(model, X, layers=layers)
    assert [b.name for b in form.blocks] == layers
    assert form.path_counts() == [0] * len(layers) + [1]
    assert error(form(X), model(X)) < 1e-12


def test_the_last_layer_may_be_the_output(model):
    form = chain(model, X, layers=["layers.0", "layers.1", "layers.2", "head"])
    assert form.path_counts() == [0, 0, 0, 0, 1]
    assert error(form(X), model(X)) < 1e-12


def test_a_chain_of_a_whole_model():
    model = lively(Chain(mlp(6), mlp(6)))
    form = chain(model, X, layers=["blocks"])
    assert [b.name for b in form.blocks] == ["blocks.0", "blocks.1"]
    assert form.path_counts() == [0, 0, 1]


def test_deleting_a_layer_leaves_the_identity_in_its_place(model, form):
    for k in range(3):
        x = X
        for j, layer in enumerate(model.layers):
            x = x if j == k else layer(x)
        assert error(form.without(k)(X), model.head(torch.relu(model.wide(model.norm(x))))) < 1e-12
        assert form.without(k).path_counts() == [0, 0, 1]


def test_a_layer_that_changes_the_size_cannot_be_deleted(model):
    form = chain(model, X, layers=["layers.0", "wide"])
    with pytest.raises(
        ShapeError, match=r"layer 1 has no skip(.|\n)*in   \['batch', 6\]\n  out  \['batch', 4\]\n  Keep"
    ):
        form.without(1)


def test_an_unknown_layer(model):
    with pytest.raises(TraceError, match=r"chain: Plain has no module 'layer'\. Did you mean 'layers'"):
        chain(model, X, layers=["layer"])
    with pytest.raises(TraceError, match=r"chain: Plain has no module 'q'\.$"):
        chain(model, X, layers=["q"])


def test_a_layer_with_two_inputs():
    class Add(nn.Module):
        def forward(self, a, b):
            return torch.tanh(a * b)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.two = mlp(6), mlp(6), Add()

        def forward(self, x):
            return self.two(self.a(x), self.b(x))

    with pytest.raises(
        TraceError, match=r"layer 'two' must take one tensor that carries data and give one; 2 enter and 1"
    ):
        chain(lively(Net()), X, layers=["a", "two"])


def test_a_layer_off_the_way(model):
    """A module that the forward never calls."""
    lazy = lively(Plain())
    lazy.unused = nn.Linear(6, 6).double()
    with pytest.raises(
        TraceError, match=r"layer 'unused' must take one tensor that carries data and give one; 0 enter and 0"
    ):
        chain(lazy, X, layers=["unused"])
