"""Edges of every kind of skip and join, held together by identities that know nothing of how they are computed.

- a circuit of all edges is the model; of none, at a corrupt input, the model at that input
- a circuit without one edge is the model with that edge replaced
- attribution is the derivative of running the edge
- frozen edges, with the constants, sum to what all that a reader reads changes
"""

import pytest
import torch

import unbraid
from kinds import dense, gates, highways, mixes, stacks, two_trunks, unets
from networks import error, normal
from unbraid import Circuit
from unbraid.circuits import _pull
from unbraid.errors import InexactError

CASES = {
    "highway": highways.CASES["x + t(f - x)"],
    "ReZero": gates.CASES["ReZero"],
    "mHC": mixes.CASES["doubly stochastic, einsum"],
    "DenseNet": dense.CASES["growing"],
    "U-Net": unets.CASES["3 levels"],
    "attention over depth": stacks.CASES["stacked anew"],
    "reversible": two_trunks.CASES["reversible"],
    "nodes and edges": two_trunks.CASES["nodes and edges"],
}
REPLACED = ("corrupt", "zero", "mean")


def other(case, size=1.0):
    """An input of the same sizes; near the case's own where size is small."""
    return tuple((1 - size) * x + size * normal(*x.shape, seed=9) for x in case.inputs)


def instead(case, replaced):
    return {"corrupt": other(case)} if replaced == "corrupt" else {"fill": replaced}


def study(case, replaced, **options):
    return unbraid.edges(case.form, case.inputs, target=1, **instead(case, replaced), **options)


def first(output):
    return output if isinstance(output, torch.Tensor) else output[0]


@pytest.mark.parametrize("replaced", REPLACED)
@pytest.mark.parametrize("name", CASES)
def test_a_circuit_without_one_edge_is_that_edge_replaced(name, replaced):
    case = CASES[name]
    exact = study(case, replaced, method="exact")
    every = exact.circuit(len(exact.rows()))
    whole = first(case.form(*case.inputs))[:, 1]
    for i, writer in enumerate(exact.writers):
        for j, reader in enumerate(exact.readers):
            if (writer, reader) in every:
                edges = tuple(edge for edge in every.edges if edge != (writer, reader))
                left = case.form.only(Circuit(edges, every.of), **instead(case, replaced))
                change = first(left(*case.inputs))[:, 1] - whole
                assert (change - exact.per_example[i, j]).abs().max() < 1e-12


@pytest.mark.parametrize("name", CASES)
def test_all_edges_are_the_model_and_none_the_corrupt_one(name):
    case = CASES[name]
    every = Circuit(tuple(_edges(study(case, "corrupt"))), 0)
    for replaced in REPLACED:
        whole = case.form.only(every, **instead(case, replaced))
        assert error(first(whole(*case.inputs)), first(case.form(*case.inputs))) < 1e-14
    nothing = case.form.only(Circuit((), 0), corrupt=other(case))
    assert error(first(nothing(*case.inputs)), first(case.form(*other(case)))) < 1e-12


def _edges(study):
    return [(row["writer"], row["reader"]) for row in study.rows()]


@pytest.mark.parametrize("name", CASES)
def test_attribution_is_the_derivative_of_running_an_edge(name):
    case, rests = CASES[name], []
    for size in (1e-3, 1e-4):
        options = {"corrupt": other(case, size), "target": 1}
        first_order = unbraid.edges(case.form, case.inputs, **options).effects
        exact = unbraid.edges(case.form, case.inputs, method="exact", **options).effects
        assert torch.equal(first_order.isnan(), exact.isnan())
        rests.append(float((first_order - exact).nan_to_num().abs().max()) / size)
    assert rests[1] < 0.11 * rests[0]  # the rest is of second order


@pytest.mark.parametrize("replaced", REPLACED)
@pytest.mark.parametrize("name", CASES)
def test_frozen_edges_sum_to_the_change_of_what_is_read(name, replaced):
    """Where a head is the last reader, ⟨change, gradient⟩ is what the frozen head makes of the replaced trunk."""
    case = CASES[name]
    assert study(case, replaced, method="frozen").error < 1e-12


@pytest.mark.parametrize("name", ["ReZero", "DenseNet", "reversible"])
def test_frozen_edges_to_the_head_are_direct_attribution_taken_away(name):
    """Zeros in the place of a term take away what `attribute` says that it adds: another room, which carries terms."""
    case = CASES[name]
    frozen = study(case, "zero", method="frozen")
    adds = unbraid.unravel(case.form, case.inputs).attribute(1)
    assert adds.names == frozen.writers
    assert error(frozen.per_example[:, -1], -adds.values) < 1e-10


@pytest.mark.parametrize("name", ["reversible", "mHC"])
def test_a_reader_that_is_left_out_is_seen(name, monkeypatch):
    usual = _pull.Pull.readers
    monkeypatch.setattr(_pull.Pull, "readers", lambda pull: list(usual(pull))[1:])
    with pytest.raises(InexactError, match=r"edges: the readers' parts of a gradient, and a reader's edges, must sum"):
        study(CASES[name], "corrupt")


def test_blocks_inside_branches_take_the_place_of_those_around_them():
    """A U-Net of three levels is one block and two nested ones; opened, the innermost alone writes and reads."""
    case = CASES["U-Net"]
    closed, opened = (study(case, "corrupt", nested=nested) for nested in (False, True))
    assert closed.readers[:-1] == tuple(block.name for block in case.form.blocks)
    assert opened.readers[:-1] == tuple(block.name for block in case.form.all_blocks if not block.nested)
    exact = study(case, "corrupt", nested=True, method="exact")
    every = exact.circuit(share=1.0)
    assert every.nested
    assert (
        error(first(case.form.only(every, corrupt=other(case))(*case.inputs)), first(case.form(*case.inputs))) < 1e-14
    )
