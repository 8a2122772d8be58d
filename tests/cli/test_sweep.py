"""Sweeps: what a file asks for, what is kept, what a kill leaves, and one line for every mistake."""

import json
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from cli._run import invoke
from unbraid import data, nn, train
from unbraid.cli._grid import Grid, Setting
from unbraid.train import Recipe
from waiting import HANGS, until

SMALL = """
kind = ["plain", "residual"]
depth = [2, 4]
width = 10
epochs = 1
batch_size = 500
seeds = 3
"""


@pytest.fixture
def sweep(tmp_path):
    """Write a file, run the sweep, and give what it printed."""

    def run(text, *options):
        file = tmp_path / "grid.toml"
        file.write_text(text)
        return invoke("sweep", str(file), *options)

    return run


def rows(path):
    connection = sqlite3.connect(path)
    found = connection.execute("SELECT asked, finished FROM runs ORDER BY number").fetchall()
    connection.close()
    return found


def test_the_table_shows_what_varies_and_the_median(sweep, tmp_path):
    result = sweep(SMALL)
    assert (result.status, result.stderr) == (0, "")
    found = json.loads(sweep(SMALL, "--json").stdout)
    assert found["varied"] == ["kind", "depth", "scale"]
    assert len(found["rows"]) == 4
    for row in found["rows"]:
        errors = [run["test_error"] for run in row["runs"]]
        assert [run["seed"] for run in row["runs"]] == [0, 1, 2]
        assert row["median"] == statistics.median(errors)
        kind, depth = row["setting"]["kind"], str(row["setting"]["depth"])
        line = next(line for line in result.stdout.splitlines() if {kind, depth} <= set(line.split()))
        said = [f"{number:.1f}" for number in (row["median"], min(errors), max(errors))]
        assert [word for word in line.split() if word in said]
        assert " ".join(said) in " ".join(line.replace("│", " ").split())
    assert len(rows(tmp_path / "grid.sqlite")) == 12


def test_a_run_is_what_fit_makes_of_it(sweep):
    found = json.loads(
        sweep('depth = 3\nwidth = 10\nnorm = "batch"\nepochs = 2\nlr = [0.05, 0.1]\nscale = 1', "--json").stdout
    )
    for row in found["rows"]:
        network = nn.mlp(depth=3, width=10, order="act linear +", generator=torch.Generator().manual_seed(0))
        run = train.fit(network, data.mnist1d(), Recipe(epochs=2, lr=row["setting"]["lr"]))
        assert row["runs"][0]["test_error"] == pytest.approx(run.test_error)
        losses = [epoch["train_loss"] for epoch in row["runs"][0]["history"]]
        assert losses == pytest.approx([epoch.train_loss for epoch in run.history], rel=1e-4)


def test_a_second_call_trains_nothing_and_a_larger_grid_only_what_is_new(sweep, tmp_path):
    sweep(SMALL)
    before = rows(tmp_path / "grid.sqlite")
    sweep(SMALL)
    assert rows(tmp_path / "grid.sqlite") == before
    sweep(SMALL.replace("seeds = 3", "seeds = [0, 7]"))
    after = rows(tmp_path / "grid.sqlite")
    assert after[:12] == before
    assert [json.loads(asked)["seed"] for asked, _ in after[12:]] == [7] * 4


def test_runs_that_diverge_are_counted(sweep):
    result = sweep("depth = 2\nwidth = 10\nepochs = 1\nbatch_size = 500\nlr = [0.05, 1e30]\nseeds = 2")
    line = next(line for line in result.stdout.splitlines() if "1e+30" in line)
    assert line.replace("│", " ").split() == ["1e+30", "2", "—", "—", "—", "2"]


def test_networks_that_draw_are_trained_alone(sweep):
    found = json.loads(
        sweep(
            "depth = 2\nwidth = 10\nepochs = 1\nbatch_size = 500\nstochastic_depth = [0.0, 0.5]\nseeds = 2", "--json"
        ).stdout
    )
    assert all(run["test_error"] < 100 for row in found["rows"] for run in row["runs"])


@pytest.mark.parametrize(("text", "name"), [(SMALL, "a.svg"), (SMALL.replace("[2, 4]", "2"), "a.png")])
def test_figures(sweep, tmp_path, text, name):
    assert sweep(text, "-o", str(tmp_path / name)).status == 0
    assert (tmp_path / name).stat().st_size > 5000


def grid(**table):
    return Grid.of(table)


def test_what_can_share_a_stack_does():
    """Rates, seeds and constants may differ; depths, norms, the scale 1 and layers that draw may not."""
    together = grid(lr=[0.1, 0.2], scale=[0.5, "1/sqrt(2)", "1/sqrt(K)"], seeds=2).stacks(100)
    assert [len(stack) for stack in together] == [12]
    assert [len(stack) for stack in grid(lr=[0.1, 0.2], seeds=5).stacks(4)] == [4, 4, 2]
    assert len(grid(depth=[1, 2], norm=["none", "layer"]).stacks(100)) == 4
    assert len(grid(scale=[1.0, 0.5, "learned", "zero"]).stacks(100)) == 4
    assert len(grid(stochastic_depth=0.1, seeds=3).stacks(100)) == 3
    assert len(grid(epochs=[1, 2]).stacks(100)) == 2


def test_every_network_of_a_stack_can_be_stacked():
    """Whatever `stack` says alike, `train_many` takes."""
    examples = data.mnist1d()
    table = {"scale": [1, 0.5, "1/sqrt(2)", "1/sqrt(K)", "learned", "zero"], "depth": [1, 2], "width": 4, "epochs": 1}
    for stack in grid(**table, kind=["plain", "residual"], batch_size=4000).stacks(100):
        networks = [setting.network(examples, seed) for setting, seed in stack]
        recipes, seeds = [setting.recipe for setting, _ in stack], [seed for _, seed in stack]
        train.train_many(networks, examples, recipes, seeds=seeds)


def test_a_plain_network_has_no_branch_to_scale():
    runs = grid(kind=["plain", "residual"], scale=["1/sqrt(K)", 0.5]).runs
    assert [(setting.kind, setting.scale) for setting, _ in runs] == [
        ("plain", 1.0),
        ("residual", "1/sqrt(K)"),
        ("residual", 0.5),
    ]


def test_grids_add_up():
    runs = grid(width=10, grid=[{"depth": [1, 2]}, {"depth": [2, 3], "seeds": 2}]).runs
    assert [(setting.depth, seed) for setting, seed in runs] == [(1, 0), (2, 0), (2, 1), (3, 0), (3, 1)]
    assert all(setting.width == 10 for setting, _ in runs)


def test_the_defaults_are_those_of_the_recipe():
    assert Setting().recipe == Recipe()


BAD = [
    (
        "dept = 3",
        'unknown key "dept"; did you mean "depth"? Known keys: data, kind, depth, width, order, activation, norm',
    ),
    ("[[grid]]\nrate = 3", "Known keys: data, kind"),
    ('depth = "ten"', "depth is a whole number, or a list of them; got 'ten'"),
    ("depth = [1, 2.5]", "depth is a whole number, or a list of them; got 2.5"),
    ("depth = true", "depth is a whole number, or a list of them; got True"),
    ("norm = 3", "norm is a text, or a list of them; got 3"),
    ("scale = [[1]]", "scale is a number or a text, or a list of them; got [1]"),
    ("lr = []", "lr = [] leaves nothing to train"),
    ("seeds = 0", "seeds = 0 leaves nothing to train"),
    ("seeds = []", "seeds = [] leaves nothing to train"),
    ('seeds = "3"', "seeds is how many, or a list of whole numbers; got '3'"),
    ("scale = nan", "scale is finite; got nan"),
    ("epochs = 0", "epochs is at least 1; got 0"),
    ("lr = -1", "lr is finite and above 0; got -1.0"),
    ('kind = "highway"', 'kind is "plain" or "residual"; got "highway"'),
    ('order = "act liner +"', 'unknown token "liner"'),
    ('norm = "bach"', '"bach"'),
    ('data = ["mnist1d"]', "data is the name of one data set; got ['mnist1d']"),
    ('data = "mnist2d"', '"mnist2d" is no data set'),
    ("grid = 3", "grids are tables, each under a line [[grid]]; got grid = 3"),
    ("depth = = 3", "grid.toml: Invalid value (at line 1, column 9)"),
]


@pytest.mark.parametrize(("text", "said"), BAD)
def test_mistakes_in_the_file_end_in_one_line_and_status_2(sweep, tmp_path, text, said):
    result = sweep(text)
    assert result.status == 2
    assert result.stdout == ""
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "grid.sqlite").exists()


def test_other_mistakes(sweep, tmp_path):
    missing = invoke("sweep", str(tmp_path / "missing.toml"))
    assert (missing.status, missing.stderr.splitlines()) == (
        2,
        [f'unbraid: No such file or directory: "{tmp_path / "missing.toml"}"'],
    )
    assert '.png or .svg; got "a.pdf"' in sweep(SMALL, "-o", "a.pdf").stderr
    sweep("depth = 1\nwidth = 4\nepochs = 1\nbatch_size = 4000")
    other = sweep('data = "digits"\ndepth = 1')
    assert other.status == 2
    assert "this file keeps the runs of another job: its data set's name is" in other.stderr


def command(file, *options):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return [sys.executable, "-m", "unbraid", "sweep", str(file), *options], environment


def test_after_an_interrupt_what_is_finished_is_kept_and_the_same_command_goes_on(tmp_path):
    file = tmp_path / "grid.toml"
    file.write_text("depth = 4\nwidth = 20\nepochs = 2\nseeds = 400")
    arguments, environment = command(file, "--together", "2")
    # A shell starts background jobs with interrupts ignored, and children inherit that: CI may be such a job.
    process = subprocess.Popen(
        arguments,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    database = tmp_path / "grid.sqlite"
    until(lambda: database.exists() and count(database), process)
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=HANGS)
    assert process.returncode == 130
    assert out == ""
    finished = len(rows(database))
    assert 0 < finished < 400
    assert said.splitlines() == [
        f"{finished} of 400 runs are finished and kept in {database}; the same command goes on.",
        "unbraid: interrupted",
    ]


def count(database):
    try:
        return len(rows(database))
    except sqlite3.OperationalError:  # its tables are not there yet
        return 0


def test_a_sweep_killed_at_random_moments_ends_in_the_same_table(tmp_path):
    """Real kills. Nothing that was kept is lost or trained again, and the numbers are those of an unbroken sweep."""
    draw = np.random.default_rng(0)
    np.savez(tmp_path / "small.npz", x=draw.normal(size=(600, 12)), y=draw.integers(3, size=600))  # quick to load
    text = f"data = {str(tmp_path / 'small.npz')!r}\n" + SMALL.replace("batch_size = 500", "batch_size = 20")
    killed, unbroken = tmp_path / "killed.toml", tmp_path / "unbroken.toml"
    for file in (killed, unbroken):
        file.write_text(text)
    program = [sys.executable, str(Path(__file__).with_name("_killed_sweep.py")), str(unbroken), str(killed)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(program, capture_output=True, text=True, timeout=HANGS, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    reached = json.loads(done.stderr)
    assert len(reached) > 3
    assert reached == sorted(reached)
    assert reached[-1] == 12 == len({asked for asked, _ in rows(tmp_path / "killed.sqlite")})
    tables = [json.loads(invoke("sweep", str(file), "--json").stdout) for file in (killed, unbroken)]
    assert without_times(tables[0]) == without_times(tables[1])


def without_times(found):
    for row in found["rows"]:
        for run in row["runs"]:
            for epoch in run["history"]:
                del epoch["seconds"]
    return found
