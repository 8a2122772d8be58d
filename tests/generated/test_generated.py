"""A fixed sample of the networks that `make fuzz` judges by the thousand; and each check sees what it is for."""

from copy import copy
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from fuzz._source import Drawn
from generated.judge import CHECKS, Case, counts, gradient, judge, lesions, paths, saved, structure, terms, values
from generated.plan import Block, Branch, Plan, Seeded, draw
from unbraid.form import trace

# In float32 gradients cancel (280, 810, 992), and in bfloat16 a sum of sums (1955): right, and once taken for wrong.
ROUNDED = (280, 810, 992, 1955)


@pytest.mark.parametrize(
    "seed", [*range(3), *(pytest.param(seed, marks=pytest.mark.slow) for seed in (*range(3, 24), *ROUNDED))]
)
def test_a_network(seed):
    judge(draw(Seeded(seed)))


@settings(
    max_examples=1,
    derandomize=True,
    database=None,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),  # run.py --shrink does it in less time
    suppress_health_check=list(HealthCheck),
)
@given(st.data())
def test_networks_that_hypothesis_draws(data):
    drawn = draw(Drawn(data.draw))
    note(str(drawn))
    judge(drawn)


def plan(*ends: str, seed: int = 0, dtype: str = "float64") -> Plan:
    inner = Block("identity", (Branch(("linear", "tanh")),), "left", "nothing")
    branches = (Branch(("linear", ends[0]), (inner,)), *(Branch(("linear", end)) for end in ends[1:]))
    return Plan((Block("identity", branches, "left", "nothing"), inner), seed=seed, dtype=dtype)


@cache
def case(*ends: str, seed: int = 0, dtype: str = "float64") -> Case:
    return Case(plan(*ends, seed=seed, dtype=dtype))


# In bfloat16 those whose bar is the network's own rounding.
@pytest.mark.parametrize(
    ("check", "dtype"),
    [(check, "float64") for check in CHECKS] + [(check, "bfloat16") for check in (values, terms, gradient, lesions)],
    ids=lambda argument: getattr(argument, "__name__", argument),
)
def test_each_check_sees_a_wrong_form(check, dtype, monkeypatch):
    """It is shown the form of another network: with other weights, or with one branch more."""
    shown = copy(case("tanh", "gelu", dtype=dtype))
    check(shown)
    ends, seed = (("tanh", "gelu", "gelu"), 0) if check is counts else (("tanh", "gelu"), 1)
    other = case(*ends, seed=seed, dtype=dtype)
    if check is saved:
        monkeypatch.setitem(saved.__globals__, "load", lambda folder: other.form)
    else:
        shown.form = other.form
    with pytest.raises(AssertionError):
        check(shown)


def test_a_block_that_is_missed_shows_by_length_alone(monkeypatch):
    """Values, terms, and the sum of the spectrum are right without it."""
    from unbraid.discover._find import find
    from unbraid.form import _assemble

    def forgetful(*args):
        finding = find(*args)
        return replace(finding, blocks=finding.blocks[:-1])

    shown = copy(case("tanh", "gelu"))
    monkeypatch.setattr(_assemble, "find", forgetful)
    shown.form = trace(shown.network, shown.x)
    values(shown)
    for check in (counts, structure, paths):
        with pytest.raises(AssertionError):
            check(shown)


def test_a_plan_counts_its_own_blocks():
    assert [block.found for block in plan("tanh", "gelu").order] == [(2, 1), (1, 0)]
