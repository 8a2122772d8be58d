"""A run that learned a file's data is used from any folder; with --data, on others."""

import json
import shutil

import numpy as np
import pytest
import torch

from cli._run import invoke
from unbraid import data, nn, train
from unbraid.errors import DataError


def three(path, seed=0):
    labels = np.arange(120) % 3
    inputs = np.eye(3, 8)[labels] * 2 + np.random.default_rng(seed).normal(size=(120, 8))
    np.savez(path, x=inputs.astype("float32"), y=labels)
    return path


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Trained from one folder on a file in another, by a path that is relative; we stand in a third."""
    for name in ("there", "here", "elsewhere"):
        (tmp_path / name).mkdir()
    three(tmp_path / "elsewhere" / "d.npz")
    monkeypatch.chdir(tmp_path / "there")
    options = ("--depth", "2", "--width", "6", "--epochs", "1", "--data", "../elsewhere/d.npz")
    assert invoke("train", "../run", *options).status == 0
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "run"


COMMANDS = {
    "trace": ["trace"],
    "paths": ["paths"],
    "unravel": ["unravel"],
    "lesion": ["lesion", "--json"],
    "prune": ["prune", "--drop", "0", "--json"],
    "report": ["report", "-o", "page.html", "--skip", "terms,lens,spectrum,values,paths,lesions,orders,signal"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_from_another_folder(run, name):
    verb, *options = COMMANDS[name]
    result = invoke(verb, str(run), *options)
    assert (result.status, "random" in result.stderr) == (0, False), result.stderr


@pytest.mark.parametrize("name", ["lesion", "prune", "report"])
@pytest.mark.parametrize("gone", [False, True])
def test_an_option_given_wins(run, tmp_path, name, gone):
    verb, *options = COMMANDS[name]
    if gone:
        shutil.rmtree(tmp_path / "elsewhere")
    three(tmp_path / "here" / "d.npz", seed=1)
    three(tmp_path / "here" / "other.npz", seed=2)
    for given in ("d.npz", "other.npz"):
        result = invoke(verb, str(run), *options, "--data", given)
        assert (result.status, "random" in result.stderr) == (0, False), result.stderr
        if name == "lesion":
            assert json.loads(result.stdout)["data"] == given


def test_what_is_gone_or_another_is_named_with_the_remedy(run, tmp_path):
    """A file of the same name that is not the same is never taken for it."""
    path = tmp_path / "elsewhere" / "d.npz"
    path.unlink()
    result = invoke("lesion", str(run))
    assert (result.status, result.stderr.splitlines()[-1].count("are not there: ")) == (2, 1), result.stderr
    assert f"{path} or d.npz. Say which to take (--data)." in result.stderr
    for place in (path, tmp_path / "here" / "d.npz"):
        three(place, seed=1)
        result = invoke("lesion", str(run))
        assert result.status == 2
        assert "are others by their checksum" in result.stderr
        place.unlink()
    shutil.move(three(tmp_path / "d.npz"), tmp_path / "here" / "d.npz")  # the same, and here
    assert invoke("lesion", str(run)).status == 0


def test_without_its_data_a_run_is_traced_on_numbers_of_their_sizes(run, tmp_path):
    (tmp_path / "elsewhere" / "d.npz").unlink()
    result = invoke("trace", str(run))
    assert result.status == 0
    assert result.stdout.startswith("2 blocks")
    assert "unbraid: traced on random numbers. " in result.stderr


def test_the_place_of_the_data_does_not_tell_runs_apart(run, tmp_path):
    shutil.move(tmp_path / "elsewhere" / "d.npz", tmp_path / "here" / "moved.npz")
    shutil.move(tmp_path / "here" / "moved.npz", tmp_path / "here" / "d.npz")
    options = ("--depth", "2", "--width", "6", "--epochs", "1", "--data", "d.npz")
    result = invoke("train", str(run), *options, "--resume")
    assert result.status == 0, result.stderr


def test_a_run_gives_its_data_back_as_the_network_takes_them(run, tmp_path):
    read = train.load(run)
    again = read.dataset()
    assert read.features == (8,)
    assert torch.equal(again.train_inputs, data.load(tmp_path / "elsewhere" / "d.npz").train_inputs)
    network = nn.mlp(inputs=40, classes=10, depth=1, width=4)
    saved = train.save(network, data.mnist1d().shaped(4, 10), tmp_path / "shaped").folder
    assert train.load(saved).dataset().features == (4, 10)
    made = data.from_arrays(np.eye(6, 3), np.arange(6) % 3, test_fraction=0.5)
    with pytest.raises(DataError, match=r"shaped: the data that it was trained on are not there: arrays\. Say which"):
        train.load(train.save(network, made, tmp_path / "arrays-shaped").folder).dataset()


@pytest.mark.parametrize("change", [{"path": 7}, {"path": "a\0b"}, {"features": [10**9, 10**9]}, {"features": "x"}])
def test_hostile_facts_of_the_data_are_not_believed(run, tmp_path, change):
    from sums import signed

    (tmp_path / "elsewhere" / "d.npz").unlink()
    facts = json.loads((run / "config.json").read_text())
    facts["data"].update(change)
    (run / "config.json").write_text(json.dumps(facts))
    result = invoke("trace", str(signed(run)))
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.status == (0 if "path" in change else 2)
