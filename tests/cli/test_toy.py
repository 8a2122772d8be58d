"""The toy: 16 path values, computed from the definition, add up to the output of Equation 11.4."""

import json
import subprocess
import sys
from itertools import combinations
from math import prod
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli._run import invoke
from unbraid.cli.models._toy import TOY, Toy

EXAMPLE = Path(__file__).parents[2] / "examples" / "toy.py"


def equation_11_4(weights, x):
    w1, w2, w3, w4 = weights
    h1 = x + w1 * x
    h2 = h1 + w2 * h1
    h3 = h2 + w3 * h2
    return h3 + w4 * h3


def test_sixteen_paths_add_up_to_the_output():
    paths = TOY.paths()
    assert len({path.entered for path in paths}) == 16
    assert sum(path.value for path in paths) == TOY.hidden()[-1] == equation_11_4(TOY.weights, TOY.x) == 12.0


def test_every_value_is_the_product_of_its_weights():
    every = [blocks for m in range(5) for blocks in combinations((1, 2, 3, 4), m)]
    expected = {blocks: prod(TOY.weights[block - 1] for block in blocks) for blocks in every}
    assert {path.blocks: path.value for path in TOY.paths()} == expected
    assert [sum(path.length == m for path in TOY.paths()) for m in range(5)] == [1, 4, 6, 4, 1]


# Quarters: all products and sums of four of them are exact in float64, so equality means equality.
quarters = st.integers(-20, 20).map(lambda number: number / 4)


@given(st.tuples(quarters, quarters, quarters, quarters), quarters)
def test_the_paths_of_any_toy_add_up(weights, x):
    toy = Toy(weights, x)
    assert sum(path.value for path in toy.paths()) == toy.hidden()[-1] == equation_11_4(weights, x)


def test_a_lost_path_is_seen():
    assert sum(path.value for path in TOY.paths()[1:]) != TOY.hidden()[-1]


def test_the_table_fits_on_a_screen():
    result = invoke("figure", "toy")
    lines = result.stdout.rstrip("\n").split("\n")
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert "sum of the 16 paths = 12" in result.stdout
    assert "y = 12" in result.stdout
    assert sum(line.strip().startswith("x →") for line in lines) == 16


def test_json_holds_the_same():
    data = json.loads(invoke("figure", "toy", "--json").stdout)
    assert data["sum_of_paths"] == data["output"] == 12.0
    assert sum(path["value"] for path in data["paths"]) == 12.0
    assert len(data["paths"]) == 16


def test_the_example_prints_the_same():
    done = subprocess.run([sys.executable, EXAMPLE], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert [float(line.split()[-1]) for line in lines[-2:]] == [12.0, 12.0]
    assert sorted(float(line.split()[-1]) for line in lines[:-2]) == sorted(path.value for path in TOY.paths())


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_the_picture(tmp_path, suffix):
    path = tmp_path / f"toy.{suffix}"
    assert invoke("figure", "toy", "-o", str(path)).status == 0
    assert path.stat().st_size > 1000
