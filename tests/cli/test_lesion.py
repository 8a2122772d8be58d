"""`unbraid lesion` prints what the study holds."""

import json
import os
import resource
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import torch

from cli._run import invoke
from unbraid import data, train
from waiting import HANGS

OPTIONS = ["--examples", "60", "--batch", "25"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert invoke("train", str(folder), "--depth", "3", "--epochs", "1", "--width", "20").status == 0
    return str(folder)


def errors(network, skipped):
    """The share of errors with one branch silenced by a hook."""
    examples = data.mnist1d().test
    handle = network.blocks[skipped].branch.register_forward_hook(lambda m, i, output: output * 0)
    with torch.no_grad():
        wrong = network(examples.inputs[:60]).argmax(1) != examples.labels[:60]
    handle.remove()
    return 100 * float(wrong.double().mean())


def test_json_holds_every_lesion(run):
    result = invoke("lesion", run, "--metric", "error", *OPTIONS, "--json")
    assert result.status == 0, result.stderr
    facts = json.loads(result.stdout)
    assert (facts["data"], facts["metric"], facts["examples"]) == ("mnist1d", "error in %", 60)
    network = train.load(run).network
    assert [row["without"] for row in facts["lesions"]] == [[0], [1], [2]]
    assert [row["metric"] for row in facts["lesions"]] == pytest.approx([errors(network, k) for k in range(3)])


def test_the_table_is_sorted_and_the_figure_is_written(run, tmp_path):
    figure = tmp_path / "lesion.svg"
    result = invoke("lesion", run, "--sets", "pairs", "--replace", "mean", *OPTIONS, "-o", str(figure))
    assert result.status == 0, result.stderr
    rows = [line.split() for line in result.stdout.splitlines() if "blocks." in line]
    changes = [abs(float(row[-1])) for row in rows]
    assert len(rows) == 3
    assert changes == sorted(changes, reverse=True)
    assert "output replaced by its mean over the data; 60 examples" in " ".join(result.stdout.split())
    assert figure.read_text().startswith("<?xml")
    assert "the figure is" in result.stderr


def test_a_plain_network_is_cut_at_its_layers(tmp_path):
    folder = str(tmp_path / "plain")
    assert invoke("train", folder, "--depth", "3", "--epochs", "1", "--width", "20", "--kind", "plain").status == 0
    bare = invoke("lesion", folder, *OPTIONS)
    assert bare.status == 2
    assert "no residual addition" in bare.stderr
    result = invoke("lesion", folder, "--layers", "layers", *OPTIONS)
    assert result.status == 0, result.stderr
    assert "the identity in the place of 3 plain layers" in " ".join(result.stdout.split())


def test_bad_input_is_one_line(run, tmp_path):
    (tmp_path / "f.py").write_text(
        "import torch\nfrom torch import nn\ndef f():\n    return nn.Linear(40, 10), torch.ones(2, 40)\n"
    )
    for arguments, message in [
        ([f"{tmp_path}/f.py:f"], "a lesion is measured on examples with labels; give --data"),
        ([run, "-o", "a.pdf"], '.png or .svg; got "a.pdf"'),
        ([run, "--sets", "triples"], "'triples' is not one of 'single', 'pairs'"),
    ]:
        result = invoke("lesion", *arguments)
        assert result.status == 2
        assert message in result.stderr
        assert result.stderr.count("\n") == 1
    assert "which model?" in invoke("lesion").stderr


def killed(tmp_path, folder, *options):
    """Kill a lesion at random moments until it gets through; the unbroken result, the kept one, how far each came."""
    program = [sys.executable, str(Path(__file__).with_name("_killed_lesion.py")), str(folder)]
    file = tmp_path / "kept.sqlite"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*program, str(file), *options], capture_output=True, text=True, timeout=HANGS, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    again = invoke(
        "lesion", str(folder), "--batch", "25", "--examples", "500", "--json", "--resume", str(file), *options
    )
    return json.loads(done.stdout), json.loads(again.stdout), json.loads(done.stderr)


def test_a_killed_lesion_goes_on_where_it_was(run, tmp_path):
    whole, resumed, reached = killed(tmp_path, run)
    assert len(reached) > 1
    assert reached == sorted(reached)
    assert reached[-1] == 20
    assert resumed == whole


def test_the_cache_is_empty_when_all_is_done(run, cache, monkeypatch):
    assert invoke("lesion", run, "--examples", "50").status == 0
    assert list(cache.iterdir()) == []
    assert cache.stat().st_mode & 0o777 == 0o700


def test_without_a_place_it_says_so_and_works(run, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    result = invoke("lesion", run, "--examples", "50")
    assert result.status == 0
    assert "finished batches are not kept: Not a directory" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_what_was_kept_serves(run, tmp_path):
    """A limit on the size of files stands in for a full disk."""
    file = tmp_path / "kept.sqlite"
    arguments = ["lesion", run, "--batch", "25", "--examples", "500", "--resume", str(file), "--json"]
    full = subprocess.run(
        [sys.executable, "-m", "unbraid", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=HANGS,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (80_000, resource.RLIM_INFINITY)),
    )
    assert (full.returncode, full.stdout) == (2, "")
    said = full.stderr.strip().splitlines()[-1]
    assert said.startswith(f"unbraid: {file}: finished runs cannot be kept here: ")
    assert "Traceback" not in full.stderr
    with closing(sqlite3.connect(file)) as kept:
        assert 0 < kept.execute("select count(*) from runs").fetchone()[0] < 20  # some of the batches
    again = invoke(*arguments)
    assert again.status == 0, again.stderr
    assert json.loads(again.stdout) == json.loads(invoke(*arguments[:-3], "--json").stdout)
