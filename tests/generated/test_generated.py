"""A fixed sample of the networks that `make fuzz` judges by the thousand; and each check sees what it is for."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from fuzz._source import Drawn
from generated.judge import CHECKS, Case, judge
from generated.plan import Block, Branch, Plan, Seeded, draw
from unbraid.form import ResidualForm, trace


@pytest.mark.parametrize("seed", range(24))
def test_a_network(seed):
    judge(draw(Seeded(seed)))


@settings(
    max_examples=6,
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


def plan(*ends: str, seed: int = 0) -> Plan:
    inner = Block("identity", (Branch(("linear", "tanh")),), "left", "nothing")
    branches = (Branch(("linear", ends[0]), (inner,)), *(Branch(("linear", end)) for end in ends[1:]))
    return Plan((Block("identity", branches, "left", "nothing"), inner), seed=seed)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_each_check_sees_a_wrong_form(check, monkeypatch):
    """It is shown the form of another network: with other weights, or with one branch more."""
    case = Case(plan("tanh", "gelu"))
    check(case)
    other = Case(plan("tanh", "gelu", "gelu") if check.__name__ == "counts" else plan("tanh", "gelu", seed=1))
    if check.__name__ == "saved":
        monkeypatch.setattr(ResidualForm, "load", lambda folder: other.form)
    else:
        case.form = other.form
    with pytest.raises(AssertionError):
        check(case)


def test_a_block_that_is_missed_shows_by_length_alone(monkeypatch):
    """Values, terms, and the sum of the spectrum are right without it."""
    from unbraid.form import _trace
    from unbraid.form._find import find

    def forgetful(*args):
        finding = find(*args)
        return replace(finding, blocks=finding.blocks[:-1])

    case = Case(plan("tanh", "gelu"))
    monkeypatch.setattr(_trace, "find", forgetful)
    case.form = trace(case.network, case.x)
    checks = {check.__name__: check for check in CHECKS}
    checks["values"](case)
    for name in ("counts", "structure", "paths"):
        with pytest.raises(AssertionError):
            checks[name](case)


def test_a_plan_counts_its_own_blocks():
    assert [block.found for block in plan("tanh", "gelu").order] == [(2, 1), (1, 0)]
