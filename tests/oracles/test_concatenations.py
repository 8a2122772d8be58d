"""The ledger of concatenations sees a lost block, one too many, what should be refused, and what nobody has read."""

import dataclasses
import tomllib

import pytest
import torch
from torch import nn

from networks import Chain, Does, lively, normal
from oracles.additions import Additions, Place
from oracles.concatenations import KINDS, faults, ledger
from oracles.ledger import FOLDER, Ledger
from unbraid.form import trace
from zoo.result import by_line, joined

X = normal(3, 6)
PLACE = Place("package/file.py", "Dense.forward", "torch.cat([x, self.f(x)], 1)", 7)


def dense(net, x):
    halves = torch.cat([-x[:, 3:], x[:, :3]], 1)
    return net.out(torch.cat([x, net.f(halves)], 1))


@pytest.fixture(scope="module")
def read_model():
    """A model of two concatenations that are blocks and two that are none, its form, and what it ran."""
    layers = (Does(dense, f=nn.Sequential(nn.Linear(6, 6), nn.ReLU()), out=nn.Linear(12, 6)) for _ in range(2))
    model = lively(Chain(*layers))
    with torch.no_grad(), Additions(X) as seen:
        model(X)
    halves, block = sorted(seen.concatenated, key=lambda place: place.line)
    assert seen.concatenated[halves] == seen.concatenated[block] == 2
    return trace(model, X), [*seen.concatenated.items()], (halves, block)


def found(read_model, *verdicts, blocks=None):
    form, ran, places = read_model
    lines = {place.text: verdict for place, verdict in zip(places, verdicts, strict=False)}
    said = Ledger({places[0].file: {places[0].function: lines}}, kinds=KINDS)
    counted = joined(form if blocks is None else dataclasses.replace(form, blocks=form.blocks[:blocks]))
    return list(faults(said, "model", ran, counted, by_line(form.refusals)))


def test_what_is_counted_or_passed_over_as_the_ledger_says_has_no_fault(read_model):
    assert found(read_model, "harmless: halves of one tensor, exchanged", "block") == []


def test_where_the_definition_has_two_answers_either_is_right(read_model):
    assert found(read_model, "open: for once", "open: for once") == []


def test_a_lost_block_is_seen(read_model):
    line = read_model[2][1].where
    assert found(read_model, "harmless: halves", "block", blocks=1) == [
        f"{line}: 2 concatenations are blocks by the ledger; the form counts 1 and refuses 0"
    ]


def test_a_block_too_many_is_seen(read_model):
    line = read_model[2][1].where
    for verdict in ("harmless: for once", "none: for once", "missed: for once"):
        assert found(read_model, "harmless: halves", verdict) == [
            f"{line}: no concatenation is a block by the ledger; the form counts 2"
        ]


def test_what_is_to_be_refused_and_is_passed_over_is_seen(read_model):
    line = read_model[2][0].where
    assert found(read_model, "none: for once", "block") == [
        f"{line}: 2 concatenations are to be refused by the ledger; the form refuses 0"
    ]


def test_a_line_that_nobody_has_read_is_seen_and_the_sentence_says_what_to_write(read_model):
    place = read_model[2][1]
    (fault,) = found(read_model, "harmless: halves")
    assert fault.startswith(f"{place.file}:{place.line} concatenates data 2 times and is not in the ledger: read it")
    (fault,) = faults(Ledger({}, kinds=KINDS), "model", [(PLACE, 1)], {}, {})
    assert "write its verdict to tests/zoo/ledger/concatenations/package.toml as\n" in fault
    assert tomllib.loads(fault[fault.index("\n") :]) == {PLACE.file: {PLACE.function: {PLACE.text: "block"}}}


@pytest.mark.parametrize("verdict", ["", "part: of a sum", "held: a mask", "harmless", "block: yes"])
def test_a_verdict_is_a_word_and_its_reason(verdict):
    with pytest.raises(ValueError, match="block, or none, harmless, missed or open with ': ' and why"):
        Ledger({PLACE.file: {PLACE.function: {PLACE.text: verdict}}}, kinds=KINDS)


def test_the_committed_ledger_is_sound():
    assert len(ledger().verdicts) > 150
    for file in (FOLDER / "concatenations").rglob("*.toml"):
        packages = {name.split("/")[0].removesuffix(".py") for name in tomllib.loads(file.read_text())}
        assert packages == {file.stem}
