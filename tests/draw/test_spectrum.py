"""Spectra as figures: readable, and honest about what was not sampled."""

import math

import pytest

from draw._geometry import assert_readable, texts
from unbraid import draw


def binomials(depth):
    return [math.comb(depth, m) for m in range(depth + 1)]


def shares(depth):
    parts = [count * 0.3**m for m, count in enumerate(binomials(depth))]
    return [part / sum(parts) for part in parts]


def said(figure):
    return " | ".join(name.split(": ", 1)[1] for name in texts(figure))


@pytest.mark.parametrize("depth", [1, 4, 16, 54, 108])
@pytest.mark.parametrize("sampled", [False, True])
def test_any_depth_is_readable(depth, sampled):
    norms = [0.3**m for m in range(depth + 1)] if sampled else None
    figure = draw.spectrum(binomials(depth), shares(depth), (0, depth // 2), norms)
    assert_readable(figure)
    assert f"of {depth} branches" in said(figure)
    assert len(figure.axes[0].lines) == (4 if sampled else 2)


def test_the_lines_are_the_numbers():
    figure = draw.spectrum([1, 2, 1], [0.5, 0.25, 0.25], (0, 2), [4.0, 1.0, 2.0])
    drawn = [list(line.get_ydata()) for line in figure.axes[0].lines]
    assert drawn[0] == pytest.approx([25, 50, 25])
    assert drawn[1] == pytest.approx([400 / 7, 100 / 7, 200 / 7])
    assert drawn[2] == pytest.approx([50, 25, 25])
    assert drawn[3] == pytest.approx([50, 25, 25])


def test_a_length_without_paths_has_no_norm():
    figure = draw.spectrum([1, 0, 1], [0.5, 0.0, 0.5], (0, 2), [1.0, math.nan, 1.0])
    assert all(math.isfinite(y) for line in figure.axes[0].lines for y in line.get_ydata())
    assert_readable(figure)


def test_values_are_readable():
    assert_readable(draw.values([1.0, -2.0, 0.5], [0.1, 0.0, -0.2]))


def test_a_section_on_paths_says_the_interval_and_the_error():
    from unbraid.reports import sections

    facts = sections.PathFacts("net", "class 3", [1, 2, 1], [4.0, 2.0, 2.0], [0.5, 0.25, 0.25], (0, 2), 1e-7, 8)
    found = sections.paths(facts)
    assert "class 3 travels paths of 0 to 2 branches, of at most 2; all 4 paths" in found.finding
    assert "1.0e-07" in found.finding
    assert [len(row) for row in found.parts[1].rows] == [4, 4, 4]
    more = sections.paths(sections.PathFacts(**{**vars(facts), "sampled": [4.0, math.nan, 1.0]}))
    assert [row[4:] for row in more.parts[1].rows] == [(4.0, 1.0), (None, None), (1.0, 0.5)]
