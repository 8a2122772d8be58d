"""Figures of lesions: readable at any depth, and made of the numbers."""

import random
from itertools import combinations

import pytest

from draw._geometry import assert_readable, texts
from unbraid import draw


def said(figure):
    return " | ".join(name.split(": ", 1)[1] for name in texts(figure))


def values(count, low=0.2, high=0.9):
    rng = random.Random(count)
    return [rng.uniform(low, high) for _ in range(count)]


@pytest.mark.parametrize("depth", [1, 4, 16, 54, 110])
def test_single_lesions_at_any_depth(depth):
    metrics = values(depth)
    names = [f"layer{k // 9 + 1}.{k % 9}" for k in range(depth)]
    figure = draw.lesions(0.95, [str(k) for k in range(depth)], names, metrics)
    assert_readable(figure)
    worst = min(range(depth), key=metrics.__getitem__)
    assert f"Without {names[worst]} the metric goes from 0.95 to {metrics[worst]:.3g}" in said(figure)
    assert list(figure.axes[0].lines[-1].get_ydata()) == metrics


def test_sets_with_long_names_are_readable():
    labels = [f"{a}, {b}, {a + b}" for a in range(6) for b in range(6)]
    assert_readable(draw.lesions(1.0, labels, [f"model.$layers.{label}" for label in labels], values(36)))


@pytest.mark.parametrize("depth", [2, 12, 54])
def test_pairs_are_a_symmetric_map(depth):
    pairs = list(combinations(range(depth), 2))
    metrics = values(len(pairs))
    figure = draw.lesion_pairs(0.95, pairs, metrics)
    assert_readable(figure)
    grid = figure.axes[0].images[0].get_array()
    assert grid.shape == (depth, depth)
    assert grid[0, 1] == grid[1, 0] == metrics[0]
    assert grid.mask.diagonal().all()


def test_subsets_draw_the_means():
    kept = [0, 1, 1, 2]
    figure = draw.subsets(kept, [0.1, 0.2, 0.4, 0.9], 0.9)
    assert_readable(figure)
    assert list(figure.axes[0].lines[1].get_ydata()) == pytest.approx([0.1, 0.3, 0.9])


@pytest.mark.parametrize("tau", [[1.0, 0.9, 0.2, -0.4], [1.0]], ids=str)
def test_reorderings_draw_every_order(tau):
    metrics = values(len(tau))
    figure = draw.reorderings(tau, metrics, 0.95)
    assert_readable(figure)
    assert list(figure.axes[0].lines[0].get_ydata()) == metrics
