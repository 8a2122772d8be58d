"""Whatever is done with a model, it is afterwards what it was before: bit for bit, with all that it holds."""

import contextlib
import itertools
import random
from functools import lru_cache
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

import unbraid
from networks import F64, Does, lively, normal
from unbraid.capture._side_run import Aside
from unbraid.capture._snapshot import Held
from unbraid.capture._untouched import untouched
from unbraid.errors import TraceError

TRACERS = ("export", "dispatch")
NOTES: dict[str, object] = {}
STEPS = 0


@lru_cache
def cached_table(size):
    return torch.arange(size, dtype=F64).sin()


class Slotted:
    __slots__ = ("calls", "table")

    def __init__(self):
        self.calls = 0


class Config:
    kinds: ClassVar[list[str]] = []

    def __init__(self):
        self.rope = {"factor": 1.0, "seen": [1, 2]}
        self.longest = 0

    def grow(self, size):
        self.longest = max(self.longest, size)
        self.rope["seen"].append(size)
        self.rope["factor"] *= 2
        self.kinds.append("grown")


def residual(self, x, extra=0.0):
    return x + torch.tanh(self.linear(x)) + 0 * x * extra


def lazy(self, x):
    if not hasattr(self, "table"):
        self.table = torch.sin(torch.arange(4, dtype=x.dtype))
    self.buffer.copy_(self.table)
    return residual(self, x, self.buffer)


def lazy_buffer(self, x):
    if "late" not in dict(self.named_buffers()):
        self.register_buffer("late", torch.ones(4, dtype=x.dtype), persistent=False)
    return residual(self, x, self.late)


def lazy_parameter(self, x):
    if not hasattr(self, "weight"):
        self.weight = nn.Parameter(torch.ones(4, dtype=x.dtype))
    return residual(self, x, self.weight.detach())


def lazy_module(self, x):
    if not hasattr(self, "late"):
        self.late = nn.Identity()
    return residual(self, self.late(x))


def replaced_buffer(self, x):
    self.buffer = self.buffer + 1
    return residual(self, x, self.buffer)


def written_buffer(self, x):
    self.buffer.add_(1)
    return residual(self, x, self.buffer)


def view_of_a_buffer(self, x):
    self.buffer[1:3] = 7
    self.buffer.view(2, 2).t().mul_(3)
    return residual(self, x, self.buffer)


def replaced_data(self, x):
    self.linear.weight.data = self.linear.weight.data.clone()
    return residual(self, x)


def written_parameter(self, x):
    with torch.no_grad():
        self.linear.weight.clamp_(-0.1, 0.1)
    return residual(self, x)


def written_through_data(self, x):
    self.linear.weight.data.clamp_(-0.1, 0.1)
    return residual(self, x)


def deleted(self, x):
    if hasattr(self, "note"):
        del self.note
    return residual(self, x)


def deleted_buffer(self, x):
    held = self.buffer
    if "buffer" in self._buffers:
        del self.buffer
        self.buffer = held
    return residual(self, x)


def containers(self, x):
    self.history.append(len(self.history))
    self.history[0] = "first"
    self.facts["calls"] = self.facts.get("calls", 0) + 1
    self.facts.pop("gone", None)
    self.shapes.add(tuple(x.shape))
    self.nested["a"][0]["b"].append(x.ndim)
    return residual(self, x)


def cache_of_tensors(self, x):
    self.cache[0].add_(1)
    self.cache.append(x.detach().sum())
    return residual(self, x, self.cache[0])


def swapped_table(self, x):
    self.rotary.inv_freq = self.rotary.inv_freq * 2
    self.rotary.scaling = 3.0
    return residual(self, x, self.rotary.inv_freq)


def configured(self, x):
    self.config.grow(x.shape[1])
    type(self.config).kinds.append("seen")
    type(self).calls = getattr(type(self), "calls", 0) + 1
    return residual(self, x)


def slotted(self, x):
    self.slotted.calls += 1
    if not hasattr(self.slotted, "table"):
        self.slotted.table = torch.ones(4, dtype=x.dtype)
    return residual(self, x, self.slotted.table)


def global_notes(self, x):
    global STEPS
    STEPS += 1
    if "table" not in NOTES:
        NOTES["table"] = torch.ones(4, dtype=x.dtype)
    return residual(self, x, NOTES["table"])


def cached(self, x):
    return residual(self, x, cached_table(4))


def default_argument(self, x, seen={}):  # noqa: B006
    if "table" not in seen:
        seen["table"] = torch.ones(4, dtype=x.dtype)
    return residual(self, x, seen["table"])


def closure():
    calls, table = 0, None

    def forward(self, x):
        nonlocal calls, table
        calls += 1
        table = torch.ones(4, dtype=x.dtype) if table is None else table
        return residual(self, x, table)

    return forward


def flags(self, x):
    self.linear.eval()
    self.train()
    self.linear.weight.requires_grad_(False)
    return residual(self, x)


def hooked(self, x):
    self.linear.register_forward_hook(lambda *_: None)
    return residual(self, x)


def drawn(self, x):
    np.random.rand()  # noqa: NPY002
    self.generator.manual_seed(3)
    self.own.random()
    self.numbers[0] += 1
    return residual(self, x)


def drawn_by_torch(self, x):
    torch.rand(3)
    torch.manual_seed(5)
    torch.nn.functional.dropout(x, 0.5, training=True)
    return residual(self, x)


def process(self, x):
    torch.set_default_dtype(torch.float16)
    torch.set_grad_enabled(False)
    return residual(self, x)


def gradients(self, x):
    self.linear.weight.grad = torch.ones_like(self.linear.weight.detach())
    return residual(self, x)


NASTY = [
    lazy, lazy_buffer, lazy_parameter, lazy_module, replaced_buffer, written_buffer, view_of_a_buffer, replaced_data,
    written_parameter, written_through_data, deleted, deleted_buffer, containers, cache_of_tensors, swapped_table,
    configured, slotted, global_notes, cached, default_argument, closure(), flags, hooked, drawn, drawn_by_torch,
    process, gradients,
]  # fmt: skip


def nasty(function):
    model = lively(Does(function, linear=nn.Linear(4, 4)))
    model.register_buffer("buffer", torch.arange(4, dtype=F64))
    model.note, model.history, model.facts, model.shapes = "kept", [0], {"gone": 1}, {(1,)}
    model.nested, model.cache = {"a": [{"b": []}]}, [torch.zeros(4, dtype=F64)]
    model.rotary, model.config, model.slotted = nn.Module(), Config(), Slotted()
    model.rotary.register_buffer("inv_freq", torch.ones(4, dtype=F64), persistent=False)
    model.generator, model.own, model.numbers = torch.Generator().manual_seed(1), random.Random(2), np.zeros(3)
    return model


def state(model):
    """All of it as plain values: an account of our own, which knows nothing of how it is kept."""
    function = model.function
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    random_states = (repr(np.random.get_state()), torch.get_rng_state().tolist())  # noqa: NPY002
    outside = (NOTES, STEPS, Config.kinds, function.__defaults__, cells, cached_table.cache_info().currsize)
    process = (torch.get_default_dtype(), torch.is_grad_enabled(), getattr(Does, "calls", None))
    return plain((*[vars(module) for module in model.modules()], random_states, outside, process))


def changes(a, b, path=""):
    """Where two accounts differ."""
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        return [found for n, both in enumerate(zip(a, b, strict=True)) for found in changes(*both, f"{path}.{n}")][:5]
    return [] if type(a) is type(b) and a == b else [f"{path}: {a!s:.80} became {b!s:.80}"]


def plain(thing):
    if isinstance(thing, torch.Tensor):
        kept = (thing.tolist(), thing.dtype, tuple(thing.stride()), thing.requires_grad, thing._version, id(thing))
        return (type(thing), kept, plain(thing.grad), thing.data_ptr())
    if isinstance(thing, torch.Generator):
        return thing.get_state().tolist()
    if isinstance(thing, random.Random):
        return thing.getstate()
    if isinstance(thing, np.ndarray):
        return thing.tolist()
    if isinstance(thing, nn.Module) or callable(thing):
        return id(thing)
    if isinstance(thing, dict):
        return [(key, plain(value)) for key, value in thing.items()]
    if isinstance(thing, list | tuple):
        return [plain(item) for item in thing]
    if isinstance(thing, set):
        return sorted(map(repr, thing))
    if isinstance(thing, Slotted):
        return (thing.calls, plain(getattr(thing, "table", None)))
    return plain(vars(thing)) if isinstance(thing, Config) else thing


@pytest.mark.parametrize("tracer", TRACERS)
@pytest.mark.parametrize("function", NASTY, ids=lambda function: function.__name__)
def test_a_trace_leaves_a_model_as_it_was(function, tracer):
    model, x = nasty(function), normal(3, 4)
    before = state(model)
    try:
        form = unbraid.trace(model, x, tracer=tracer)
    except TraceError:  # what cannot be traced is left alone, too
        assert changes(before, state(model)) == []
        return
    assert changes(before, state(model)) == []
    form.verify(x)
    if function is not process:  # which has no gradient
        unbraid.gradient_spectrum(form, x, target=0)
    assert changes(before, state(model)) == []


class Stop(BaseException):
    """As Ctrl-C is one."""


@pytest.mark.parametrize("tracer", ["auto", *TRACERS])
@pytest.mark.parametrize("error", [ValueError, Stop])
def test_where_a_trace_fails_or_is_interrupted_what_it_wrote_is_put_back(tracer, error):
    def function(self, x):
        lazy(self, x)
        containers_but_shapes(self)
        self.linear.eval()
        raise error("in the middle")

    model = nasty(function)
    before = state(model)
    with pytest.raises(TraceError if error is ValueError else Stop, match="in the middle"):
        unbraid.trace(model, normal(3, 4), tracer=tracer)
    assert changes(before, state(model)) == []


def containers_but_shapes(self):
    self.history.append(1)
    self.config.grow(4)
    self.cache[0].add_(1)


@pytest.mark.parametrize("when", range(1, 4))
def test_interrupted_at_any_run_of_the_model_it_is_as_it_was(when):
    """A trace runs a model three times: once to capture it, twice to check it."""
    runs = itertools.count(1)  # which goes on, unlike a number in a cell

    def function(self, x):
        self.linear.weight.data.mul_(0.5)
        lazy(self, x)
        if next(runs) == when:
            raise Stop
        return residual(self, x)

    model = nasty(function)
    before = state(model)
    with pytest.raises(Stop):
        unbraid.trace(model, normal(3, 4), tracer="dispatch")
    assert changes(before, state(model)) == []
    assert next(runs) == when + 1


@pytest.mark.parametrize("tracer", TRACERS)
@pytest.mark.parametrize("function", [lazy, cache_of_tensors, written_parameter, global_notes, drawn_by_torch])
def test_after_a_trace_a_model_gives_what_it_would_have_given(function, tracer):
    x = normal(3, 4)
    traced, other = nasty(function), nasty(function)
    torch.manual_seed(1)
    wanted = [other(x) for _ in range(2)]
    NOTES.clear()
    torch.manual_seed(1)
    with contextlib.suppress(TraceError):
        unbraid.trace(traced, x, tracer=tracer)
    assert all(torch.equal(traced(x), y) for y in wanted)
    assert not any(isinstance(value, FakeTensor) for value in (*vars(traced).values(), *NOTES.values()))
    NOTES.clear()


def test_a_gradient_that_waits_for_its_backward_pass_still_comes():
    """What a forward writes in place would make it fail: torch counts writes, and the count is put back, too."""
    model, x = nasty(written_parameter), normal(3, 4).requires_grad_()
    loss = model.linear(x).sum()
    unbraid.trace(model, x.detach())
    loss.backward()
    assert torch.equal(x.grad, model.linear.weight.sum(0).expand(3, 4))


def test_generators_of_python_and_numpy_are_put_back():
    """Asked of the context alone: the checker of types that runs in these tests draws numbers of its own."""
    model = nasty(lazy)
    with untouched(model):
        before = (random.getstate(), repr(np.random.get_state()))  # noqa: NPY002
        random.seed(7)
        np.random.rand()  # noqa: NPY002
        assert random.getstate() != before[0]
    assert (random.getstate(), repr(np.random.get_state())) == before  # noqa: NPY002


def test_inputs_are_as_they_were():
    model, x = lively(Does(lambda self, x: x.mul_(2) + self.linear(x).tanh(), linear=nn.Linear(4, 4))), normal(3, 4)
    before = (x.tolist(), x._version)
    form = unbraid.trace(model, x)
    assert form.error <= 1e-12
    assert (x.tolist(), x._version) == before


@given(functions=st.lists(st.sampled_from(NASTY), min_size=3, max_size=3, unique=True), tracer=st.sampled_from(TRACERS))
@settings(max_examples=4, deadline=None, derandomize=True)
def test_models_that_do_several_of_these(functions, tracer):
    def function(self, x):
        for one in functions:
            x = one(self, x)
        return x

    model, x = nasty(function), normal(3, 4)
    before = state(model)
    with contextlib.suppress(TraceError):
        unbraid.trace(model, x, tracer=tracer).verify(x)
    assert changes(before, state(model)) == []


def test_the_account_of_a_model_sees_each_of_these():
    """Else nothing above could fail."""
    unseen = []
    for function in NASTY:
        model, before = nasty(function), None
        before = state(model)
        model(normal(3, 4))
        unseen += [function.__name__] if state(model) == before else []
        torch.set_default_dtype(torch.float32)
        torch.set_grad_enabled(True)
    assert unseen == []


def test_without_the_undoing_traces_leave_marks(monkeypatch):
    monkeypatch.setattr(Held, "put_back", lambda self: None)
    monkeypatch.setattr(Aside, "put_back", lambda self: None)
    model = nasty(lazy)
    with contextlib.suppress(Exception):
        unbraid.trace(model, normal(3, 4))
    assert isinstance(model.table, FakeTensor)
