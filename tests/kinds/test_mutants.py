"""What the comparisons with the marks must see: each of these breaks a reference in one place, and departs.

A sum over all lengths is the gradient either way; only lengths, lesions and single paths can tell.
"""

from dataclasses import replace

import pytest
import torch
from torch import sigmoid

from kinds import dense, gates, highways, mixes, two_trunks
from kinds.checks import STRUCTURE, departure
from kinds.known import Known
from kinds.mutants import MUTANTS
from kinds.told import Marked
from marks import quick
from oracles.structure import at_points
from unbraid import gradient_spectrum

SEEN = 1e-3


def at(case: Known, story, points=None):
    """The gradient at values of t, with the marks of a story."""
    network = case.network
    marked, (x,) = Marked(case.counted(False)), case.leaves()
    scalar = story(network, marked, x)[:, 1].sum()
    return at_points(marked.marks, scalar, x, points or marked.marks.met)


def most(case: Known) -> int:
    """As many points for both, so that they are the same."""
    return 3 * len(case.names)


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_departs_from_the_reference(name):
    case, mutant = MUTANTS[name]
    _, right = at(case, case.network.reference, most(case))
    _, wrong = at(case, mutant, most(case))
    assert float((right - wrong).abs().max() / right.abs().max()) > SEEN


SLOW = "a transposed mix", "a transposed mix of learned weights"


@pytest.mark.parametrize("name", quick(MUTANTS, *(name for name in MUTANTS if name not in SLOW)))
def test_the_form_departs_from_a_mutant(name):
    """And not from the reference: what is compared is the form's."""
    case, mutant = MUTANTS[name]
    gradients = gradient_spectrum(case.form, case.inputs, target=1).gradients
    assert departure(gradients, *at(case, case.network.reference)) <= STRUCTURE
    assert departure(gradients, *at(case, mutant)) > SEEN


FORGOTTEN = {
    "reversible": two_trunks.CASES["reversible"],
    "highway": highways.CASES["x + t(f - x)"],
    "DenseNet": dense.CASES["a list"],
    "hyper-connections": mixes.CASES["doubly stochastic, einsum"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FORGOTTEN)
def test_a_finder_that_forgets_a_block_is_seen(name, monkeypatch):
    """Every sum still agrees; the lengths do not."""
    from unbraid.discover._find import find
    from unbraid.form import _assemble

    case = FORGOTTEN[name]
    assert departure(gradient_spectrum(case.form, case.inputs, target=1).gradients, *case.oracle(0, False)) <= STRUCTURE

    def forgetful(*args, **more):
        finding = find(*args, **more)
        return replace(finding, blocks=finding.blocks[:-1])

    monkeypatch.setattr(_assemble, "find", forgetful)
    again = Known(lambda: case.network, case.blocks, case.counts, case.inputs)
    spectrum = gradient_spectrum(again.form, again.inputs, target=1)
    assert spectrum.error <= STRUCTURE
    assert departure(spectrum.gradients, *again.oracle(0, False)) > SEEN


def test_a_lesion_of_the_bare_identity_is_seen():
    """A gated block without its branch is (1 − t)·x, and not x."""
    case = highways.CASES["x + t(f - x)"]

    def identity(net, x, without):
        for k in range(gates.LAYERS):
            t = sigmoid(net.t[k](x))
            x = x if k == without else t * net.f[k](x) + (1 - t) * x
        return net.head(x)

    with torch.no_grad():
        for k in range(gates.LAYERS):
            found, bare = case.form.without(k)(*case.inputs), identity(case.network, *case.inputs, k)
            assert float((found - bare).abs().max() / bare.abs().max()) > SEEN
