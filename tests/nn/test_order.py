"""The order of operations: parsing, printing, errors, and what figure 11.5 says of it."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unbraid.nn import Order, mlp

WEIGHTS = ("linear", "conv", "attention", "mlp")
ANY = st.sampled_from((*WEIGHTS, "norm", "act"))


@st.composite
def token_lists(draw):
    before = draw(st.lists(ANY, max_size=6))
    before.insert(draw(st.integers(0, len(before))), draw(st.sampled_from(WEIGHTS)))
    return before, draw(st.lists(ANY, max_size=3))


@given(token_lists(), st.sampled_from((" ", "  ", "\n", "\t ")))
def test_an_order_prints_as_it_was_written(parts, space):
    before, after = parts
    tokens = [*before, "+", *after]
    order = Order(space + space.join(tokens) + space)
    assert str(order) == " ".join(tokens)
    assert order == Order(str(order))
    assert hash(order) == hash(Order(str(order)))
    assert order.before == tuple(before)
    assert order.after == tuple(after)
    assert order.layers == sum(token in WEIGHTS for token in before)


def test_orders_that_differ_are_not_equal():
    assert Order("act linear +") != Order("linear act +")
    assert Order("linear + act") != Order("linear act +")


@given(token_lists(), st.integers(1, 4))
def test_repeating_repeats_the_branch_alone(parts, times):
    before, after = parts
    order = Order(" ".join([*before, "+", *after])).repeat(times)
    assert order.before == tuple(before * times)
    assert order.after == tuple(after)


def test_repeating_gives_the_named_orders_of_several_layers():
    assert Order.ACT_LINEAR.repeat(2) == Order.ACT_LINEAR_ACT_LINEAR
    assert Order("norm act conv +").repeat(2) == Order.PREACTIVATION
    with pytest.raises(ValueError, match=r"times must be 1 or more, but is 0"):
        Order.ACT_LINEAR.repeat(0)


@pytest.mark.parametrize(
    ("order", "pattern"),
    [
        (Order.LINEAR_ACT, "linear act +"),
        (Order.ACT_LINEAR, "act linear +"),
        (Order.ACT_LINEAR_ACT_LINEAR, "act linear act linear +"),
        (Order.ORIGINAL, "conv norm act conv norm + act"),
        (Order.ADD_THEN_NORM, "conv norm act conv + norm act"),
        (Order.ACT_BEFORE_ADD, "conv norm act conv norm act +"),
        (Order.ACT_ONLY_PREACTIVATION, "act conv norm act conv norm +"),
        (Order.PREACTIVATION, "norm act conv norm act conv +"),
    ],
)
def test_named_orders_are_those_of_the_book_and_of_he(order, pattern):
    assert str(order) == pattern


TOKENS = "  Tokens: linear, conv, attention, mlp, norm, act, +."
ERRORS = {
    "norm act liner norm act linear +": (
        'Order: unknown token "liner"',
        '  "norm act liner norm act linear +"',
        "            ^^^^^",
        f'{TOKENS} Did you mean "linear"?',
    ),
    "xyzzy +": ('Order: unknown token "xyzzy"', '  "xyzzy +"', "   ^^^^^", TOKENS),
    "": ("Order: the pattern is empty", '  ""', "   ^", TOKENS),
    "act linear": (
        'Order: no "+" says where the branch is added to the skip',
        '  "act linear"',
        "             ^",
        TOKENS,
    ),
    "linear + norm + act +": (
        'Order: 3 "+" where one block has exactly one',
        '  "linear + norm + act +"',
        "                 ^     ^",
        TOKENS,
    ),
    "+ linear": ('Order: nothing before "+": the branch is empty', '  "+ linear"', "   ^", TOKENS),
    "norm act + linear": (
        'Order: no layer with weights before "+"',
        '  "norm act + linear"',
        "   ^^^^^^^^",
        TOKENS,
    ),
}


@pytest.mark.parametrize("pattern", ERRORS)
def test_a_bad_pattern_is_shown_with_the_place_marked(pattern):
    with pytest.raises(ValueError, match=r"^Order: ") as error:
        Order(pattern)
    assert str(error.value) == "\n".join(ERRORS[pattern])


@given(st.lists(st.one_of(ANY, st.just("+"), st.text("alnr+ ", min_size=1, max_size=6)), max_size=8))
def test_any_other_string_raises_or_parses_to_itself(tokens):
    pattern = " ".join(tokens)
    try:
        order = Order(pattern)
    except ValueError as error:
        shown, marks = str(error).split("\n")[1:3]
        assert shown == f'  "{" ".join(pattern.split())}"'
        assert "^" in marks
        assert len(marks) <= len(shown)
    else:
        assert str(order) == " ".join(pattern.split())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 8), st.sampled_from(("linear act +", "linear norm act +")))
def test_linear_relu_can_only_increase(seed, width, pattern):
    """Figure 11.5a: what is added is never negative."""
    draws = torch.Generator().manual_seed(seed)
    (block,) = mlp(inputs=2, width=width, depth=1, order=pattern, generator=draws).blocks
    h = 3 * torch.randn(16, width, generator=draws)
    assert (block(h) >= h).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32))
def test_relu_linear_can_decrease_and_increase(seed):
    """Figure 11.5b; with it the first test would fail."""
    draws = torch.Generator().manual_seed(seed)
    (block,) = mlp(inputs=2, width=8, depth=1, order="act linear +", generator=draws).blocks
    h = torch.randn(64, 8, generator=draws)
    change = block(h) - h
    assert (change < 0).any()
    assert (change > 0).any()


def test_relu_linear_leaves_negative_inputs_alone_but_for_the_bias():
    """Figure 11.5b's warning: a network of such blocks must begin with a linear layer."""
    (block,) = mlp(inputs=2, width=8, depth=1, order="act linear +").blocks
    h = -torch.rand(16, 8)
    assert torch.equal(block(h), h)  # biases start at 0


def test_tokens_that_a_constructor_cannot_build_are_refused():
    message = re.escape(
        'mlp: cannot build the token "conv" of order "norm act conv norm act conv +"\n'
        '  It takes linear, norm, act and +. Write order="norm act linear norm act linear +".'
    )
    with pytest.raises(ValueError, match=message):
        mlp(order=Order.PREACTIVATION)
    with pytest.raises(ValueError, match=r'the token "attention" of order "norm attention \+"'):
        mlp(order="norm attention +")
