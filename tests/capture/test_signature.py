"""A form is called as the model is called: by name, by position, with what was traced filled in."""

import pytest
import torch
from torch import nn

from networks import error, lively, mlp, normal
from unbraid.errors import ShapeError
from unbraid.form import trace

X = normal(3, 6)
MASK = normal(3, 6, seed=1)


class Options(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = mlp(6)

    def forward(self, x, mask=None, *, scale: float = 1.0, use_cache=False):
        h = x + scale * self.f(x)
        return h if mask is None else h * mask


@pytest.fixture(scope="module")
def model():
    return lively(Options())


@pytest.fixture(scope="module")
def form(model):
    return trace(model, X, {"scale": 2.0, "use_cache": False})


@pytest.fixture(scope="module")
def masked(model):
    return trace(model, (X,), {"mask": MASK})


SIGNATURE = r"\(x: float64\[batch, 6\], scale: 2\.0, use_cache: False\)"


def test_traced_constants_are_filled_in(model, form):
    assert error(form(X), model(X, scale=2.0)) < 1e-12
    assert error(form(x=X, scale=2.0), model(X, scale=2.0)) < 1e-12


def test_by_position_and_by_name(model, masked):
    expected = model(X, MASK)
    for found in (masked(X, MASK), masked(X, mask=MASK), masked(mask=MASK, x=X)):
        assert error(found, expected) < 1e-12


def test_a_mapping_is_keyword_arguments(model):
    form = trace(model, {"x": X, "mask": MASK})
    assert error(form(x=X, mask=MASK), model(X, MASK)) < 1e-12
    assert form.verify({"x": X, "mask": MASK}).error < 1e-12


def test_an_unknown_argument(form):
    with pytest.raises(TypeError, match=rf"knows no argument 'foo': it was traced as {SIGNATURE}\. Trace again"):
        form(X, foo=1)


def test_an_argument_that_was_not_traced(form):
    with pytest.raises(TypeError, match=rf"knows no argument 'mask': it was traced as {SIGNATURE}\."):
        form(X, X)


def test_a_missing_argument(form):
    with pytest.raises(TypeError, match=rf"needs the argument 'x'\. It was traced as {SIGNATURE}\."):
        form()


def test_an_argument_given_twice(form):
    with pytest.raises(TypeError, match=r"got \['x'\] both by position and by name"):
        form(X, x=X)


def test_too_many_arguments(form):
    with pytest.raises(TypeError, match=r"takes 2 positional arguments, 3 came"):
        form(X, X, X)


def test_another_constant(form):
    with pytest.raises(
        TypeError, match=r"traced with scale=2\.0, and 3\.0 came: the graph has the traced value built in"
    ):
        form(X, scale=3.0)
    with pytest.raises(TypeError, match=r"traced with use_cache=False, and True came"):
        form(X, use_cache=True)


def test_a_fixed_size(form):
    with pytest.raises(ShapeError, match=r"traced  \['batch', 6\]\n  came    \[3, 5\]") as caught:
        form(X[:, :5])
    assert caught.value.shapes["came"] == (3, 5)


def test_another_rank(form):
    with pytest.raises(ShapeError, match=r"came    \[1, 3, 6\]"):
        form(X[None])


def test_another_type(form):
    with pytest.raises(TypeError, match=r"'x' must be float64\[batch, 6\], and torch\.float32 came"):
        form(X.float())
    with pytest.raises(TypeError, match=r"'x' must be a tensor, int came"):
        form(3)


def test_a_structure_of_inputs():
    class Nest(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = mlp(6)

        def forward(self, pair, more):
            h = pair[0] * more["gain"] + pair[1]
            return h + self.f(h)

    model = lively(Nest())
    gain = normal(3, 6, seed=2)
    form = trace(model, ((X, MASK),), {"more": {"gain": gain}})
    assert error(form((MASK, gain), more={"gain": X}), model((MASK, gain), {"gain": X})) < 1e-12
    with pytest.raises(TypeError, match="'pair' has another structure"):
        form([X, MASK, X], more={"gain": X})


def test_integers_are_free_in_size():
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.f = nn.Embedding(7, 6), mlp(6)

        def forward(self, ids):
            h = self.embed(ids)
            return h + self.f(h)

    model = lively(Words())
    form = trace(model, torch.arange(6).view(2, 3))
    ids = torch.arange(20).view(4, 5) % 7
    assert error(form(ids), model(ids)) < 1e-12
    assert form.sources == ("embedding",)
