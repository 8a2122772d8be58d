"""A form is read as it was at one moment, whoever saves meanwhile, and checked; one writer at a time.

Oracle: the forms themselves, in the reader's own process.
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from saved import _savers
from saved._savers import X
from sums import signed
from unbraid import _generation, data, nn, trace, train
from unbraid.errors import CheckpointError
from unbraid.form import load
from unbraid.saved import _store


@pytest.fixture(scope="module")
def pair():
    return _savers.forms()


@pytest.fixture
def folder(pair, tmp_path):
    return pair[0].save(tmp_path / "form")


def saver(folder):
    return subprocess.Popen(
        [sys.executable, _savers.__file__, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_loads_among_two_savers_are_of_one_form_each(pair, tmp_path):
    """Streamed ones, too, which read their weights later."""
    folder = tmp_path / "form"
    outputs = [form(X) for form in pair]
    found = []
    with ExitStack() as stack:
        savers = [stack.enter_context(saver(folder)) for _ in range(2)]
        assert [one.stdout.readline() for one in savers] == ["both\n"] * 2
        streamed = []
        for n in range(40):
            form = load(folder, stream=n % 2 == 0)
            found.append([torch.equal(form(X), output) for output in outputs])
            if n % 2 == 0:
                streamed.append((form, found[-1]))
        for form, before in streamed:  # since then others have been saved
            assert [torch.equal(form(X), output) for output in outputs] == before
        saved = [int(one.communicate()[0].split()[-1]) for one in savers]
        assert [one.returncode for one in savers] == [0, 0]
    assert all(sum(which) == 1 for which in found)
    assert [any(which[n] for which in found) for n in (0, 1)] == [True, True]
    assert min(saved) > 2


def test_without_the_check_a_mixture_would_be_read(pair, folder, tmp_path):
    """The two forms are such that a mixture loads, and is neither."""
    other = pair[1].save(tmp_path / "other")
    shutil.copy(other / "weights.safetensors", folder)
    with pytest.raises(CheckpointError, match=r"weights\.safetensors is damaged: [\d,]+ bytes with SHA-256"):
        load(folder)
    mixed = load(signed(folder))(X)
    assert not any(torch.equal(mixed, form(X)) for form in pair)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", ["graph.pt2", "weights.safetensors", "form.json", "SHA256SUMS"])
def test_a_flipped_bit_is_found(folder, name, stream):
    path = folder / name
    content = path.read_bytes()
    for place in range(0, len(content), -(-len(content) // 9)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        with pytest.raises(CheckpointError, match=r"^load: .*(is damaged: |is not listed|is no saved form: it lacks)"):
            load(folder, stream=stream)


def test_weights_for_a_form_are_checked_too(pair, folder):
    """`form.with_weights(folder)`, of a saved form: one generation, and no flipped bit."""
    for stream in (False, True):
        loaded = pair[1].with_weights(folder, stream=stream)
        assert torch.equal(loaded.state["weight"], pair[0].state["weight"])
        pair[1].save(folder)
        assert torch.equal(loaded.state["weight"], pair[0].state["weight"])
        pair[0].save(folder)
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\7")
    with pytest.raises(CheckpointError, match=r"^load: .*weights\.safetensors is damaged"):
        pair[0].with_weights(folder, stream=True)


def test_a_streamed_form_is_saved_over_itself_and_goes_on(pair, folder):
    form = load(folder, stream=True)
    for _ in range(2):
        form.without(0).save(folder)
        assert torch.equal(form(X), pair[0](X))
        assert torch.equal(load(folder)(X), X)


@pytest.mark.parametrize("moves", ["generation", "twice", "file"])
def test_a_generation_that_goes_while_it_is_read_is_read_anew(pair, folder, monkeypatch, moves):
    """At the worst moment: when the list is open and no file is, or one is; and where the files are those of the next
    generation, while the one after that is the first again, by its content."""
    outputs, attempt, calls = [form(X) for form in pair], _generation._attempt, []

    def meddled(place, name):
        opened = attempt(place, name)
        calls.append(name)
        if len(calls) == (2 if moves == "file" else 1):
            pair[1].save(folder)
        if len(calls) == 3 and moves == "twice":
            pair[0].save(folder)
        return opened

    monkeypatch.setattr(_generation, "_attempt", meddled)
    found = load(folder)(X)
    assert torch.equal(found, outputs[0 if moves == "twice" else 1])
    assert len(calls) > 4  # it was read anew


def test_one_writer_at_a_time(pair, folder, monkeypatch, tmp_path):
    """A save waits for another; and tells where it would wait for ever. A run holds its folder while it trains."""
    monkeypatch.setattr(_store, "_PATIENCE", 0.05)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    holder = os.open(folder, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    try:
        with pytest.raises(CheckpointError, match=r"another process is writing into this folder right now\. Wait"):
            pair[1].save(folder)
        with pytest.raises(CheckpointError, match="another process is training into this folder"):
            train.save(nn.mlp(depth=1, width=4), data.mnist1d(), folder)
        assert torch.equal(load(folder)(X), pair[0](X))  # reading is free
    finally:
        os.close(holder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert torch.equal(load(pair[1].save(folder))(X), pair[1](X))


def test_a_form_is_not_saved_among_the_files_of_a_run(pair, tmp_path):
    """They share the name weights.safetensors, and the run would be loaded with the form's."""
    folder = tmp_path / "run"
    train.save(nn.mlp(depth=1, width=4), data.mnist1d(), folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(
        CheckpointError, match=r"holds something else, a run of training perhaps: config\.json, metrics"
    ):
        pair[0].save(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("layouts", [{"weight": 1}, {"weight": {"shift": 64}}, {"weight": {"strides": [-1, 1]}}, 3])
def test_a_layout_that_is_none_is_refused(folder, layouts):
    facts = json.loads((folder / "form.json").read_text())
    (folder / "form.json").write_text(json.dumps({**facts, "layouts": layouts}))
    with pytest.raises(CheckpointError, match="is no description of a form: "):
        load(signed(folder))


@pytest.mark.parametrize("strides", [[10**6, 1], [0, 1], [1], [2**62, 2**62]])
def test_a_layout_that_does_not_fit_takes_no_memory_and_changes_no_number(pair, folder, strides):
    facts = json.loads((folder / "form.json").read_text())
    layouts = {"weight": {"strides": strides, "shift": 3}}
    (folder / "form.json").write_text(json.dumps({**facts, "layouts": layouts}))
    form = load(signed(folder))
    assert form.state["weight"].is_contiguous()
    assert torch.equal(form(X), pair[0](X))


def test_a_kill_while_another_saves_leaves_a_form(pair, tmp_path):
    folder = tmp_path / "form"
    with saver(folder) as other:
        assert other.stdout.readline() == "both\n"
        other.kill()
    assert any(torch.equal(load(folder)(X), form(X)) for form in pair)
    assert torch.equal(load(pair[0].save(folder))(X), pair[0](X))
    assert not (Path(folder) / ".writing").exists()
    trace(_savers.Net(0, "sin"), X)
