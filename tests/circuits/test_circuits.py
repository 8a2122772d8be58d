"""Circuits: which edges, how much of a metric they keep, and how scores of edges compare. Oracles: worked by hand."""

import math

import pytest
import torch
from torch import nn

import unbraid
from networks import Chain, Residual, error, lively, mlp, normal
from unbraid import Circuit
from unbraid.circuits import EdgeStudy
from unbraid.errors import DataError

NAN = math.nan
CLEAN, CORRUPT = normal(6, 6), normal(6, 6, seed=1)


@pytest.fixture(scope="module")
def form():
    return unbraid.trace(lively(nn.Sequential(Chain(*(Residual(mlp(6)) for _ in range(3))), nn.Linear(6, 3))), CLEAN)


@pytest.fixture(scope="module")
def study(form):
    return unbraid.edges(form, CLEAN, CORRUPT, target=1, method="exact")


def made(effects):
    """A study of two blocks with these effects."""
    table = torch.tensor(effects, dtype=torch.float64)
    names = ("input", "a", "b"), ("a", "b", "head")
    return EdgeStudy(*names, table, table[..., None], torch.zeros(1), 0.0, torch.zeros(3), "exact", "zero", _form=None)


SMALL = made([[5.0, -4.0, 0.5], [NAN, 3.0, 0.1], [NAN, NAN, 2.0]])


def test_the_strongest_edges_without_dead_ends():
    assert SMALL.circuit(4).edges == (("input", "a"), ("input", "b"), ("a", "b"), ("b", "head"))
    assert SMALL.circuit(3).edges == ()  # nothing reaches the head
    assert SMALL.circuit(6).edges[-1] == ("a", "head")
    lonely = made([[0.1, -4.0, 0.5], [NAN, 3.0, 0.6], [NAN, NAN, 2.0]])
    assert lonely.circuit(4).edges == (("input", "b"), ("b", "head"))  # nobody tells a, so a tells nobody


def test_a_share_takes_as_many_edges_as_it_needs():
    """Of 14.6 in all, 5 + 4 + 3 + 2 = 14 are 95.9 %."""
    assert len(SMALL.circuit(share=0.95)) == 4
    assert len(SMALL.circuit(share=0.96)) == 5
    assert len(SMALL.circuit(share=1.0)) == 6
    assert SMALL.circuit(share=1.0).share == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give a number of edges"),
        ({"n": 2, "share": 0.5}, "give a number of edges"),
        ({"n": 0}, "there are 6 edges, of which 1 to 6 can be taken; 0 came"),
        ({"n": 7}, "7 came"),
        ({"share": 0.0}, "share lies above 0 and is at most 1; 0.0 came"),
    ],
)
def test_a_circuit_that_cannot_be(arguments, message):
    with pytest.raises(ValueError, match=message):
        SMALL.circuit(**arguments)


def test_a_form_has_the_edges_of_its_circuit(form):
    with pytest.raises(ValueError, match=r"only: there is no edge from 'head' to 'input'"):
        form.only(Circuit((("head", "input"),), 10), fill="zero")
    for options in ({}, {"corrupt": CORRUPT, "fill": "zero"}):
        with pytest.raises(ValueError, match="what takes the place of other edges is corrupt=, or fill="):
            form.only(Circuit((), 10), **options)
    left = form.only(Circuit((), 10), corrupt=CORRUPT)
    with pytest.raises(unbraid.ShapeError, match="traced"):
        left(CLEAN[:4])
    with pytest.raises(ValueError, match="save: this form runs a circuit"):
        left.save("nowhere")


def test_a_circuit_unravels_like_any_form(form, study):
    left = form.only(study.circuit(6), corrupt=CORRUPT)
    terms = unbraid.unravel(left, CLEAN)
    assert terms.error < 1e-12
    spectrum = unbraid.gradient_spectrum(left, CLEAN, target=1)
    assert spectrum.error < 1e-10
    x = CLEAN.clone().requires_grad_()
    (whole,) = torch.autograd.grad(left(x)[:, 1].sum(), x)
    assert error(spectrum.total(), whole) < 1e-10
    assert sum(left.path_counts()) < sum(form.path_counts())


@pytest.mark.parametrize("block", [0, 1, 2])
def test_a_block_of_a_circuit_is_deleted_for_all_who_hear_it(form, block):
    """Where every edge of a block is replaced by zeros, it is as if the block were not there."""
    every = [(row["writer"], row["reader"]) for row in unbraid.edges(form, CLEAN, fill="zero", target=1).rows()]
    some = Circuit(tuple(edge for edge in every if edge != ("input", "head")), 10)
    name = form.blocks[block].name
    silent = Circuit(tuple(edge for edge in some.edges if edge[0] != name), 10)
    left, without = form.only(some, fill="zero").without(block)(CLEAN), form.only(silent, fill="zero")(CLEAN)
    assert error(left, without) < 1e-12
    with pytest.raises(ValueError, match="reorder before"):
        form.only(some, fill="zero").reorder([1, 0, 2])


def metric(output, labels):
    return output[torch.arange(len(output)), labels]


def test_the_ends_of_the_curve(form, study):
    """All edges keep all of the metric, none keep nothing; the areas of a straight line are a half each."""
    labels = torch.ones(len(CLEAN), dtype=torch.int64)
    curve = study.faithfulness([(CLEAN, CORRUPT, labels)], metric, sizes=(4, 10))
    assert curve.sizes[-1] == 10
    assert abs(float(curve.faithfulness[-1]) - 1) < 1e-12
    assert abs(float(curve.completeness[-1])) < 1e-12
    assert abs(curve.whole - float(form(CLEAN)[:, 1].mean())) < 1e-12
    assert abs(curve.nothing - float(form(CORRUPT)[:, 1].mean())) < 1e-12
    share, kept = curve.shares[0], float(curve.faithfulness[0])
    assert abs(curve.cpr - (share * kept / 2 + (1 - share) * (kept + 1) / 2)) < 1e-12
    below = bool((curve.low <= curve.faithfulness + 1e-12).all() and (curve.faithfulness <= curve.high + 1e-12).all())
    assert below
    ends = study.faithfulness([(CLEAN, CORRUPT, labels)], metric, sizes=(10,))
    assert abs(ends.cpr - 0.5) < 1e-12
    assert abs(ends.cmd - 0.5) < 1e-12


def test_one_circuit_by_hand(form, study):
    """f of four edges is the metric of the form that has them, between the ends."""
    labels = torch.ones(len(CLEAN), dtype=torch.int64)
    curve = study.faithfulness(
        [(CLEAN[:3], CORRUPT[:3], labels[:3]), (CLEAN[3:], CORRUPT[3:], labels[3:])], metric, (7,)
    )
    left = form.only(study.circuit(7), corrupt=CORRUPT)(CLEAN)[:, 1].mean()
    nothing, whole = form(CORRUPT)[:, 1].mean(), form(CLEAN)[:, 1].mean()
    assert abs(float(curve.faithfulness[0]) - float((left - nothing) / (whole - nothing))) < 1e-10


def test_batches_that_do_not_fit_are_told(study):
    with pytest.raises(DataError, match=r"each batch is \(clean, corrupt, labels\); batch 0 is 2 parts"):
        study.faithfulness([(CLEAN, CORRUPT)], metric)
    with pytest.raises(DataError, match="there is no batch"):
        study.faithfulness([], metric)
    with pytest.raises(ValueError, match="nothing of which a circuit could keep a share"):
        study.faithfulness([(CLEAN, CLEAN, torch.zeros(6, dtype=torch.int64))], metric)


def made_up(values):
    return torch.tensor(values, dtype=torch.float64)


def test_scores_are_compared_by_hand():
    """Ranks of |effects|: 6 5 2 4 1 3 against 6 4 2 5 1 3; the squared differences of ranks sum to 2."""
    other = made([[9.0, 3.5, 0.5], [NAN, -4.5, 0.1], [NAN, NAN, 2.0]])
    both = SMALL.compare(other, n=2)
    assert abs(both.spearman - (1 - 6 * 2 / (6 * 35))) < 1e-12
    assert both.overlap == 0.5
    a, b = (made_up([5, -4, 0.5, 3, 0.1, 2]), made_up([9, 3.5, 0.5, -4.5, 0.1, 2]))
    assert abs(both.pearson - float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < 1e-12
    assert SMALL.compare(SMALL).pearson == pytest.approx(1, abs=1e-12)


def test_how_well_scores_tell_a_known_circuit():
    """Of 2 × 4 pairs one is in the wrong order: 3 (a → b) comes after 4 (input → b)."""
    known = Circuit((("input", "a"), ("a", "b")), 6)
    assert SMALL.compare(known).auroc == 7 / 8
    assert SMALL.compare(Circuit(SMALL.circuit(4).edges, 6)).auroc == 1.0
    with pytest.raises(ValueError, match="is none of the study's"):
        SMALL.compare(Circuit((("head", "a"),), 6))


def test_studies_of_other_edges_are_not_compared(study):
    with pytest.raises(ValueError, match="both must be studies of the same edges"):
        SMALL.compare(study)


def test_edges_that_no_resample_changes_are_always_there(study):
    """With one example all resamples are that example; with several a share of them is not."""
    one = unbraid.edges(study._form, CLEAN[:1].repeat(3, 1), CORRUPT[:1].repeat(3, 1), target=1)
    sure = one.stability(4, draws=20).frequency.nan_to_num()
    assert sorted(sure[sure > 0].tolist()) == [1.0] * 4
    drawn = study.stability(4, draws=50).frequency
    assert abs(float(drawn.nan_to_num().sum()) - 4) < 1e-12
    assert torch.equal(drawn.isnan(), study.effects.isnan())


def test_what_is_asked_must_be_one_of_the_known(form):
    for options, message in (
        ({"target": 1, "corrupt": CORRUPT, "method": "patching"}, 'method is "attribution", "exact" or "frozen"'),
        ({"target": 1, "corrupt": CORRUPT, "by": "neuron"}, 'by is "block", "branch" or "head"'),
        ({"target": 1, "corrupt": CORRUPT, "steps": 0}, "steps is at least 1"),
        ({"target": 1, "corrupt": CORRUPT, "steps": 4, "method": "exact"}, 'for "attribution" alone'),
        ({"corrupt": CORRUPT}, "edges: what is explained is target, one number per example, or metric"),
        ({"target": 1}, "either a corrupt input or fill"),
        ({"target": 1, "corrupt": CORRUPT, "fill": "zero"}, "both came"),
        ({"target": 1, "fill": "noise"}, 'fill is "zero" or "mean"'),
    ):
        with pytest.raises(ValueError, match=message):
            unbraid.edges(form, CLEAN, **options)
    with pytest.raises(DataError, match="clean and corrupt inputs must have the same sizes"):
        unbraid.edges(form, CLEAN, CORRUPT[:3], target=1)


def test_a_metric_of_the_batch_is_the_mean_of_a_target(form):
    by_target = unbraid.edges(form, CLEAN, CORRUPT, target=1, method="exact")
    by_metric = unbraid.edges(form, CLEAN, CORRUPT, metric=lambda y: y[:, 1].mean(), method="exact")
    assert by_metric.per_example.shape[-1] == 1
    assert (by_metric.effects - by_target.effects).nan_to_num().abs().max() < 1e-12
    first = unbraid.edges(form, CLEAN, CORRUPT, metric=lambda y: y[:, 1].mean())
    assert (first.effects - unbraid.edges(form, CLEAN, CORRUPT, target=1).effects).nan_to_num().abs().max() < 1e-12
    with pytest.raises(unbraid.TargetError, match=r"one number for the batch, a scalar tensor; it gave \[6, 3\]"):
        unbraid.edges(form, CLEAN, CORRUPT, metric=lambda y: y)


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.f, self.head = mlp(6), nn.Linear(6, 3)

    def forward(self, x, attention_mask):
        return self.head(x + self.f(x)).sum(1) + attention_mask.sum()


def test_a_mean_leaves_out_what_the_mask_leaves_out():
    """The positions of an example that are masked count for nothing in the mean over examples."""
    model = lively(Masked())
    x, mask = normal(4, 5, 6), torch.ones(4, 5)
    mask[0, 3:] = 0
    form = unbraid.trace(model, (x, mask))
    study = unbraid.edges(form, (x, mask), target=1, fill="mean", method="exact")
    weights = mask[..., None].double()
    mean = (model.f(x) * weights).sum(0, keepdim=True) / weights.sum(0, keepdim=True)
    by_hand = model.head(x + mean.expand_as(x)).sum(1)[:, 1] + mask.sum() - model(x, mask)[:, 1]
    assert (study.per_example[1, 1] - by_hand.detach()).abs().max() < 1e-12


def test_one_path_by_hand():
    """Each writer on the path is heard by the next alone; the trunk has a ReLU behind each addition."""
    blocks = nn.ModuleList(mlp(6) for _ in range(3))

    class Rectified(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks, self.head = blocks, nn.Linear(6, 3)

        def forward(self, x):
            for block in self.blocks:
                x = torch.relu(x + block(x))
            return self.head(x)

    model = lively(Rectified())
    form = unbraid.trace(model, CLEAN)
    with torch.no_grad():
        b = [model.blocks[0](CLEAN)]
        h = [CLEAN, torch.relu(CLEAN + b[0])]
        b.append(model.blocks[1](h[1]))
        h.append(torch.relu(h[1] + b[1]))
        b.append(model.blocks[2](h[2]))
        heard = model.blocks[0](CORRUPT)
        at_last = torch.relu(torch.relu(CLEAN + heard) + b[1])
        last = model.blocks[2](at_last)
        by_hand = model.head(torch.relu(h[2] + last)) - model(CLEAN)
    names = [block.name for block in form.blocks]
    along = unbraid.path_effect(form, CLEAN, CORRUPT, ["input", names[0], names[2], "head"], target=1)
    assert (along.per_example - by_hand[:, 1]).abs().max() < 1e-12
    exact = unbraid.edges(form, CLEAN, CORRUPT, target=1, method="exact")
    for place, writer in enumerate(exact.writers[:4]):
        short = unbraid.path_effect(form, CLEAN, CORRUPT, [writer, "head"], target=1)
        assert abs(short.effect - float(exact.effects[place, -1])) < 1e-12
    for path in (["input"], ["input", names[1]], ["head", "input"], [names[2], names[0], "head"]):
        with pytest.raises(ValueError, match='path_effect: a path leads along edges from a writer to "head"'):
            unbraid.path_effect(form, CLEAN, CORRUPT, path, target=1)
