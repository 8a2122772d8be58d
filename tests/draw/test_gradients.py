"""Figures of signals and gradients: readable at any depth and over any range."""

import math

import pytest

from draw._geometry import assert_readable, texts
from unbraid import draw

RANGES = {"narrow": lambda k: 1 + 0.1 * (k % 3), "wide": lambda k: 2.0**k, "falling": lambda k: 3.0**-k}


@pytest.mark.parametrize("depth", [1, 2, 8, 54])
@pytest.mark.parametrize("shape", RANGES)
@pytest.mark.parametrize("gradient", [True, False])
def test_signals_are_readable(depth, shape, gradient):
    values = [RANGES[shape](k) for k in range(depth)]
    figure = draw.gradients.signal(
        values, [v / 2 for v in values], values[::-1] if gradient else [math.nan] * depth, values
    )
    assert_readable(figure)
    assert len(figure.axes) == 1 + gradient
    assert figure.axes[0].get_yscale() == ("log" if max(values) > 15 * min(values) else "linear")


@pytest.mark.parametrize("depth", [1, 5, 54])
def test_the_others_are_readable(depth):
    falling = [0.9**k for k in range(depth)]
    assert_readable(draw.gradients.coherence(falling, falling[::-1]))
    assert_readable(draw.gradients.chain([f"block {k}" for k in range(depth)], [2 * v for v in falling], falling))
    steps = [10.0 ** (k - 9) for k in range(depth)][:9]
    assert_readable(draw.gradients.predictiveness(steps, falling[::-1][: len(steps)], falling[: len(steps)]))
    lags = [1.0, *falling]
    assert_readable(draw.gradients.autocorrelation(lags, [[v - 0.1, v + 0.1] for v in lags], 0.1))
    assert_readable(draw.gradients.autocorrelation(lags, [[math.nan, math.nan] for _ in lags], 0.1))


def test_titles_state_the_finding():
    assert any("8-fold" in text for text in texts(draw.gradients.signal([1.0, 8.0], [1.0, 1.0], [1.0, 1.0])))
    assert any("by 50 %" in text for text in texts(draw.gradients.predictiveness([0.1], [0.5], [0.9])))
    assert any(
        "correlate 0.25" in text
        for text in texts(draw.gradients.autocorrelation([1.0, 0.25], [[0.0, 1.0], [0.0, 1.0]], 1.0))
    )
    assert any(
        "stretch is 3-fold, in factor 1" in text
        for text in texts(draw.gradients.chain(["a", "b"], [1.0, 3.0], [0.5, 0.5]))
    )


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="as many variances as gradients"):
        draw.gradients.signal([1.0], [1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="a ratio for every cosine; got 2 for 1"):
        draw.gradients.coherence([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="two numbers a step"):
        draw.gradients.predictiveness([0.1], [], [])
    with pytest.raises(ValueError, match="a band for each of two lags"):
        draw.gradients.autocorrelation([1.0], [[0.0, 1.0]], 1.0)
    with pytest.raises(ValueError, match="two values for each of 1 factors"):
        draw.gradients.chain(["a"], [], [1.0])
