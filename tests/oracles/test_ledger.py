"""The ledger sees a block that a form has lost, one too many, an addition passed over, a line that nobody has read."""

import dataclasses
import tomllib

import pytest
import torch
from torch import nn

from networks import Chain, Does, lively, mlp, normal
from oracles.additions import Additions, Place
from oracles.ledger import FOLDER, Ledger, entry, faults, missed, read
from unbraid.form import trace
from zoo.result import by_line, counted

X = normal(3, 4, 6)
PLACE = Place("package/file.py", "Block.forward", "x + self.f(x)", 7)


def block(net, x):
    scores = net.q(x) + net.q(x).tanh()
    return x + net.f(x) * torch.softmax(scores, -1)


@pytest.fixture(scope="module")
def read_model():
    """A model of two blocks with a sum inside, its form, what it ran, and the ledger of its two expressions."""
    model = lively(Chain(*(Does(block, q=mlp(6), f=mlp(6)) for _ in range(2))))
    form = trace(model, X)
    with torch.no_grad(), Additions(X) as seen:
        model(X)
    inner, outer = sorted(seen.ran, key=lambda place: place.line)
    assert seen.ran[inner] == seen.ran[outer] == 2
    verdicts = {inner.text: "none: a pointwise function beside its argument", outer.text: "block"}
    return form, [*seen.ran.items()], Ledger({inner.file: {inner.function: verdicts}}), (inner, outer)


def found(form, ran, ledger):
    return list(faults(ledger, "model", ran, counted(form), by_line(form.refusals)))


def test_what_is_counted_or_refused_as_the_ledger_says_has_no_fault(read_model):
    form, ran, ledger, _ = read_model
    assert found(form, ran, ledger) == []


def test_a_lost_block_is_seen(read_model):
    form, ran, ledger, (_, outer) = read_model
    less = dataclasses.replace(form, blocks=form.blocks[:1])
    assert found(less, ran, ledger) == [f"{outer.where}: 2 blocks by the ledger; the form counts 1 and refuses 0"]


def test_an_addition_that_the_form_passes_over_is_seen(read_model):
    form, ran, ledger, (inner, _) = read_model
    silent = dataclasses.replace(form, refusals=form.refusals[1:])
    assert found(silent, ran, ledger) == [
        f"{inner.where}: 2 are to be refused by the ledger; the form counts 0 and refuses 1"
    ]


def test_a_block_too_many_is_seen(read_model):
    form, ran, _, (inner, outer) = read_model
    verdicts = {inner.text: "none: scores", outer.text: "none: for once"}
    other = Ledger({inner.file: {inner.function: verdicts}})
    assert found(form, ran, other) == [f"{outer.where}: no block by the ledger; the form counts 2"]


def test_a_line_that_nobody_has_read_is_seen_and_the_sentence_says_what_to_write(read_model):
    form, ran, ledger, (_, outer) = read_model
    key = outer.file, outer.function, outer.text
    verdict = ledger.verdicts.pop(key)
    try:
        (fault,) = found(form, ran, ledger)
    finally:
        ledger.verdicts[key] = verdict
    assert fault.startswith(f"{outer.file}:{outer.line} adds data 2 times and is not in the ledger: read it")
    said = tomllib.loads(fault[fault.index("\n") :])
    assert said == {outer.file: {outer.function: {outer.text: "block"}}}


def test_an_addition_inside_an_operator_is_seen():
    """Scores and what the queries add to them, in one fused operator: no form has a node for this addition."""
    model = lively(
        Does(
            lambda net, x: x + nn.functional.scaled_dot_product_attention(x, x, x, attn_mask=net.r(x)),
            r=nn.Linear(6, 4),
        )
    )
    form = trace(model, X)
    with torch.no_grad(), Additions(X) as seen:
        model(X)
    assert sum(seen.ran.values()) == 2
    place = max(seen.ran)
    verdicts = {one.text: "block" if one.text.startswith("x +") else "none: scores" for one in seen.ran}
    ledger = Ledger({place.file: {place.function: verdicts}})
    (fault,) = found(form, [*seen.ran.items()], ledger)
    assert "1 are to be refused by the ledger; the form counts 1 and refuses 0" in fault


def test_what_forms_are_known_to_pass_over_is_no_fault_and_is_told():
    ledger = Ledger({PLACE.file: {PLACE.function: {PLACE.text: "unseen: two branches"}}})
    assert list(faults(ledger, "model", [(PLACE, 2)], {}, {})) == []
    assert list(missed(ledger, "model", [(PLACE, 2)])) == [("file.py:7, 2 times", "unseen: two branches")]
    assert list(faults(ledger, "model", [(PLACE, 2)], {"file.py:7": 2}, {})) == [
        "file.py:7: no block by the ledger; the form counts 2"
    ]


def test_branches_that_a_larger_sum_adds_are_counted_there():
    inner, outer = dataclasses.replace(PLACE, text="a + b", line=6), PLACE
    ledger = Ledger({PLACE.file: {PLACE.function: {inner.text: "part: of the next line", outer.text: "block"}}})
    ran = [(inner, 2), (outer, 2)]
    assert list(faults(ledger, "model", ran, {"file.py:7": 4}, {})) == []
    assert list(faults(ledger, "model", ran, {"file.py:7": 3}, {})) == [
        "1 branches that the ledger calls part of a larger sum are not counted there"
    ]


def test_a_verdict_may_hold_for_some_models_and_times_alone():
    text = "missed 1 in a: spread; block 2 in a, b; none: two branches"
    ledger = Ledger({PLACE.file: {PLACE.function: {PLACE.text: text}}})
    said = {
        model: [(verdict.kind, times) for _, verdict, times in ledger.judged(model, [(PLACE, 4)])] for model in "abc"
    }
    assert said == {
        "a": [("missed", 1), ("block", 2), ("none", 1)],
        "b": [("block", 2), ("none", 2)],
        "c": [("none", 4)],
    }
    assert list(missed(ledger, "a", [(PLACE, 4)])) == [("file.py:7, 1 times", "missed: spread")]


def test_a_line_that_no_model_runs_any_more_is_named():
    ledger = Ledger({PLACE.file: {PLACE.function: {PLACE.text: "block", "y + x": "block"}}, "other/a.py": {"f": {}}})
    assert list(ledger.stale([PLACE], ["package"])) == [
        "no model runs this line of the ledger: package/file.py, Block.forward: y + x"
    ]
    assert not list(ledger.stale([PLACE], ["other"]))
    older = Ledger({}, {PLACE.file: {PLACE.function: {PLACE.text: "block"}}})
    assert not list(older.stale([], ["package"]))
    assert not list(faults(older, "model", [(PLACE, 1)], {PLACE.where: 1}, {}))


@pytest.mark.parametrize("verdict", ["", "blocks", "block: yes", "none", "held", "missed", "part", "block; none"])
def test_a_verdict_is_a_word_and_its_reason(verdict):
    with pytest.raises(ValueError, match="block, or part, none, recurrent, held, missed or unseen with ': ' and why"):
        Ledger({PLACE.file: {PLACE.function: {PLACE.text: verdict}}})


def test_the_committed_ledger_is_sound():
    assert len(read().verdicts) > 500
    for file in FOLDER.rglob("*.toml"):
        packages = {name.split("/")[0].removesuffix(".py") for name in tomllib.loads(file.read_text())}
        assert packages == {file.stem}
    place = dataclasses.replace(PLACE, text="f'{x}' + \"y\" + 'z'")
    assert tomllib.loads(entry(place, "none: a \"b\" 'c'")) == {
        place.file: {place.function: {place.text: "none: a \"b\" 'c'"}}
    }
