"""What the comparisons with the marks must see: each of these breaks a reference in one place, and departs.

A sum over all lengths is the gradient either way; only lengths, lesions and single paths can tell.
"""

from dataclasses import replace

import pytest
import torch
from torch import cat, sigmoid

from kinds import dense, gates, highways, mixes, one_trunk, two_trunks
from kinds.checks import STRUCTURE, departure
from kinds.known import Known
from kinds.told import Marked
from marks import quick
from oracles.structure import at_points
from unbraid import gradient_spectrum

SEEN = 1e-3


def transposed(net, mark, x):
    """R with rows and columns exchanged."""
    streams = mixes.apart(x)
    for k in range(mixes.LAYERS):
        r, p, q = net.mix[k](streams)
        z = (p.unsqueeze(-1) * streams).sum(-2)
        written = q.unsqueeze(-1) * net.f[k](z).unsqueeze(-2)
        streams = mark.gate(f"f{k}", r.mT) @ streams + mark(f"f{k}", written)
    return mixes.read(net, streams)


def counted_twice(net, mark, x):
    """The derivative of a gate is two steps: its own, and the branch's."""
    for k in range(gates.LAYERS):
        t = sigmoid(net.t[k](x))
        x = mark(f"f{k}", t * net.f[k](x)) + (1 - mark.gate(f"f{k}", mark.gate(f"f{k}", t))) * x
    return net.head(x)


def not_counted(net, mark, x):
    """The derivative of a gate is none: as if it were the skip's own."""
    for k in range(gates.LAYERS):
        t = sigmoid(net.t[k](x))
        x = mark(f"f{k}", t * net.f[k](x)) + (1 - t) * x
    return net.head(x)


def held_for_good(net, mark, x):
    """The derivative of a gate is lost."""
    for k in range(gates.LAYERS):
        t = sigmoid(net.t[k](x))
        x = mark(f"f{k}", t * net.f[k](x)) + (1 - t.detach()) * x
    return net.head(x)


def mix_not_counted(net, mark, x):
    """The derivative of R is none."""
    streams = mixes.apart(x)
    for k in range(mixes.LAYERS):
        r, p, q = net.mix[k](streams)
        z = (p.unsqueeze(-1) * streams).sum(-2)
        streams = r @ streams + mark(f"f{k}", q.unsqueeze(-1) * net.f[k](z).unsqueeze(-2))
    return mixes.read(net, streams)


def dropped(net, mark, x):
    """The last concatenation passes its skip's values, and no gradient."""
    for k in range(dense.LAYERS):
        skip = x if k < dense.LAYERS - 1 else x.detach()
        x = cat([skip, mark(f"f{k}", net.f[k](x))], -1)
    return net.head(x)


def at_another_place(net, mark, x):
    """What was appended is taken from the front."""
    for k in range(dense.LAYERS):
        f = mark(f"f{k}", net.f[k](x))
        x = cat([x, f], -1) if k else cat([f, x], -1)
    return net.head(x)


def merged(net, mark, x):
    """The head's sum of both trunks is a block, whose branch is b."""
    a = b = net.embed(x)
    for k in range(two_trunks.LAYERS):
        a = a + mark(f"F{k}", net.f[k](b))
        b = b + mark(f"G{k}", net.g[k](a))
    return net.head(a + mark("F0", b))


def missed(net, mark, x):
    """One of two trunks has no blocks."""
    a = b = net.embed(x)
    for k in range(two_trunks.LAYERS):
        a = a + mark(f"F{k}", net.f[k](b))
        b = b + net.g[k](a)
    return net.head(a + b)


def later(net, mark, x):
    """b reads what a was before."""
    a = b = net.embed(x)
    for k in range(two_trunks.LAYERS):
        f, g = mark(f"F{k}", net.f[k](b)), mark(f"G{k}", net.g[k](a))
        a, b = a + f, b + g
    return net.head(a + b)


def deepest_is_a_block(net, mark, x):
    """h1 + h3 + h4: the head's sum is a block over all."""
    h1 = net.embed(x)
    h2 = h1 + mark("f0", net.f[0](h1))
    h3 = h2 + mark("f1", net.f[1](h2))
    h4 = h3 + mark("f2", net.f[2](h3))
    return net.head(h1 + mark("f0", h3 + h4))


MUTANTS = {
    "a transposed mix": (mixes.CASES["dynamic"], transposed),
    "a transposed mix that is doubly stochastic": (mixes.CASES["doubly stochastic, einsum"], transposed),
    "a transposed mix of learned weights": (mixes.CASES["static"], transposed),
    "a mix whose derivative is not counted": (mixes.CASES["doubly stochastic, einsum"], mix_not_counted),
    "a gate counted twice": (highways.CASES["x + t(f - x)"], counted_twice),
    "a gate not counted": (highways.CASES["x + t(f - x)"], not_counted),
    "a gate held for good": (highways.CASES["x + t(f - x)"], held_for_good),
    "a dropped operand": (dense.CASES["a list"], dropped),
    "operands that have changed places": (dense.CASES["a list"], at_another_place),
    "a merge taken for a block": (two_trunks.CASES["reversible"], merged),
    "a trunk that was missed": (two_trunks.CASES["reversible"], missed),
    "a branch that reads too early": (two_trunks.CASES["reversible"], later),
    "a head taken for a block": (one_trunk.CASES["several depths"], deepest_is_a_block),
}


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


@pytest.mark.parametrize("name", quick(FORGOTTEN, "reversible"))
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
