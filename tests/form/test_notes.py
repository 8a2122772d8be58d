"""What a form says of how it was captured: why sizes are fixed, what was passed to the model, what failed."""

import re

import pytest
from torch import nn

from networks import Does, error, lively, mlp, normal, without_backward
from unbraid.capture import _capture
from unbraid.capture import _failures as _uncaptured
from unbraid.errors import InexactError, ShapeError, TraceError
from unbraid.form import chain, load, trace

X = normal(3, 6)


def decides(net, x):
    x = x + net.f(x)
    return x + net.g(x) if x.sum() > 0 else x - net.g(x)


@pytest.fixture(scope="module")
def recorded():
    model = lively(Does(decides, f=mlp(6), g=mlp(6)))
    return model, trace(model, X)


WHY = r"torch\.export could not take the model: GuardOn.*\(in the model itself, a Does, at networks\.py:\d+\)"


def test_a_recorded_run_says_that_its_sizes_are_fixed_and_why(recorded):
    _, form = recorded
    lines = str(form).splitlines()
    assert form.tracer == "dispatch"
    assert re.fullmatch(f"one recorded run, for inputs of the traced sizes alone, because {WHY}", lines[-2])
    assert "one recorded run" in form._repr_html_()
    assert form.to_dict()["notes"] == [lines[-2]]


def test_what_a_recorded_run_refuses_names_it(recorded, tmp_path):
    _, form = recorded
    with pytest.raises(TraceError, match=rf"save: this form is one recorded run(.|\n)*{WHY}"):
        form.save(tmp_path / "form")
    with pytest.raises(ShapeError, match=rf"traced  \[3, 6\]\n  came    \[2, 6\](.|\n)*{WHY}"):
        form(X[:2])
    with pytest.raises(InexactError, match=rf"or with this edit, the model's own code takes another way(.|\n)*{WHY}"):
        list(map(form, (5 * X.abs(), -5 * X.abs())))  # one of the two goes another way than X


def turns(net, x):
    h = x + net.f(x)
    return 2 * h if (h - x).abs().sum() > 1e-6 else h


def test_a_lesion_that_turns_a_decision_names_it():
    model = lively(Does(turns, f=mlp(6)))
    form = trace(model, X)
    with pytest.raises(InexactError, match=rf"with this edit(.|\n)*{WHY}"):
        form.without(0)(X)


def test_a_run_that_was_asked_for_says_so():
    model = lively(Does(lambda net, x: x + net.f(x), f=mlp(6)))
    form = trace(model, X, tracer="dispatch")
    assert form.notes == (
        "one recorded run, for inputs of the traced sizes alone, because tracer='dispatch' was asked for",
    )


def test_an_export_with_sizes_free_has_nothing_to_say():
    assert trace(lively(Does(lambda net, x: x + net.f(x), f=mlp(6))), X).notes == ()


def test_sizes_that_the_exporter_could_not_leave_free(monkeypatch):
    real = _capture._quietly

    def refuses(handed, tensors, shapes):
        if shapes is not None:
            raise RuntimeError("no free sizes today")
        return real(handed, tensors, shapes)

    monkeypatch.setattr(_capture, "_quietly", refuses)
    form = trace(lively(Does(lambda net, x: x + net.f(x), f=mlp(6))), X)
    assert form.notes == (
        "all sizes are fixed, because torch.export could not leave them free: RuntimeError: no free sizes today",
    )


class Cached(nn.Module):
    """As language models do: asked for nothing, it hands out a cache."""

    def __init__(self, default=None):
        super().__init__()
        self.f, self.default = mlp(6), default

    def forward(self, x, past_key_values=None, use_cache=None):
        h = x + self.f(x)
        return {"y": h, "cache": {h}} if use_cache is not False else {"y": h}


def test_a_cache_that_nobody_asked_for_is_left_out_and_said():
    model = lively(Cached())
    form = trace(model, X)
    assert form.tracer == "export"
    assert form.notes[0].startswith("use_cache=False was passed to the model")
    assert str(form).splitlines()[-2] == form.notes[0]
    assert form.verify(X).error <= 1e-12  # the model is asked as the form was traced
    assert error(form(X)["y"], model(X, use_cache=False)["y"]) <= 1e-12
    assert chain(model, X, layers=["f"]).notes[0].startswith("use_cache=False")


def test_a_cache_that_is_asked_for_is_the_callers():
    with pytest.raises(TraceError, match="returns a set of tensors") as caught:
        trace(lively(Cached()), X, {"use_cache": True})
    assert "dispatch" in caught.value.reasons


def test_notes_are_saved(tmp_path):
    trace(lively(Cached()), X).save(tmp_path / "form")
    assert load(tmp_path / "form").notes[0].startswith("use_cache=False was passed")


def test_constants_of_the_trace_are_those_of_the_check():
    """The form was traced with another value than the model's own default."""

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = mlp(6)

        def forward(self, x, scale=1.0):
            return x + scale * self.f(x)

    form = trace(lively(Scaled()), X, {"scale": 3.0})
    assert form.verify(X).error <= 1e-12


def test_remedies_come_first_and_never_what_has_failed():
    reasons = {"export": "RuntimeError: data-dependent Cache", "dispatch": "RuntimeError: also"}
    lines = str(_uncaptured.uncaptured(nn.Linear(2, 2), X, reasons)).splitlines()
    assert lines[1:] == [
        "  Try: Pass use_cache=False.",
        "  export: RuntimeError: data-dependent Cache",
        "  dispatch: RuntimeError: also",
    ]
    alike = {"export, sizes free": "E: one", "export": "E: one"}
    lines = str(_uncaptured.uncaptured(nn.Linear(2, 2), X, alike)).splitlines()
    assert lines[1:] == [
        "  Try: tracer='dispatch' records one real run instead.",
        "  export, sizes free and export: E: one",
    ]


def test_a_graph_in_an_error_is_not_printed():
    error = RuntimeError("\n".join(["graph():", *(f"%node_{k} : [num_users=1] = call" * 20 for k in range(200))]))
    assert len(_uncaptured.said(nn.Linear(2, 2), error)) < 400


def test_gradients_that_were_not_compared_are_said():
    form = trace(lively(Does(without_backward, f=mlp(6))), X)
    assert str(form).splitlines()[-2] == (
        "gradients were not compared: the model's own autograd raises NotImplementedError: this kernel has no backward"
    )
