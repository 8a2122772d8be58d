"""Networks trained side by side are what `fit` makes of each alone."""

import math

import pytest
import torch
from torch import nn

from train._small import by_hand, examples, network
from unbraid import nn as unn
from unbraid import train
from unbraid.errors import CheckpointError, ShapeError
from unbraid.train import Recipe, _checkpoint

RECIPE = Recipe(epochs=3, batch_size=50, lr=0.05)


def networks(count=4, **options):
    return [
        network(seed, **{"stochastic_depth": 0.0, "norm": None, "order": "act linear +", **options})
        for seed in range(count)
    ]


def alone(made, recipes, seeds):
    return [
        train.fit(one, examples(), recipe, seed=seed) for one, recipe, seed in zip(made, recipes, seeds, strict=True)
    ]


def distance(first, second):
    """Of all parameters and buffers, the largest error relative to the tensor's largest number."""
    one, two = first.network.state_dict(), second.network.state_dict()
    assert one.keys() == two.keys()
    return max(float((one[name] - two[name]).abs().max() / two[name].abs().max().clamp_min(1e-6)) for name in one)


def assert_equal(runs, expected, tolerance=1e-4):
    assert len(runs) == len(expected)
    for run, other in zip(runs, expected, strict=True):
        assert distance(run, other) < tolerance
        assert (run.data, run.recipe, run.seed, run.diverged) == (other.data, other.recipe, other.seed, other.diverged)
        assert len(run.history) == len(other.history)
        for epoch, twin in zip(run.history, other.history, strict=True):
            assert (epoch.epoch, epoch.lr) == (twin.epoch, twin.lr)
            assert epoch.train_loss == pytest.approx(twin.train_loss, rel=tolerance)
            assert epoch.train_error == pytest.approx(twin.train_error)
            assert epoch.test_error == pytest.approx(twin.test_error)
        assert not run.network.training


MIXED = {
    "sgd": [
        Recipe(epochs=3, batch_size=50, lr=0.05),
        Recipe(epochs=3, batch_size=50, lr=0.05),
        Recipe(epochs=3, batch_size=50, lr=0.02, momentum=0.0, schedule="cosine"),
        Recipe(epochs=3, batch_size=50, lr=0.01, momentum=0.5, weight_decay=0.01, schedule="constant"),
    ],
    "adamw": [
        Recipe(epochs=3, batch_size=50, lr=0.01, optimizer="adamw"),
        Recipe(epochs=3, batch_size=50, lr=0.003, optimizer="adamw", momentum=0.5, weight_decay=0.1),
        Recipe(epochs=3, batch_size=50, lr=0.003, optimizer="adamw", momentum=0.5, weight_decay=0.1),
        Recipe(epochs=3, batch_size=50, lr=0.01, optimizer="adamw", schedule="cosine"),
    ],
}


@pytest.mark.parametrize("optimizer", MIXED)
@pytest.mark.parametrize("norm", [None, "layer", "rms", "batch"])
def test_each_is_what_fit_makes_of_it_alone(norm, optimizer):
    """Rates, schedules, momenta and seeds of their own; batch norm keeps running statistics for each."""
    options = {"norm": norm, "order": "norm act linear +"}
    recipes, seeds = MIXED[optimizer], [5, 6, 6, 8]
    runs = train.train_many(networks(**options), examples(), recipes, seeds=seeds)
    assert_equal(runs, alone(networks(**options), recipes, seeds))


def test_the_comparison_sees_another_order_of_examples():
    """The same networks with their seeds exchanged are far from what they were."""
    runs = train.train_many(networks(2), examples(), RECIPE, seeds=[0, 1])
    others = alone(networks(2), [RECIPE] * 2, [1, 0])
    assert all(distance(run, other) > 1e-2 for run, other in zip(runs, others, strict=True))


def test_scales_may_differ():
    """A constant is no parameter; it is handed in all the same."""
    scales = [0.1, 0.5, "1/sqrt(2)", 0.1]
    made = [[network(s, stochastic_depth=0.0, scale=scale) for s, scale in enumerate(scales)] for _ in range(2)]
    assert_equal(train.train_many(made[0], examples(), RECIPE, seeds=range(4)), alone(made[1], [RECIPE] * 4, range(4)))


@pytest.mark.parametrize("scale", ["learned", "zero"])
def test_parameters_of_one_number_are_stacked_too(scale):
    recipes = [MIXED["adamw"][0]] * 3
    runs = train.train_many(networks(3, scale=scale), examples(), recipes, seeds=range(3))
    assert_equal(runs, alone(networks(3, scale=scale), recipes, range(3)))


def test_plain_networks():
    made = [[one.plain() for one in networks(3)] for _ in range(2)]
    runs = train.train_many(made[0], examples(), RECIPE, seeds=range(3))
    assert_equal(runs, alone(made[1], [RECIPE] * 3, range(3)))


def test_sequences_through_convolutions_and_batch_norm():
    def made():
        options = {"inputs": 1, "classes": 3, "width": 4, "layers": 8}
        return [unn.conv1d(**options, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]

    def signals():
        return examples().shaped(1, -1)

    runs = train.train_many(made(), signals(), RECIPE, seeds=range(3))
    expected = [train.fit(one, signals(), RECIPE, seed=seed) for seed, one in enumerate(made())]
    assert_equal(runs, expected)


def test_stacks_one_after_the_other():
    runs = train.train_many(networks(5), examples(), RECIPE, seeds=range(5), together=2)
    assert_equal(runs, alone(networks(5), [RECIPE] * 5, range(5)))


@pytest.mark.parametrize("optimizer", MIXED)
def test_one_that_diverges_leaves_the_others_untouched(optimizer):
    """It ends at the step at which it ends alone, with the weights it had then; the others go on, momentum and all."""
    recipes = list(MIXED[optimizer])
    recipes[1] = Recipe(epochs=3, batch_size=50, lr=1e12 if optimizer == "sgd" else 1e30, optimizer=optimizer)
    runs = train.train_many(networks(), examples(), recipes, seeds=range(4))
    expected = alone(networks(), recipes, range(4))
    assert expected[1].diverged is not None
    assert runs[1].diverged == expected[1].diverged
    assert runs[1].history == ()
    assert math.isnan(runs[1].test_error)
    assert_equal([runs[n] for n in (0, 2, 3)], [expected[n] for n in (0, 2, 3)])


def test_the_weights_of_one_that_diverges_are_those_before_the_bad_step():
    """Labels learned at an absurd rate: what is handed back is what fit hands back."""
    recipes = [RECIPE, Recipe(epochs=3, batch_size=50, lr=1e4, momentum=0.0)]
    runs = train.train_many(networks(2), examples(), recipes, seeds=range(2))
    expected = alone(networks(2), recipes, range(2))
    assert runs[1].diverged == expected[1].diverged is not None
    for name, weight in runs[1].network.state_dict().items():
        assert torch.equal(weight.isfinite(), expected[1].network.state_dict()[name].isfinite())


def test_all_diverge():
    recipe = Recipe(epochs=3, batch_size=50, lr=1e12)
    assert all(run.diverged for run in train.train_many(networks(3), examples(), recipe, seeds=range(3)))


def test_a_network_that_is_not_finite_from_the_start():
    """Step 0 is where it diverges, and no step is taken."""
    made = networks(2)
    with torch.no_grad():
        made[0].head.bias.fill_(math.inf)
    runs = train.train_many(made, examples(), RECIPE, seeds=range(2))
    assert runs[0].diverged == 0
    assert_equal(runs[1:], alone(networks(2)[1:], [RECIPE], [1]))


def test_folders_hold_what_fit_would_have_kept(tmp_path):
    recipes = [*MIXED["adamw"][:2], Recipe(epochs=3, batch_size=50, lr=1e30, optimizer="adamw")]
    folders = [tmp_path / f"{number}" for number in range(3)]
    runs = train.train_many(networks(3), examples(), recipes, seeds=range(3), folders=folders)
    for number, (one, recipe) in enumerate(zip(networks(3), recipes, strict=True)):
        train.fit(one, examples(), recipe, seed=number, folder=tmp_path / f"alone{number}")
        kept, expected = (_checkpoint.read(tmp_path / name) for name in (f"{number}", f"alone{number}"))
        assert kept.description == expected.description
        assert kept.diverged == expected.diverged == runs[number].diverged
        assert len(kept.history) == len(expected.history)
        assert kept.slots.keys() == expected.slots.keys()
        for name, slot in expected.slots.items():
            assert torch.allclose(kept.slots[name], slot, rtol=1e-3, atol=1e-6)
        for name, weight in expected.weights.items():
            assert torch.allclose(kept.weights[name], weight, rtol=1e-4, atol=1e-5)
        if kept.diverged is None:
            assert all(torch.equal(kept.generators[name], state) for name, state in expected.generators.items())
            assert distance(train.load(folders[number]), runs[number]) == 0
    with pytest.raises(CheckpointError, match="there is a run here already"):
        train.train_many(networks(3), examples(), recipes, seeds=range(3), folders=folders)


def test_calls_back_and_leaves_the_global_generator_alone():
    seen = []
    before = torch.get_rng_state()
    runs = train.train_many(
        networks(2), examples(), RECIPE, seeds=[3, 4], on_epoch=lambda number, epoch: seen.append((number, epoch))
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert seen == [(number, runs[number].history[epoch]) for epoch in range(3) for number in range(2)]


def test_weights_that_are_not_trained_stay():
    def made():
        both = networks(2)
        for one in both:
            one.stem.requires_grad_(False)
        return both

    before = made()[0].stem.weight.clone()
    runs = train.train_many(made(), examples(), RECIPE, seeds=range(2))
    assert torch.equal(runs[0].network.stem.weight, before)
    assert_equal(runs, alone(made(), [RECIPE] * 2, range(2)))


WIDER = [network(0, norm=None, stochastic_depth=0.0, order="act linear +", width=width) for width in (16, 17)]
REFUSED = [
    (lambda: [by_hand(0), by_hand(1)], {}, r"draw random numbers as they train \(dropout, stochastic depth\)"),
    (lambda: [network(0), network(1)], {}, "Train each with train.fit"),
    (lambda: WIDER, {}, r"Network 0 and network 1 differ at stem.*\(16, 12.* and \(17, 12"),
    (lambda: [*networks(1, depth=3), *networks(1)], {}, "Network 0 and network 1 differ at blocks.3: is there and"),
    (lambda: [*networks(1), *networks(1, activation="elu")], {}, "differ at blocks.0.branch.0.class: ReLU and ELU"),
    (lambda: [nn.Flatten(0), nn.Flatten(1)], {}, "differ at start_dim: 0 and 1"),
    (lambda: networks(1) * 2, {}, "a network is given twice"),
    (lambda: networks(2), {"seeds": [0]}, "got 2 networks, 2 recipes, 1 seeds"),
    (lambda: networks(2), {"folders": ["a"]}, "got 2 networks, 2 recipes, 2 seeds, 1 folders"),
    (lambda: networks(2), {"recipes": [RECIPE, Recipe(epochs=9, batch_size=50)]}, "have one epochs; .* 3 and 9"),
    (lambda: networks(2), {"together": 0}, "got 2, 0"),
    (list, {"seeds": []}, "needs 1 network or more"),
]


@pytest.mark.parametrize(("made", "options", "text"), REFUSED)
def test_refusals_say_why(made, options, text):
    with pytest.raises(ValueError, match=text):
        train.train_many(made(), examples(), **{"recipes": RECIPE, "seeds": [0, 1], **options})


def test_networks_that_do_not_fit_the_data():
    made = [unn.mlp(inputs=11, classes=3, depth=2, norm=None) for _ in range(2)]
    with pytest.raises(ShapeError, match=r"does not take the inputs of thirds, \[1, 12\]"):
        train.train_many(made, examples(), RECIPE, seeds=[0, 1])
