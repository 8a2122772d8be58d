"""The comparison behind `unbraid report`."""

import pytest

from unbraid import data
from unbraid.cli._experiment import compare
from unbraid.report import sections
from unbraid.train import Recipe


@pytest.fixture(scope="module")
def done():
    steps = []
    comparison = compare(data.mnist1d(), [1, 2], [0], Recipe(epochs=1), steps.append)
    return comparison, steps


def test_every_kind_depth_and_epoch_is_told(done):
    comparison, steps = done
    assert [(trial.kind, trial.depth) for trial in comparison.trials] == [
        ("plain", 1), ("residual", 1), ("plain", 2), ("residual", 2)
    ]  # fmt: skip
    assert len(steps) == 4


def test_the_numbers_reach_the_sections(done):
    comparison, _ = done
    curves = comparison.curves()
    assert [curve.depths for curve in curves] == [(1, 2), (1, 2)]
    assert curves[1].errors[1] == (comparison.deepest.run.test_error,)
    table = sections.training(comparison.training()).parts[0]
    assert [row[5] for row in table.rows] == [trial.run.test_error for trial in comparison.trials]


def test_the_deepest_residual_network_is_taken_apart(done):
    comparison, _ = done
    assert (comparison.deepest.kind, comparison.deepest.depth) == ("residual", 2)
