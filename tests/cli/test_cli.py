"""Exit statuses, one clear line, and nothing on the wrong stream."""

import json
import os
import signal
import subprocess
import sys

import pytest

from cli._run import invoke
from unbraid.cli.models._model import KINDS, Wish, load, parse_shape
from waiting import HANGS, until

VERBS = ["report", "train", "sweep", "trace", "unravel", "paths", "lesion", "prune", "figure"]
FIGURES = ["network", "unravelled", "order", "toy"]


def command(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "unbraid", *arguments], capture_output=True, text=True, cwd=cwd, timeout=HANGS
    )


@pytest.mark.parametrize("verb", [*([v] for v in VERBS), *(["figure", f] for f in FIGURES)], ids=" ".join)
def test_help_shows_an_example(verb):
    result = invoke(*verb, "--help")
    assert result.status == 0
    words = " ".join(result.stdout.split())
    assert f"Example: unbraid {' '.join(verb)}" in words
    assert result.stderr == ""


def test_no_argument_shows_the_help():
    assert invoke().stdout == invoke("--help").stdout
    assert all(verb in invoke().stdout for verb in VERBS)


def test_version():
    assert invoke("--version").stdout == "unbraid 0.1.0\n"


def test_help_draws_and_writes_nothing_so_it_loads_no_library_for_it():
    code = (
        "import sys; from unbraid.cli import main; main(['--help']); main(['figure', 'toy']); main(['trace']);"
        "sys.exit(any(m in sys.modules for m in ('matplotlib', 'jinja2', 'unbraid.train', 'unbraid.data')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=HANGS)
    assert done.returncode == 0, done.stderr


BAD = [
    (["no-such-verb"], "No such command 'no-such-verb'"),
    (["figure"], "Missing command"),
    (["figure", "network", "--blocks", "9"], "1 to 6 blocks; got 9"),
    (["figure", "order", "act liner +"], 'unknown token "liner"'),
    (["figure", "network", "-o", "a.pdf"], '.png or .svg; got "a.pdf"'),
    (["figure", "network", "-o", "missing/a.svg"], 'no such folder: "missing"'),
    (["trace", "no-such-thing"], '"no-such-thing" is no model'),
    (["trace", "missing.py:f"], 'no such file: "missing.py"'),
    (["trace", ".", "--input-shape", "1,x"], 'with commas between, such as 1,3,224,224; got "1,x"'),
    (["trace", "."], "."),
    (["train", "run", "--depth", "0"], "--depth"),
    (["train", "run", "--kind", "odd"], "--kind"),
    (["train", "run", "--data", "nowhere.npz"], "nowhere.npz"),
    (["paths", "no-such-thing"], '"no-such-thing" is no model'),
    (["paths", ".", "-o", "a.pdf"], '.png or .svg; got "a.pdf"'),
    (["paths", ".", "--target", "cat"], 'a class, such as 3, or a position and a class, such as 5,3; got "cat"'),
    (["paths", ".", "--target", "loss"], "--target loss needs labels; give --data mnist1d, digits, or a file."),
    (["report", "-o", "report.pdf"], "ends in .html"),
    (["report", "--depths", "a,b"], '--depths is numbers of blocks with commas between, such as 10,20,40; got "a,b"'),
    (["report", "--no-such-option"], "--no-such-option"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[" ".join(a) for a, _ in BAD])
def test_bad_input_is_one_line_and_status_2(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = invoke(*arguments)
    assert done.status == 2
    assert done.stdout == ""
    assert done.stderr.startswith("unbraid: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("arguments", "message"), BAD[::9])
def test_a_process_of_its_own_ends_so_too(arguments, message, tmp_path):
    done = command(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("unbraid: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert message in done.stderr


def test_debug_shows_the_traceback():
    done = command("figure", "network", "--blocks", "9", "--debug")
    assert done.returncode != 0
    assert "Traceback" in done.stderr
    assert "ValueError: the figure shows 1 to 6 blocks" in done.stderr


def test_trace_without_a_model_explains_what_one_is():
    for verb in ("trace", "unravel", "paths", "prune"):
        result = invoke(verb)
        assert result.status == 2
        assert result.stdout == ""
        assert all(kind in result.stderr for kind in KINDS)


def test_an_interrupt_ends_with_one_line_and_130(tmp_path):
    arguments = [sys.executable, "-m", "unbraid", "train", "run", "--epochs", "100000", "--depth", "1"]
    # A shell starts background jobs with interrupts ignored, and children inherit that: CI may be such a job.
    child = subprocess.Popen(
        arguments,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        until((tmp_path / "run").exists, child)  # then training has begun
        os.kill(child.pid, signal.SIGINT)
        out, err = child.communicate(timeout=HANGS)
    finally:
        child.kill()
        child.wait()
    assert child.returncode == 130
    assert out == ""
    assert err == "unbraid: interrupted; the same command with --resume goes on after the last epoch\n"


@pytest.mark.parametrize("name", ["network", "unravelled"])
def test_figures_are_written_and_named_on_stdout(tmp_path, name):
    path = tmp_path / "a b.svg"
    result = invoke("figure", name, "-k", "2", "-o", str(path))
    assert (result.status, result.stdout, result.stderr) == (0, f"{path}\n", "")
    assert path.read_text().startswith("<?xml")
    assert json.loads(invoke("figure", name, "-o", str(path), "--json").stdout) == {"path": str(path)}


def test_an_order_is_drawn(tmp_path):
    path = tmp_path / "order.png"
    assert invoke("figure", "order", "norm act linear +", "-o", str(path)).status == 0
    assert path.read_bytes().startswith(b"\x89PNG")


def test_shapes():
    assert parse_shape(None) is None
    assert parse_shape("1, 3,8") == (1, 3, 8)
    for bad in ("", "1,,2", "-1", "0", "1.5", "a"):
        with pytest.raises(ValueError, match="a shape is sizes"):
            parse_shape(bad)


FACTORIES = """
import torch
from torch import nn

def model():
    return nn.Linear(3, 2)

def pair():
    return nn.Linear(3, 2), torch.ones(4, 3)

def number():
    return 3

value = 3
"""


@pytest.fixture
def factories(tmp_path):
    path = tmp_path / "factories.py"
    path.write_text(FACTORIES)
    return path


def test_a_factory_gives_the_same_weights_each_time_and_leaves_the_generator(factories):
    import torch

    state = torch.random.get_rng_state()
    first, second = (load(f"{factories}:model", Wish((5, 3))) for _ in range(2))
    assert torch.equal(first.model.weight, second.model.weight)
    assert first.args[0].shape == (5, 3)
    assert not first.model.training
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_factory_may_bring_its_inputs(factories):
    assert load(f"{factories}:pair", Wish()).args[0].shape == (4, 3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model", "gives no inputs"),
        ("number", "must return a torch.nn.Module, or .*got int"),
        ("missing", 'has no function "missing"'),
        ("value", 'has no function "value"'),
        ("a.b", "which function builds the model"),
    ],
)
def test_a_bad_factory_is_named(factories, name, message):
    with pytest.raises(ValueError, match=message):
        load(f"{factories}:{name}", Wish())


def test_a_file_that_fails_says_how(tmp_path):
    (tmp_path / "broken.py").write_text("1 / 0")
    with pytest.raises(ValueError, match=r"broken\.py cannot be run: ZeroDivisionError"):
        load(f"{tmp_path / 'broken.py'}:f", Wish())


@pytest.mark.parametrize("kind", ["residual", "plain"])
def test_train_keeps_a_folder_that_can_be_loaded(tmp_path, kind):
    folder = tmp_path / "run"
    options = ["--depth", "2", "--epochs", "1", "--width", "20", "--kind", kind, "--json"]
    result = invoke("train", str(folder), *options)
    assert result.status == 0, result.stderr
    assert json.loads(result.stdout)["folder"] == str(folder)
    loaded = load(str(folder), Wish(examples=3))
    assert loaded.args[0].shape == (3, 40)
    assert loaded.model(loaded.args[0]).shape == (3, 10)
    again = invoke("train", str(folder), *options)
    assert again.status == 2
    assert "already" in again.stderr
