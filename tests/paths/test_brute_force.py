"""Every analysis of paths against brute force over the choices, on random networks in float64."""

from math import comb

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import nn

from networks import F64, Does, error, lively, mlp, normal
from plans import EVERY, chain, made, plans
from unbraid.form import trace
from unbraid.paths import all_paths, gradient_spectrum, sample_paths, value_spectrum
from woven import CLASSES, Held, Verbs

EXACT = 1e-10
VERBS = {"frozen": Held, "jacobian": Verbs}


def cotangent(batch, target):
    return torch.nn.functional.one_hot(torch.full((batch,), target), CLASSES).to(F64)


def brute(network, x, base, nested=False, target=1, at=None):
    """Masks as the library writes them, in the order of the additions, with lengths and gradients."""
    blocks = [k for k in range(len(network.operands())) if nested or k not in network.inner()]
    return {
        tuple(choice.get(k, -2) for k in blocks): (network.length(choice, nested), gradient)
        for choice, gradient in network.paths(x, cotangent(len(x), target), base, nested, at)
    }


def ordered(form, masks, nested):
    """The library numbers blocks by depth first, then by execution: its columns in the order of execution."""
    steps = [add.block for add in form.adds if nested or add.block in {b.index for b in form.blocks}]
    columns = sorted(steps)
    return [tuple(row[columns.index(block)] for block in steps) for row in masks.tolist()]


def summed(paths, count):
    like = next(iter(paths.values()))[1]
    total = torch.zeros(count, *like.shape, dtype=F64)
    for length, gradient in paths.values():
        total[length] += gradient
    return total


def agree(plan, linearize, nested, seed=0, **options):
    """all_paths against brute force: masks, lengths, values, norms, and the constants."""
    network, x, form = made(plan, seed=seed)
    expected = brute(network, x, VERBS[linearize], nested)
    found = all_paths(form, x, target=1, linearize=linearize, nested=nested, **options)
    masks = ordered(form, found.masks, nested)
    assert len(set(masks)) == len(masks)
    assert set(masks) == set(expected)
    size = max(1.0, *((g * x).sum(1).abs().max().item() for _, g in expected.values()))
    for row, mask in enumerate(masks):
        length, gradient = expected[mask]
        assert found.lengths[row] == length
        assert (found.values[row] - (gradient * x).sum(1)).abs().max() < EXACT * size
        assert abs(found.norms[row] - gradient.norm(dim=1).mean()) < EXACT * size
    output = network(x)[:, 1].detach()
    assert error(found.values.sum(0) + found.constants, output) < EXACT * size
    assert found.error < EXACT
    return network, x, form, expected


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # every example traces a network: shrinking takes minutes
)
@given(plans(), st.sampled_from(["frozen", "jacobian"]), st.booleans(), st.integers(0, 1000))
def test_every_path_of_any_network(plan, linearize, nested, seed):
    network, x, form, expected = agree(plan, linearize, nested, seed)
    count = max(length for length, _ in expected.values()) + 1
    by_length = summed(expected, count)
    if linearize == "jacobian":
        spectrum = gradient_spectrum(form, x, target=1, nested=nested)
        assert error(spectrum.gradients, by_length) < EXACT
        assert spectrum.error < EXACT
    else:
        spectrum = value_spectrum(form, x, target=1, nested=nested)
        along = (by_length * x).sum(-1)
        assert (spectrum.from_input - along).abs().max() < EXACT * max(1.0, along.abs().max().item())
        assert error(spectrum.total(), network(x)[:, 1].detach()) < EXACT * max(1.0, along.abs().max().item())
    tally = [sum(length == m for length, _ in expected.values()) for m in range(count)]
    assert list(spectrum.counts) == tally


@pytest.mark.parametrize("linearize", ["frozen", "jacobian"])
@pytest.mark.parametrize("plan", [chain(10), EVERY], ids=["chain of 10", "every kind"])
def test_every_path_of_two_large_networks(plan, linearize):
    nested = plan is EVERY
    _, x, form, expected = agree(plan, linearize, nested)
    spectrum = gradient_spectrum(form, x, target=1, nested=nested)
    if linearize == "jacobian":
        assert error(spectrum.gradients, summed(expected, len(spectrum.counts))) < EXACT
    if not nested:
        assert spectrum.counts == tuple(comb(10, m) for m in range(11))


@pytest.mark.parametrize("budget", [1, 40, 1000])
def test_paths_in_parts_are_the_same_paths(budget):
    agree(EVERY, "frozen", True, budget=budget)


def test_the_gradient_at_a_block():
    """Equation 11.6 by brute force: from the branch output of block k over the paths of the blocks after it."""
    network, x, form = made(chain(5))
    for block in range(5):
        paths = {}
        for mask, (_, gradient) in brute(network, x, Verbs, at=block).items():
            if set(mask[: block + 1]) == {-1}:  # choices before the block do not matter: one of each
                paths[mask] = (mask[block + 1 :].count(0), gradient)
        spectrum = gradient_spectrum(form, x, target=1, at=block)
        assert spectrum.counts == tuple(comb(4 - block, m) for m in range(5 - block))
        assert error(spectrum.gradients, summed(paths, 5 - block)) < EXACT


@pytest.mark.parametrize("linearize", ["frozen", "jacobian"])
def test_sampled_paths_are_rows_of_all_paths(linearize):
    _, x, form = made(EVERY)
    every = all_paths(form, x, target=1, linearize=linearize)
    sampled = sample_paths(form, x, target=1, linearize=linearize, per_length=5, chunk=7)
    rows = {tuple(mask): row for row, mask in enumerate(every.masks.tolist())}
    for row, mask in enumerate(sampled.masks.tolist()):
        at = rows[tuple(mask)]
        assert error(sampled.values[row], every.values[at]) < EXACT
        assert abs(sampled.norms[row] - every.norms[at]) < EXACT
        assert sampled.lengths[row] == every.lengths[at]


# What breaks the rules, seen.


def test_a_gate_left_live_is_seen():
    """True derivatives where factors should be held: the paths are others, and no longer sum to the output."""
    network, x, form = made(chain(3))
    live = brute(network, x, Verbs)
    found = all_paths(form, x, target=1)
    masks = ordered(form, found.masks, False)
    departs = max((found.values[r] - (live[m][1] * x).sum(1)).abs().max().item() for r, m in enumerate(masks))
    assert departs > 1e-3


def test_a_path_at_the_wrong_choice_is_seen():
    """Two paths exchanged: the sum is the same, and brute force tells them apart."""
    network, x, form = made(chain(3))
    found = all_paths(form, x, target=1, linearize="jacobian")
    expected = brute(network, x, Verbs)
    swapped = found.values[[1, 0, *range(2, 8)]]
    assert error(swapped.sum(0), found.values.sum(0)) < 1e-12
    masks = ordered(form, found.masks, False)
    assert max((swapped[r] - (expected[m][1] * x).sum(1)).abs().max().item() for r, m in enumerate(masks)) > 1e-3


@pytest.mark.slow
def test_a_block_of_more_branches_than_a_byte_counts():
    """Of 140 branches each is a choice of its own: (140 + 1)·(2 + 1) paths, whose values are the target."""

    def wide(count):
        def forward(net, x):
            return sum((branch(x) for branch in net.branches), start=x)

        return Does(forward, branches=nn.ModuleList(mlp(3) for _ in range(count)))

    form = trace(lively(nn.Sequential(wide(140), wide(2))), (normal(2, 3),))
    assert [len(block.branches) for block in form.blocks] == [140, 2]
    paths = all_paths(form, normal(2, 3), target=1)
    wanted = {(first, second) for first in range(-1, 140) for second in range(-1, 2)}
    assert {tuple(mask) for mask in paths.masks.tolist()} == wanted
    assert paths.error < 1e-10
