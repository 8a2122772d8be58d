"""A fixed sample of what `make fuzz` tries at length: broken and hostile input to each parser and loader of ours."""

import importlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fuzz._guard import judge
from fuzz._source import Drawn

TARGETS = sorted(path.stem.removeprefix("target_") for path in Path(__file__).parent.glob("target_*.py"))
MARK = Path("/tmp/unbraid-fuzz-ran")


@pytest.mark.parametrize("target", TARGETS)
def test_hostile_input_is_refused_or_read(target, tmp_path_factory):
    folder = tmp_path_factory.mktemp(target)
    case = importlib.import_module(f"fuzz.target_{target}").case

    @settings(
        max_examples=120,
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def sample(data):
        judge(folder, case(Drawn(data.draw), folder))

    sample()
    assert not MARK.exists()
