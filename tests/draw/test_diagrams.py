"""Figures 11.4a, 11.4b and 11.5: nothing overlaps, nothing is clipped, and they show what the equations say."""

from dataclasses import dataclass

import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch, Rectangle

from draw._geometry import assert_readable, outside, overlaps, texts
from unbraid import draw
from unbraid.nn import Order

ORDERS = [
    Order.LINEAR_ACT,
    Order.ACT_LINEAR,
    Order.ACT_LINEAR_ACT_LINEAR,
    Order.ORIGINAL,
    Order.ADD_THEN_NORM,
    Order.ACT_BEFORE_ADD,
    Order.ACT_ONLY_PREACTIVATION,
    Order.PREACTIVATION,
    "attention +",
    "norm attention norm mlp + norm act",
    Order.PREACTIVATION.repeat(3),
]


def words(figure: Figure) -> list[str]:
    return [name.split(": ", 1)[1] for name in texts(figure)]


def boxes(figure: Figure) -> int:
    """Each box is three patches: paper, tint, edge."""
    return len(figure.findobj(FancyBboxPatch)) // 3


@pytest.mark.parametrize("k", range(1, 7))
def test_network_is_readable_and_has_one_box_a_block(k):
    figure = draw.network(k)
    assert_readable(figure)
    assert boxes(figure) == k
    assert f"{2**k} paths" in " ".join(words(figure))


@dataclass(frozen=True)
class Kind:
    """A block as a diagram sees it."""

    skip: str
    join: str = "sum"
    trunk: int = 0


KINDS = [Kind("identity"), Kind("projection"), Kind("gate"), Kind("mix"), Kind("identity", "concatenation")]


def test_network_draws_each_kind_of_skip_and_join():
    """A map has a box, a gate a circle with a dot in it, a concatenation a square in the place of the plus."""
    figure = draw.network(KINDS)
    assert_readable(figure)
    assert boxes(figure) == 5 + 2
    assert len(figure.findobj(Rectangle)) - len(draw.network(5).findobj(Rectangle)) == 1
    assert len(figure.findobj(Circle)) - len(draw.network(5).findobj(Circle)) == 2 - 1
    said = " ".join(words(figure))
    for equation in (r"S_2 h_1 + f_2[h_1]", r"g_3 \odot h_2 + f_3[h_2]", "R_4 h_3 + f_4[h_3]", "y = [h_4, f_5[h_4]]"):
        assert equation in said


def skipped(blocks):
    """h_K is h_{K−1} past the skip of block K, term by term, and f_K[h_{K−1}], which is drawn anew."""
    total = sum(blocks - term for term in range(blocks + 1))
    return total + sum(skipped(term - 1) for term in range(1, blocks + 1))


def test_unravelled_draws_a_skip_on_each_term_that_passes_it():
    gated, plain = draw.unravelled([Kind("gate")] * 3), draw.unravelled(3)
    assert_readable(gated)
    assert len(gated.findobj(Circle)) - len(plain.findobj(Circle)) == 2 * skipped(3)
    beside = draw.unravelled([Kind("identity", "concatenation")] * 3)
    assert_readable(beside)
    assert "made of 8 paths" in " ".join(words(beside))
    with pytest.raises(ValueError, match="these blocks lie on several"):
        draw.unravelled([Kind("identity"), Kind("identity", trunk=1)])


@pytest.mark.parametrize("k", range(1, 7))
def test_plain_is_readable_and_has_one_path_through_all_boxes(k):
    figure = draw.plain(k)
    assert_readable(figure)
    assert boxes(figure) == k
    assert "1 path " in " ".join(words(figure))


@pytest.mark.parametrize("k", range(1, 7))
def test_unravelled_is_readable_and_shows_every_path(k):
    """Term t of Equation 11.5 holds 2^(t-1) boxes, so K of them hold 2^K − 1."""
    figure = draw.unravelled(k)
    assert_readable(figure)
    assert boxes(figure) == 2**k - 1
    leaving_x = {
        line.get_ydata()[0]
        for line in figure.axes[0].lines
        if line.get_xdata()[0] == pytest.approx(0.95) and line.get_xdata()[1] > 0.96
    }
    assert len(leaving_x) == 2**k


def test_the_smaller_networks_hold_all_paths_between_them():
    counts = [int(word.split(", ")[1].split()[0]) for word in words(draw.unravelled(4)) if ", " in word]
    assert counts == [1, 1, 2, 4, 8]
    assert sum(counts) == 2**4


@pytest.mark.parametrize("k", range(1, 7))
def test_one_path_of_the_unravelled_network_is_dashed(k):
    """At every height a dashed wire has at most one colour, and the sum of wires is one connected way."""
    dashed = [line for line in draw.unravelled(k).axes[0].lines if line.get_linestyle() == "--"]
    assert len({line.get_color() for line in dashed}) == 1
    starts = [line for line in dashed if line.get_xdata()[0] == pytest.approx(0.95)]
    assert len(starts) == 1


@pytest.mark.parametrize("make", [draw.network, draw.unravelled])
@pytest.mark.parametrize("k", [0, 7, -1])
def test_other_numbers_of_blocks_are_refused(make, k):
    with pytest.raises(ValueError, match=rf"1 to 6 blocks; got {k}"):
        make(k)


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_order_is_readable_and_shows_every_operation(order):
    figure = draw.order(order)
    assert_readable(figure)
    tokens = [token for token in str(order).split() if token != "+"]
    assert boxes(figure) == len(tokens)


def test_order_takes_the_string_for_the_value():
    assert draw.svg(draw.order("act linear +")) == draw.svg(draw.order(Order.ACT_LINEAR))


def test_a_bad_order_is_named():
    with pytest.raises(ValueError, match='unknown token "liner"'):
        draw.order("act liner +")


@pytest.mark.parametrize(
    ("order", "finding"),
    [
        ("linear act +", "only increase h"),
        ("act linear +", "add and subtract"),
        ("conv norm + act", "no pure identity"),
    ],
)
def test_the_title_of_an_order_says_what_it_allows(order, finding):
    assert any(finding in word for word in words(draw.order(order)))


def test_the_checks_see_a_collision_and_a_clipped_text():
    """Break a figure on purpose: the checks above must not pass on anything."""
    figure = draw.network(2)
    axes = figure.axes[0]
    axes.text(0.25, 2.3, "on top of the title", size=12)
    axes.text(-0.3, 1.0, "outside", size=12)
    found = texts(figure)
    assert overlaps(found)
    assert any("outside" in name for name in outside(figure, found))


def test_diagrams_show_themselves_in_notebooks():
    for figure in (draw.network(2), draw.unravelled(2), draw.order("act linear +")):
        assert figure._repr_png_().startswith(b"\x89PNG")
