"""Contributions and agreement as figures."""

import math

import pytest

from draw._geometry import assert_readable, texts
from unbraid import draw


@pytest.mark.parametrize("count", [1, 5, 24, 25, 160])
def test_any_number_of_terms_is_readable(count):
    figure = draw.contributions(
        [f"layers.{k}.a long $name$" for k in range(count)], [(-1) ** k / (k + 1) for k in range(count)]
    )
    assert_readable(figure)
    assert any("The largest is layers.0" in text and "+1 of" in text for text in texts(figure))


def test_the_smallest_may_be_the_largest():
    assert any("-5 of -4" in text for text in texts(draw.contributions(["a", "b"], [1.0, -5.0])))


@pytest.mark.parametrize(("names", "values"), [([], []), (["a"], [1.0, 2.0]), (["a"], [math.nan])])
def test_contributions_that_do_not_fit_are_refused(names, values):
    with pytest.raises(ValueError, match="needs a finite value for each of"):
        draw.contributions(names, values)


@pytest.mark.parametrize("count", [1, 2, 30])
def test_agreement_is_readable(count):
    shares = [k / (count - 1) if count > 1 else 1.0 for k in range(count)]
    figure = draw.agreement(shares, [2.0 * (1 - share) for share in shares])
    assert_readable(figure)
    half = next(k for k, share in enumerate(shares) if share >= 0.5)
    assert any(f"after {half} of {count - 1} terms" in text for text in texts(figure))


def test_agreement_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="a divergence for each of 2 shares; got 1"):
        draw.agreement([0.0, 1.0], [0.0])
