"""Bars come after two seconds where somebody sees them, one at a time, and leave nothing behind."""

import io
import multiprocessing
import os
import pty
import subprocess
import sys
from contextlib import redirect_stderr
from types import SimpleNamespace

import pytest
import torch

import unbraid
from networks import Chain, Residual, lively, mlp, normal
from unbraid import _progress, data, gradients, train
from unbraid._progress import how_many, progress
from waiting import HANGS, until

F32 = torch.float32


class Tty(io.StringIO):
    """A terminal as far as stderr is asked."""

    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """A terminal at which bars come at once; what was drawn there."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(_progress, "_PATIENCE", 0.0)
    return Tty()


def drawn(terminal, text, total, steps, comes=True):
    with redirect_stderr(terminal), progress(text, total) as step:
        until(lambda: not comes or text in terminal.getvalue())
        for _ in range(steps):
            step()
    return terminal.getvalue()


def test_a_bar_says_how_far_it_is_and_goes_away(terminal):
    shown = drawn(terminal, "lesions [of] 3", 4, steps=4)
    assert "lesions [of] 3" in shown
    assert "/4" in shown
    assert "left" in shown
    assert shown.rstrip("\r\n").endswith("\x1b[2K")  # the line is erased


def test_a_bar_without_a_known_number_of_steps(terminal):
    assert "/?" in drawn(terminal, "batches", None, steps=2)


def test_nothing_in_the_first_two_seconds(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    assert _progress._PATIENCE == 2
    monkeypatch.setattr(_progress, "_PATIENCE", float(HANGS))  # the same patience for a machine on which two steps last
    assert drawn(Tty(), "short", 2, steps=2, comes=False) == ""


def test_nothing_where_there_is_no_terminal(monkeypatch):
    monkeypatch.setattr(_progress, "_PATIENCE", 0.0)
    monkeypatch.setenv("FORCE_COLOR", "1")  # logs in colour are no terminal
    assert drawn(io.StringIO(), "piped", 2, steps=2, comes=False) == ""


def test_nothing_on_a_dumb_terminal(terminal, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    assert drawn(terminal, "dumb", 2, steps=2, comes=False) == ""


def test_an_inner_bar_stays_silent_and_the_next_one_is_shown(terminal):
    with redirect_stderr(terminal), progress("outer", 1), progress("inner", 1):
        until(lambda: "outer" in terminal.getvalue())
    assert "outer" in terminal.getvalue()
    assert "inner" not in terminal.getvalue()
    assert "afterwards" in drawn(terminal, "afterwards", 1, steps=1)


def test_a_bar_goes_away_when_the_work_fails(terminal):
    def fails():
        until(lambda: "failing" in terminal.getvalue())
        raise KeyError

    with redirect_stderr(terminal), pytest.raises(KeyError), progress("failing", 2):
        fails()
    assert "failing" in terminal.getvalue()
    assert "again" in drawn(terminal, "again", 1, steps=1)


def test_a_trace_says_what_it_is_at(terminal):
    """The model waits until the bar has said so: when it is captured, and when it is run."""

    class Waits(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.f = torch.nn.Linear(3, 3)

        def forward(self, x):
            stage = "capturing" if torch.compiler.is_compiling() else "checking"
            until(lambda: stage in terminal.getvalue())
            return x + torch.tanh(self.f(x))

    with redirect_stderr(terminal):
        unbraid.trace(Waits(), torch.randn(2, 3))
    assert "1/3" in terminal.getvalue() or "2/3" in terminal.getvalue()


def test_a_process_that_another_has_started_draws_nothing(terminal, monkeypatch):
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: object())
    assert drawn(terminal, "worker", 1, steps=1, comes=False) == ""


@pytest.fixture
def notebook(monkeypatch):
    """IPython's display as a list of what is shown; the last of each handle is what remains."""
    shown = []

    class Handle:
        def update(self, content):
            shown.append(content)

    def display(content, display_id):
        shown.append(content)
        return Handle()

    module = SimpleNamespace(HTML=str, display=display)
    monkeypatch.setattr(_progress, "import_module", lambda name: {"IPython.display": module}[name])
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr(_progress, "_PATIENCE", 0.0)
    monkeypatch.setattr(_progress, "_BETWEEN", 0.0)
    return shown


def test_a_notebook_shows_a_bar_in_html_and_empties_it(notebook):
    with progress("<i>lesions</i>", 3) as step:
        step()
        step(text="still")
    assert notebook[0].startswith('&lt;i&gt;lesions&lt;/i&gt; <progress value="1" max="3"></progress> 1/3')
    assert "still" in notebook[1]
    assert "2/3, 0:00 left" in notebook[1]
    assert notebook[-1] == ""


def test_a_notebook_sees_nothing_of_short_work(notebook, monkeypatch):
    monkeypatch.setattr(_progress, "_PATIENCE", 2.0)
    with progress("short", 3) as step:
        step()
    assert notebook == []


def test_what_does_not_know_its_length():
    stream = type("Stream", (torch.utils.data.IterableDataset,), {"__iter__": lambda self: iter(())})()
    assert how_many(iter([1])) is None
    assert how_many(torch.utils.data.DataLoader(stream)) is None
    assert how_many([1, 2]) == 2


@pytest.fixture(scope="module")
def setting():
    network = lively(Chain(*(Residual(mlp(5)) for _ in range(3)), torch.nn.Linear(5, 3)), dtype=F32)
    x, labels = normal(6, 5, dtype=F32), torch.arange(6) % 3
    return unbraid.trace(network, x), x, [(x, labels), (x, labels)]


def loss(output, labels):
    return torch.nn.functional.cross_entropy(output, labels)


def examples():
    inputs, labels = normal(30, 5, dtype=F32), torch.arange(30) % 3
    return data.Dataset("thirds", inputs, labels, inputs, labels, 3, torch.zeros(()), torch.ones(()))


def networks(count):
    made = (unbraid.nn.mlp(inputs=5, width=6, depth=2, classes=3, norm=None) for _ in range(count))
    return list(made)


SHORT = train.Recipe(epochs=3, batch_size=10)
LONG = {
    "lesions 8": lambda form, x, b: unbraid.lesion(form, b, loss),
    "orders 6": lambda form, x, b: unbraid.reorderings(form, b, loss, swaps=1, repeats=2),
    "subnetworks 18": lambda form, x, b: unbraid.subsets(form, b, loss),
    "batches 2": lambda form, x, b: unbraid.rank(form, b, by="influence"),
    "gradients 2": lambda form, x, b: unbraid.rank(form, b, by="gradient", metric=loss),
    "signal 2": lambda form, x, b: unbraid.signal(form, b),
    "spectra 2": lambda form, x, b: unbraid.mean_spectrum(form, b),
    "paths 8": lambda form, x, b: unbraid.all_paths(form, x, target=0),
    "paths 12": lambda form, x, b: unbraid.sample_paths(form, x, target=0, per_length=3),
    "coherence 2": lambda form, x, b: gradients.example_coherence(form, b),
    "steps 2": lambda form, x, b: gradients.update_predictiveness(form, b, (1e-3,)),
    "networks 2": lambda form, x, b: gradients.input_autocorrelation([torch.sin] * 2, torch.linspace(0, 1, 9)[:, None]),
    "epochs 3": lambda form, x, b: train.fit(networks(1)[0], examples(), SHORT),
    "epochs of 2 networks 6": lambda form, x, b: train.train_many(networks(2), examples(), SHORT, seeds=range(2)),
}


@pytest.mark.parametrize("name", LONG)
def test_every_long_analysis_counts_to_the_end(name, setting, monkeypatch):
    bars = []

    class Counter:
        def __init__(self, text, total):
            self.text, self.total, self.done = text, total, 0
            bars.append(self)

        def step(self, count=1, /, text=None):
            self.done += count

        def close(self):
            pass

    monkeypatch.setattr(_progress, "_bar", Counter)
    LONG[name](*setting)
    assert len(bars) == 1
    said, _, total = name.rpartition(" ")
    assert bars[0].total == bars[0].done == int(total)
    assert bars[0].text == ("gradients" if said == "coherence" else said)


def test_the_command_draws_a_bar_in_a_terminal_and_keeps_stdout_clean(tmp_path):
    """Under a terminal of its own, with its results in a file, as `unbraid ... > file` is run."""
    script = (
        "from unbraid import _progress; _progress._PATIENCE = 0.0\n"
        "from unbraid._progress import progress\n"
        "with progress('work', 3) as step:\n"
        "    input()\n"
        "    for _ in range(3): print('result'); step()\n"
    )
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": theirs}
    with subprocess.Popen([sys.executable, "-c", script], text=True, env=environment, **pipes) as process:
        os.close(theirs)
        drawn = b""
        while b"work" not in drawn:
            drawn += os.read(ours, 100_000)  # an error where the process has ended
        assert process.communicate("go on\n", timeout=HANGS)[0] == "result\n" * 3
    assert process.returncode == 0
    os.close(ours)
