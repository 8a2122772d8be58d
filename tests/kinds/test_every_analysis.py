"""Every analysis on every kind of skip and join, against the story of the network, its marks and autograd."""

import copy
import io
import itertools

import pytest
import torch
from rich.console import Console
from torch import nn
from torch.nn.functional import cross_entropy

import unbraid
from kinds import dense, gates, highways, mixes, stacks, two_trunks, unets
from kinds.told import Dropped, Skipless, Verbs, first
from networks import error, normal
from unbraid.pruning import pruning

CASES = {
    "highway": highways.CASES["x + t(f - x)"],
    "ReZero": gates.CASES["ReZero"],
    "static hyper-connections": mixes.CASES["static"],
    "mHC": mixes.CASES["doubly stochastic, einsum"],
    "mHC folded into the batch": mixes.CASES["doubly stochastic, attention, folded into the batch"],
    "DenseNet": dense.CASES["growing"],
    "DenseNet of images": dense.CASES["of images"],
    "U-Net": unets.CASES["3 levels"],
    "attention over depth": stacks.CASES["stacked anew"],
    "reversible": two_trunks.CASES["reversible"],
    "nodes and edges": two_trunks.CASES["nodes and edges"],
}
QUICK = ("highway", "mHC", "DenseNet", "U-Net", "reversible")
# The modules of the last block's branch, whose story is short enough to be named here.
LAST = {"highway": ("f.2", "t.2"), "mHC": ("f.2", "mix.2"), "DenseNet": ("f.2",), "reversible": ("g.2",)}


class Recorded(Verbs):
    """What the skip and the branch of each block give."""

    def __init__(self):
        self.skips, self.branches = {}, {}

    def __call__(self, name, branch):
        self.branches[name] = branch
        return branch

    def skip(self, name, skip):
        self.skips[name] = skip
        return skip


class SkipOfOthers(Verbs):
    """The skip of a block is its mean over the batch."""

    def __init__(self, name):
        self.name = name

    def skip(self, name, skip):
        return skip.mean(0, keepdim=True).expand_as(skip) if name == self.name else skip


def batch(case, size=4):
    inputs = tuple(normal(size, *x.shape[1:], seed=7 + k) for k, x in enumerate(case.inputs))
    return inputs, torch.arange(size) % 3


def loss(output, labels):
    return cross_entropy(first(output), labels)


def told(case, verbs):
    inputs, labels = batch(case)
    with torch.no_grad():
        return float(loss(case.network.told(verbs, *inputs), labels))


def of_terms(case):
    """Terms, their contributions, streamed or not, and the terms of one term's input."""
    terms = unbraid.unravel(case.form, case.inputs)
    parts, streamed = terms.attribute(1), unbraid.attribute(case.form, case.inputs, target=1)
    assert error(parts.total(), case.run(*case.inputs)[:, 1]) < 1e-10
    assert error(streamed.values, parts.values) < 1e-10
    assert streamed.names == parts.names
    inner = terms[case.form.blocks[-1]].unravel()
    assert error(inner.total(), inner.stream) < 1e-10


def of_places(case):
    """The gradient at each sum, and at the last block that of its parameters by autograd."""
    for block in case.form.all_blocks:
        assert unbraid.gradient_spectrum(case.form, case.inputs, target=1, at=block).error < 1e-10
    names = next((LAST[name] for name in LAST if CASES[name] is case), None)
    if names is None:
        return
    parameters = [p for n, p in case.network.named_parameters() if n.startswith(tuple(f"{name}." for name in names))]
    gradients = torch.autograd.grad(first(case.network(*case.inputs))[:, 1].sum(), parameters)
    found = unbraid.gradient_spectrum(case.form, case.inputs, target=1, at=len(case.names) - 1).parameter_norms
    assert float(found[0]) == pytest.approx(float(torch.cat([g.flatten() for g in gradients]).norm()), rel=1e-10)


def of_paths(case):
    """All paths, in both linearisations; those of one's own choice are the same."""
    for linearize in ("frozen", "jacobian"):
        paths = unbraid.all_paths(case.form, case.inputs, target=1, linearize=linearize)
        assert len(paths) == sum(case.form.path_counts())
        if len(case.form.trunks) == 1:
            options = {"masks": paths.masks, "target": 1, "linearize": linearize}
            assert error(unbraid.paths.chosen_paths(case.form, case.inputs, **options).values, paths.values) < 1e-10


def of_lesions(case):
    """Branches and skips, left out or replaced by their mean, against the story."""
    parts = [batch(case)]
    blocks = [block.index for block in case.form.all_blocks]
    found = unbraid.lesion(case.form, parts, loss, sets=[(k,) for k in blocks]).metrics
    assert found == pytest.approx([told(case, Dropped(name)) for name in case.every], rel=1e-10)
    if not _skips(case):
        return
    skips = [((k, "skip"),) for k in blocks]
    found = unbraid.lesion(case.form, parts, loss, sets=skips).metrics
    assert found == pytest.approx([told(case, Skipless(name)) for name in case.every], rel=1e-10)
    if case is not CASES["mHC folded into the batch"]:  # no dimension counts its examples
        found = unbraid.lesion(case.form, parts, loss, sets=skips, replace="mean").metrics
        assert found == pytest.approx([told(case, SkipOfOthers(name)) for name in case.every], rel=1e-10)


def of_ranks(case):
    """Influence is 1 − cos(S h, S h + f), side by side 1 − cos([S h, 0], [S h, f])."""
    measured = recorded(case)
    found = unbraid.rank(case.form, [batch(case)], over="example").scores.tolist()
    for name, block, score in zip(case.names, case.form.blocks, found, strict=True):
        if name not in measured.skips or case is CASES["mHC folded into the batch"]:
            assert score == score
            continue
        s, f = (side[name].flatten(1) for side in (measured.skips, measured.branches))
        along = (s * (s if block.join == "concatenation" else s + f)).sum(1)
        after = (s.square().sum(1) + f.square().sum(1)).sqrt() if block.join == "concatenation" else (s + f).norm(dim=1)
        assert score == pytest.approx(1 - float((along / s.norm(dim=1) / after).mean()), rel=1e-10)


def of_signals(case):
    """The variances of skip and branch are theirs alone, whatever lies beside them."""
    measured, found = recorded(case), unbraid.signal(case.form, [batch(case)], loss=None)
    for k, name in enumerate(case.names):
        for side, moments in ((measured.skips, found.skip), (measured.branches, found.branch)):
            if name in side and case is not CASES["DenseNet of images"]:
                expected = side[name].flatten(0, -2).var(0, correction=0).mean()
                assert float(moments.variance[k]) == pytest.approx(float(expected), rel=1e-10)
        assert (case.form.blocks[k].join == "concatenation") == bool(found.correlation[k].isnan())


def of_pruning(case):
    """The model without each block is of its own class, and computes the story without it."""
    for k, name in enumerate(case.every):
        made = pruning(case.network, case.form, [k])
        assert made.how != "graph", made.refused
        with torch.no_grad():
            assert error(first(made.model(*case.inputs)), case.network.told(Dropped(name), *case.inputs)) < 1e-10


def of_pictures(case):
    """All that is printed or drawn of a form, and of what is measured on it."""
    form = case.form
    console = Console(file=io.StringIO(), width=160)
    found = [form, unbraid.signal(form, [batch(case)]), unbraid.lesion(form, [batch(case)], loss)]
    for result in found:
        console.print(result.table())
        assert result.plot().axes
    console.print(form.tree())
    assert all(block.name in console.file.getvalue() for block in form.blocks)


CHECKS = (of_terms, of_places, of_paths, of_lesions, of_ranks, of_signals, of_pruning, of_pictures)
EVERY_RUN = (of_places, of_lesions, of_ranks, of_signals)


def recorded(case):
    verbs, (inputs, _) = Recorded(), batch(case)
    with torch.no_grad():
        case.network.told(verbs, *inputs)
    return verbs


def _skips(case):
    return case.every == [*recorded(case).skips] or {*case.every} == {*recorded(case).skips}


def asked():
    every = itertools.product(CASES, CHECKS)
    long = {("mHC", of_places)}
    return [
        _asked(name, check, name in QUICK and check in EVERY_RUN and (name, check) not in long) for name, check in every
    ]


def _asked(name, check, quick):
    return pytest.param(name, check, id=f"{name}: {check.__name__}", marks=[] if quick else pytest.mark.slow)


@pytest.mark.parametrize(("name", "check"), asked())
def test_an_analysis(name, check):
    check(CASES[name])


def exchanged(case, letters, a, b):
    """The network with the modules of two blocks exchanged."""
    other = copy.deepcopy(case.network)
    for name, part in other.named_children():
        if isinstance(part, nn.ModuleList) and name[0] == letters:
            part[a], part[b] = part[b], part[a]
    return other


@pytest.mark.parametrize(
    "name",
    [
        "reversible",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("simultaneous", "two chains", "nodes and edges")),
    ],
)
def test_blocks_of_interleaved_trunks_change_places(name):
    """A block reads the other trunk at its state when it runs, and a deletion commutes with the order."""
    case = two_trunks.CASES[name]
    assert case.form.interchangeable() == [[0, 2, 4], [1, 3, 5]]
    for order, letter in (([4, 1, 2, 3, 0, 5], "f"), ([0, 5, 2, 3, 4, 1], "g")):
        moved = case.form.reorder(order)
        with torch.no_grad():
            assert error(moved(*case.inputs), exchanged(case, letter, 0, 2)(*case.inputs)) < 1e-12
            assert error(moved.reorder(order)(*case.inputs), case.run(*case.inputs)) < 1e-12
            for block in range(4):  # without the last nodes nothing reads the last edges
                both = moved.without(block)(*case.inputs), case.form.without(block).reorder(order)(*case.inputs)
                assert error(*both) < 1e-12


def test_the_identity_in_the_place_of_a_gated_block():
    """replace="identity" leaves x, where "zero" leaves (1 − t)·x: the gate shut is the identity."""
    case = CASES["highway"]
    found = unbraid.lesion(case.form, [batch(case)], loss, replace="identity")
    inputs, labels = batch(case)
    for k, metric in enumerate(found.metrics):
        shut = copy.deepcopy(case.network)
        shut.t[k].weight.data.zero_()
        shut.t[k].bias.data.fill_(-1e4)
        with torch.no_grad():
            assert metric == pytest.approx(float(loss(shut(*inputs), labels)), rel=1e-10)
    assert "the identity in the place of each block" in found.caption
    with pytest.raises(ValueError, match='"identity" takes the place of whole blocks'):
        unbraid.lesion(case.form, [batch(case)], loss, sets=[((0, 0),)], replace="identity")
    dense = CASES["DenseNet"]
    with pytest.raises(unbraid.ShapeError, match=r"block 0: the identity cannot take its place: it changes the size"):
        unbraid.lesion(dense.form, [batch(dense)], loss, replace="identity")


def test_a_block_without_its_skip_cannot_lose_its_branch_too():
    """No identity takes the place of a skip that was deleted."""
    form = CASES["highway"].form.without((0, "skip"))
    with pytest.raises(IndexError, match="of block 0 neither skip nor branch would be left"):
        form.without(0)
    with pytest.raises(IndexError, match="of block 0 neither skip nor branch would be left"):
        unbraid.lesion(form, [batch(CASES["highway"])], loss)
    assert unbraid.rank(form, [batch(CASES["highway"])]).scores[0].isnan()


def test_a_signal_of_a_form_without_a_branch_or_a_skip():
    form, parts = CASES["highway"].form, [batch(CASES["highway"])]
    assert unbraid.signal(form.without(0), parts).branch.variance.isnan().tolist() == [True, False, False]
    assert unbraid.signal(form.without((0, "skip")), parts).skip.variance.isnan().tolist() == [True, False, False]


def test_blocks_of_two_trunks_have_no_influence_together():
    case = CASES["reversible"]
    assert len(unbraid.rank(case.form, [batch(case)], groups=[(0, 2), (1, 3, 5)]).scores) == 2
    with pytest.raises(ValueError, match=r"takes groups of consecutive blocks of one trunk; \[0, 1\] came"):
        unbraid.rank(case.form, [batch(case)], groups=[(0, 1)])


EQUATIONS = {
    "highway": "h1 = g1 ⊙ x + f1[x]\nh2 = g2 ⊙ h1 + f2[h1]\ny = g3 ⊙ h2 + f3[h2]",
    "mHC": "h1 = R1·x + f1[x]\nh2 = R2·h1 + f2[h1]\ny = R3·h2 + f3[h2]",
    "DenseNet": "h1 = [x, f1[x]]\nh2 = [h1, f2[h1]]\ny = [h2, f3[h2]]",
    "reversible": "a1 = a0 + f1[b0]\nb1 = b0 + f2[a1]\na2 = a1 + f3[b1]\nb2 = b1 + f4[a2]\n"
    "a3 = a2 + f5[b2]\nb3 = b2 + f6[a3]\ny = P0[a3, b3]",
}
DERIVATIVES = {
    "highway": "∂y/∂f1 = (diag(g3) + J3)·(diag(g2) + J2)",
    "mHC": "∂y/∂f1 = (R3 + J3)·(R2 + J2)",
    "DenseNet": "∂y/∂f1 = [I; J3]·[I; J2]·[0; I]",
    "reversible": "∂y/∂f1 = Σ_paths ∏_k J_k",
}


@pytest.mark.parametrize("name", EQUATIONS)
def test_the_equation_says_what_skips_and_joins_are(name):
    found = CASES[name].form.equation()
    assert found.text == EQUATIONS[name]
    assert found.derivative == DERIVATIVES[name]
    assert found.latex.count("=") == found.text.count("=")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["static hyper-connections", "mHC", "mHC folded into the batch"])
def test_the_gain_of_mixes_is_that_of_the_weights(name):
    """Learned weights alone, or streams that the skip moves to another place."""
    case = CASES[name]
    found = unbraid.gradients.skip_gain(case.form, case.inputs)
    x = case.inputs[0]
    weights, _, _ = case.network.mix[0](x.unsqueeze(-2).expand(*x.shape[:-1], mixes.STREAMS, x.shape[-1]))
    assert error(found.maps[0], weights.detach().reshape(found.maps[0].shape)) < 1e-12
    assert found.error < 1e-12


@pytest.mark.parametrize("name", ["static hyper-connections", "mHC"])
def test_contributions_by_stream_of_a_mix(name):
    """The head reads the sum of the streams: what each of them adds is its part of a term by the head's row."""
    case = CASES[name]
    terms = unbraid.unravel(case.form, case.inputs)
    attribution = terms.attribute(1, along=1)
    by_hand = terms.values @ case.network.head.weight[1]
    assert attribution.parts.shape == (*attribution.values.shape, terms.stream.shape[1])
    assert error(attribution.parts, by_hand.detach()) < 1e-10
    assert error(attribution.parts.sum(-1), attribution.values) < 1e-12


@pytest.mark.parametrize("name", QUICK)
def test_weights_may_stay_in_their_files(name, tmp_path):
    """Streamed, each segment reads its weights when its turn comes, forward and backward; the numbers are the same."""
    case = CASES[name]
    streamed = unbraid.load(case.form.save(tmp_path / "form"), stream=True)
    assert first(streamed(*case.inputs)).equal(first(case.form(*case.inputs)))
    spectra = [unbraid.gradient_spectrum(form, case.inputs, target=1) for form in (streamed, case.form)]
    assert error(spectra[0].gradients, spectra[1].gradients) < 1e-12
    values = [unbraid.attribute(form, case.inputs, target=1).values for form in (streamed, case.form)]
    assert error(*values) < 1e-12


def test_a_dimension_that_counts_the_examples_is_told():
    terms = unbraid.unravel(CASES["mHC"].form, CASES["mHC"].inputs)
    for along in (0, -3, 3, -4):
        with pytest.raises(ValueError, match=r"attribute: along is one of the dimensions \[1, 2\] of the stream"):
            terms.attribute(1, along=along)
