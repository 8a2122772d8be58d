"""What a model is given and returns may be of any class: it comes back as what it was, at any batch size."""

from collections import OrderedDict, UserDict
from dataclasses import dataclass, field
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

import unbraid
from networks import Does, error, lively, mlp, normal
from unbraid.form import load, trace

X = normal(3, 6)


@dataclass
class Answer:
    y: Tensor
    count: int = 3
    more: object = None


@dataclass(frozen=True, slots=True)
class Slotted:
    y: Tensor


class Pair(NamedTuple):
    a: Tensor
    b: object


class Cache:
    """Nothing that torch knows: tensors in lists in an attribute."""

    def __init__(self, tensor):
        self.layers, self.name = [tensor, {"twice": tensor * 2}], "cache"
        self.itself = self


@dataclass
class Output(OrderedDict):
    """As in transformers: fields that are items, too."""

    y: Tensor = None
    hidden: tuple = None
    note: str = field(default="note")

    def __post_init__(self):
        for name in ("y", "hidden"):
            if (value := getattr(self, name)) is not None:
                self[name] = value


class Rows(list):
    pass


def answers(kind, h, x):
    return {
        "dataclass": lambda: Answer(h, 3, [Slotted(x), Pair(x * 2, None)]),
        "frozen": lambda: Slotted(h),
        "output": lambda: Output(h, (x, h * 2)),
        "object": lambda: (h, Cache(x)),
        "user dict": lambda: UserDict(y=h, x=x),
        "list": lambda: Rows([h, x]),
        "maximum": lambda: (h, torch.max(x, 1)),
        "number": lambda: (h, x.shape[0]),
        "sizes": lambda: {"y": h, "shape": x.shape, "odd": 2 * x.shape[0] + 1, "half": x.shape[0] / 2},
    }[kind]()


def parts(value):
    """Class by class, by hand."""
    if isinstance(value, Tensor) or value is None or isinstance(value, int | float | str):
        return value
    if isinstance(value, Slotted):
        return Slotted, parts(value.y)
    if isinstance(value, Cache):
        return Cache, parts(value.layers), value.name
    if isinstance(value, UserDict):
        return UserDict, parts(value.data)
    items = [
        (k, parts(v))
        for k, v in (
            value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
        )
    ]
    attributes = [(k, parts(v)) for k, v in sorted(getattr(value, "__dict__", {}).items())]
    return type(value), items, attributes


def same(a, b):
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and error(a, b) <= 1e-12
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


KINDS = ["dataclass", "frozen", "output", "object", "user dict", "list", "maximum", "number", "sizes"]


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_come_back_as_what_they_were(kind):
    model = lively(Does(lambda net, x: answers(kind, x + net.f(x), x), f=mlp(6)))
    form = trace(model, X, tracer="export")
    for x in (X, normal(5, 6, seed=1)):
        assert same(parts(form(x)), parts(model(x)))


@pytest.mark.parametrize("kind", ["dataclass", "object", "number"])
def test_outputs_of_a_recorded_run(kind):
    model = lively(Does(lambda net, x: answers(kind, x + net.f(x), x), f=mlp(6)))
    form = trace(model, X, tracer="dispatch")
    assert same(parts(form(X)), parts(model(X)))


class Takes(nn.Module):
    """Names of Python's own functions, keyword-only arguments, classes."""

    def __init__(self):
        super().__init__()
        self.f = mlp(6)

    def forward(self, input, *, id, max=2, filter=None):  # noqa: A002
        h = input.y * max
        return h + self.f(h) * id.layers[0] + (0 if filter is None else filter)


def test_inputs_of_any_class():
    model = lively(Takes())
    form = trace(model, (Answer(X),), {"id": Cache(X)}, tracer="export")
    x, y = normal(5, 6, seed=1), normal(5, 6, seed=2)
    assert error(form(Answer(x), id=Cache(y)), model(Answer(x), id=Cache(y))) <= 1e-12
    with pytest.raises(TypeError, match="'id' has another structure"):
        form(Answer(x), id=y)


def test_a_number_that_is_wrong_on_purpose_is_seen():
    model = lively(Does(lambda net, x: (x + net.f(x), x.shape[0]), f=mlp(6)))
    form = trace(model, X)
    model.function = lambda net, x: (x + net.f(x), x.shape[0] + 1)
    with pytest.raises(unbraid.errors.InexactError, match="must follow the model"):
        form.verify(X)


def test_a_number_is_saved(tmp_path):
    model = lively(Does(lambda net, x: (x + net.f(x), x.shape[0], Answer(x)), f=mlp(6)))
    trace(model, X).save(tmp_path / "form")
    y, count, answer = load(tmp_path / "form")(normal(5, 6, seed=1))
    assert count == 5
    assert answer["count"] == 3
    assert error(y, model(normal(5, 6, seed=1))[0]) <= 1e-12


@pytest.mark.parametrize("name", ["input", "id", "type", "max", "filter", "print", "sum", "list"])
def test_an_argument_with_the_name_of_a_function_of_pythons(name):
    space = {}
    exec(f"def forward(self, {name}, other=None):\n    h = {name} * 1\n    h += self.f({name})\n    return h", space)
    model = lively(type("Net", (nn.Module,), {"forward": space["forward"]})())
    model.f = lively(mlp(6))
    for args, kwargs in (((X,), {}), ((), {name: X})):
        form = trace(model, args, kwargs, tracer="export")
        assert form.graph.inputs == (name,)
        assert error(form(normal(5, 6, seed=1)), model(normal(5, 6, seed=1))) <= 1e-12


class Passes(nn.Module):
    """What peft does: whatever comes is handed on."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, *args, **kwargs):
        return self.inner(*args, **kwargs)


def test_arguments_that_are_handed_on():
    model = lively(Passes(Does(lambda net, x: x + net.f(x), f=mlp(6))))
    form = trace(model, (), {"x": X}, tracer="export")
    assert form.blocks[0].name.startswith("inner")
    assert form.graph.inputs == ("x",)
    assert error(form(x=normal(5, 6, seed=1)), model(x=normal(5, 6, seed=1))) <= 1e-12
    form = trace(model, X, tracer="export")
    assert error(form(normal(5, 6, seed=1)), model(normal(5, 6, seed=1))) <= 1e-12


def writes(net, x):
    h = x * 1.0
    h += net.f(h)
    h[:, 1:3] *= 2
    return h + net.f(h)


@pytest.mark.parametrize(
    "x",
    [normal(6, 12)[:3, :6], normal(6, 3).T, normal(1, 6).expand(3, 6), normal(3, 12)[:, ::2]],
    ids=["slice", "transposed", "expanded", "thinned"],
)
@pytest.mark.parametrize("tracer", ["export", "dispatch"])
def test_an_input_that_is_not_contiguous(x, tracer):
    model = lively(Does(writes, f=mlp(6)))
    before = x.clone()
    form = trace(model, x, tracer=tracer)
    assert form.tracer == tracer
    assert error(form(x), model(x)) <= 1e-12
    assert error(form(x.clone()), model(x)) <= 1e-12
    assert torch.equal(x, before)


def test_two_inputs_that_overlap():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = mlp(6)

        def forward(self, a, b):
            h = a + self.f(b)
            h += self.f(h)
            return h

    model, whole = lively(Two()), normal(4, 6)
    form = trace(model, (whole[:3], whole[1:]))
    assert error(form(whole[1:], whole[:3]), model(whole[1:], whole[:3])) <= 1e-12


class Chooses(nn.Module):
    """An operator of higher order: its branches are graphs of their own."""

    def __init__(self):
        super().__init__()
        self.f, self.g = mlp(6), mlp(6)

    def forward(self, x):
        h = x + self.f(x)
        return h + torch.cond(h.sum() > 0, self.g, lambda h: torch.tanh(self.g(h)), (h,))


# The warning is torch's own: its compiler looks at tensors of the exporter.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_an_operator_that_calls_graphs_of_its_own():
    model = lively(Chooses())
    form = trace(model, X, tracer="export")
    assert len(form.blocks) == 2
    for x in (5 * X.abs(), -5 * X.abs()):
        assert error(form(x), model(x)) <= 1e-12
        assert unbraid.gradient_spectrum(form, x, target=0).error <= 1e-12
