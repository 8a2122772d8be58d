"""Figures of results: readable with any names, honest about what did not train."""

import math

import matplotlib as mpl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from draw._geometry import assert_readable, texts
from unbraid import draw

NAN = math.nan
HOSTILE = ["$\\frac{", "<script>alert(1)</script>", "a" * 200, "line\nbreak", "100 % & $x$", "_", "日本"]


def said(figure):
    return " | ".join(name.split(": ", 1)[1] for name in texts(figure))


def test_terms_names_the_largest_and_its_share():
    figure = draw.terms(["x", "block 0", "block 1"], [1.0, 6.0, 3.0])
    assert_readable(figure)
    assert "largest term is block 0: 60 %" in said(figure)


@pytest.mark.filterwarnings("ignore:Glyph")
def test_terms_shows_hostile_names_as_they_stand():
    figure = draw.terms(["input", *HOSTILE], [1.0] * (len(HOSTILE) + 1))
    assert_readable(figure)
    assert "$\\frac{" in said(figure)


@pytest.mark.parametrize("count", [1, 2, 24, 25, 160])
def test_terms_of_any_number_are_readable(count):
    assert_readable(draw.terms([f"blocks.{k}" for k in range(count)], [1.0 + k % 7 for k in range(count)]))


@pytest.mark.parametrize(
    ("names", "norms", "message"),
    [
        ([], [], "0 names"),
        (["a"], [1.0, 2.0], "1 names and 2 norms"),
        (["a"], [NAN], "'a' is nan"),
        (["a"], [-1.0], "-1.0"),
    ],
)
def test_terms_refuses(names, norms, message):
    with pytest.raises(ValueError, match=message):
        draw.terms(names, norms)


def test_depth_states_the_errors_at_the_greatest_depth():
    plain = draw.DepthCurve("plain", (10, 40), ((45.0, 47.0), (91.0, 90.0)))
    residual = draw.DepthCurve("residual", (10, 40), ((34.0, 35.0), (35.0, 36.0)))
    figure = draw.depth([plain, residual])
    assert_readable(figure)
    assert "depth 40: plain 90 %, residual 36 %" in said(figure)
    assert plain.mean(0) == 46.0
    assert plain.spread(1) == (90.0, 91.0)


def test_depth_says_what_diverged():
    whole = draw.DepthCurve("residual", (10, 20), ((34.0,), (35.0,)))
    lost = draw.DepthCurve("scale 1", (10, 20), ((NAN,), (NAN,)))
    partly = draw.DepthCurve("partly", (10, 20), ((34.5, NAN), (35.2, 36.0)))
    figure = draw.depth([whole, lost, partly])
    assert_readable(figure)
    assert "scale 1 diverges" in said(figure)
    assert partly.mean(0) == 34.5


@settings(max_examples=10, deadline=None)
@given(st.lists(st.floats(0, 100), min_size=2, max_size=6))
def test_names_of_lines_never_meet(ends):
    curves = [draw.DepthCurve(f"kind {n}", (1, 2), ((50.0,), (end,))) for n, end in enumerate(ends)]
    assert_readable(draw.depth(curves))


@pytest.mark.parametrize(
    ("depths", "errors"), [((), ()), ((1, 2), ((1.0,),)), ((2, 1), ((1.0,), (1.0,))), ((1,), ((),))]
)
def test_a_curve_needs_an_error_for_every_depth(depths, errors):
    with pytest.raises(ValueError, match="DepthCurve 'plain'"):
        draw.DepthCurve("plain", depths, errors)


def test_paths_state_their_sum_and_that_of_each_length():
    figure = draw.paths([0, 1, 1, 2], [1.0, 2.0, -0.5, 4.0])
    assert_readable(figure)
    assert "4 paths add up to 6.5" in said(figure)
    assert "1\nsum\n1.5" in said(figure)


@pytest.mark.parametrize(
    ("lengths", "values"), [([], []), ([0], [1.0, 2.0]), ([0], [math.inf]), ([0] * 65, [1.0] * 65)]
)
def test_paths_refuses(lengths, values):
    with pytest.raises(ValueError, match="paths: "):
        draw.paths(lengths, values)


def test_drawing_changes_no_global_setting():
    before = dict(mpl.rcParams)
    draw.svg(draw.network(2))
    assert dict(mpl.rcParams) == before


def test_a_users_style_does_not_reach_our_figures():
    expected = draw.svg(draw.network(2))
    with mpl.rc_context({"font.size": 30.0, "lines.linewidth": 9.0, "text.color": "red", "svg.fonttype": "none"}):
        assert draw.svg(draw.network(2)) == expected


@pytest.mark.parametrize(("suffix", "magic"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".SVG", b"<?xml")])
def test_save_writes_by_the_suffix_and_the_same_bytes_each_time(tmp_path, suffix, magic):
    path = tmp_path / f"figure{suffix}"
    assert draw.save(draw.network(2), path) == path
    first = path.read_bytes()
    draw.save(draw.network(2), path)
    assert path.read_bytes() == first
    assert first.startswith(magic)
    assert list(tmp_path.iterdir()) == [path]


def test_save_refuses_other_formats_and_missing_folders(tmp_path):
    with pytest.raises(ValueError, match=r"\.png or \.svg; got .*\.pdf"):
        draw.save(draw.network(1), tmp_path / "a.pdf")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        draw.save(draw.network(1), tmp_path / "missing" / "a.png")
