"""The gradient through blocks and pairs, and spectra over time, as figures."""

import math

import pytest

from draw._geometry import assert_readable, texts
from unbraid import draw


def shares(size, *, pairs):
    return [[0.9 / (1 + abs(a - b)) if pairs or a == b else math.nan for a in range(size)] for b in range(size)]


@pytest.mark.parametrize("size", [1, 4, 54])
@pytest.mark.parametrize("pairs", [False, True])
def test_parts_of_any_depth_are_readable(size, pairs):
    names = [f"transformer.layers.{k}.a rather long name of a module $x_1$" for k in range(size)]
    figure = draw.parts(names, shares(size, pairs=pairs))
    assert_readable(figure)
    assert any("90 % of the gradient" in text for text in texts(figure))
    drawn_as_matrix = bool(figure.axes[0].images)
    assert drawn_as_matrix == (pairs and size > 1)


def test_a_matrix_of_pairs_shows_the_shares():
    figure = draw.parts(["a", "b"], [[0.5, -0.25], [-0.25, 0.75]])
    assert figure.axes[0].images[0].get_array().tolist() == [[50, -25], [-25, 75]]


def test_parts_of_the_wrong_size_are_refused():
    with pytest.raises(ValueError, match="needs a share for every pair of 2 blocks; got 1 rows"):
        draw.parts(["a", "b"], [[1.0, 1.0]])
    with pytest.raises(ValueError, match="every pair of 0 blocks"):
        draw.parts([], [])


@pytest.mark.parametrize("steps", [[0], [0, 5, 10, 100], list(range(40))])
def test_spectra_over_time_are_readable(steps):
    figure = draw.spectra(steps, [[0.2, 0.5, 0.3, 0.0, 0.0] for _ in steps])
    assert_readable(figure)
    assert any("1.1 at first, 1.1 at last" in text for text in texts(figure))
    assert figure.axes[0].get_ylim() == (-0.5, 2.5)  # lengths that carry nothing are left out
    assert "at most 4" in figure.axes[0].get_ylabel()


def test_spectra_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="one spectrum of equal length a step; got 2 steps, 1"):
        draw.spectra([0, 1], [[1.0]])
    with pytest.raises(ValueError, match="equal length"):
        draw.spectra([0, 1], [[1.0], [0.5, 0.5]])
