"""Circuits that are known by construction: edges that are there score above all that are not, which score nothing."""

import math
from functools import cache

import pytest
import torch

import unbraid
from known_circuits import KNOWN, auroc
from patching import EFFECTS, assert_effects


@cache
def traced(name):
    known = KNOWN[name]()
    return known, unbraid.trace(known.model, (known.clean,))


def table_of(known, size):
    """Which cells of [writers, readers] hold a true edge."""
    table = torch.zeros(size, size, dtype=torch.bool)
    for writer, reader in known.edges:
        table[0 if writer == "input" else writer + 1, size - 1 if reader == "head" else reader] = True
    return table


def by_hand(known, method):
    program = known.model.program()
    with torch.no_grad():
        instead = program.written(known.corrupt)
    return EFFECTS[method](program, known.clean, instead, known.target)


def assert_known(effects, known):
    """The area is 1, what is no edge is zero, and every edge is well above it."""
    truth, possible = table_of(known, len(effects)), ~effects.isnan()
    scores, true = effects[possible].abs(), truth[possible]
    assert true.sum() == len(known.edges)
    assert (~true).sum() > 0
    assert scores[~true].max() < 1e-12
    assert scores[true].min() > 1e-3
    assert auroc(scores, true) == 1.0


def named(known, study):
    """The true edges by the study's names."""
    names = {"input": "input", "head": "head", **dict(enumerate(study.writers[1:]))}
    return {(names[writer], names[reader]) for writer, reader in known.edges}


@pytest.mark.parametrize("name", KNOWN)
def test_the_network_does_what_its_weights_say(name):
    known = KNOWN[name]()
    assert torch.equal(known.model.program()(known.clean), known.model(known.clean))
    values = known.target(known.model(known.clean)) - known.target(known.model(known.corrupt))
    assert values.abs().min() > 0.1
    if name == "induction":
        logits = known.model(known.clean)[:, -1]
        assert logits.argmax(-1).tolist() == [1, 2]


@pytest.mark.parametrize("method", EFFECTS)
@pytest.mark.parametrize("name", KNOWN)
def test_the_oracle_finds_the_known_edges(name, method):
    known = KNOWN[name]()
    assert_known(by_hand(known, method).mean(-1), known)


@pytest.mark.parametrize("method", EFFECTS)
@pytest.mark.parametrize("name", KNOWN)
def test_edges_find_the_known_ones(name, method):
    known, form = traced(name)
    study = unbraid.edges(form, known.clean, known.corrupt, target=known.target, method=method)
    assert_known(study.effects, known)
    assert_effects(study, by_hand(known, method))
    circuit = study.circuit(len(known.edges)).edges
    assert set(circuit) == named(known, study)
    assert len(circuit) == len(known.edges)
    strengths = [abs(study.effects[study.writers.index(w), study.readers.index(r)].item()) for w, r in circuit]
    assert strengths == sorted(strengths, reverse=True)


@pytest.mark.parametrize("name", ["sum of two", "correction"])
def test_whole_share_is_the_known_circuit(name):
    """Edges without an effect add nothing to a share."""
    known, form = traced(name)
    study = unbraid.edges(form, known.clean, known.corrupt, target=known.target, method="exact")
    assert set(study.circuit(share=1 - 1e-9).edges) == named(known, study)
    assert set(study.circuit(share=0.5).edges) <= named(known, study)


def test_the_area_counts_pairs():
    assert auroc(torch.tensor([3.0, 1.0, 2.0, 0.0]), torch.tensor([True, False, False, False])) == 1.0
    assert auroc(torch.tensor([1.0, 1.0, 2.0]), torch.tensor([True, False, False])) == 0.25
    assert math.isclose(auroc(torch.tensor([2.0, 1.0]), torch.tensor([False, True])), 0.0)
