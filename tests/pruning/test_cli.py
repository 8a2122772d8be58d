"""The command: what it prints, what it keeps, and what it says to bad input."""

import json

import numpy as np
import pytest
import torch

import unbraid
from cli._run import invoke
from pruning._models import made
from unbraid import data, nn, train


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """A file of 300 examples: three classes around three points."""
    labels = np.arange(300) % 3
    inputs = np.eye(3, 8)[labels] * 2 + np.random.default_rng(0).normal(size=(300, 8))
    path = tmp_path_factory.mktemp("data") / "three.npz"
    np.savez(path, x=inputs.astype("float32"), y=labels)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory, examples):
    """A small network, trained a little."""
    folder = tmp_path_factory.mktemp("runs") / "mlp6"
    generator = torch.Generator().manual_seed(0)
    network = nn.mlp(inputs=8, classes=3, depth=6, width=20, norm=None, scale="1/sqrt(K)", generator=generator)
    train.fit(network, data.by_name(examples), train.Recipe(epochs=3), folder=folder, device="cpu")
    return folder


def facts(*arguments):
    result = invoke("prune", *map(str, arguments), "--json")
    assert result.status == 0, result.stderr
    return json.loads(result.stdout)


def test_keep_heal_save_and_load_again(run, examples, tmp_path):
    folder = tmp_path / "mlp4"
    found = facts(run, "--keep", "0.67", "--heal", "2", "--save", folder)
    assert len(found["removed"]) == 1  # 0.67 of 6 is a little more than 4
    scores = found["ranking"]["scores"]
    assert found["removed"] == [scores.index(min(scores))]
    assert found["ranking"]["by"] == "influence"
    assert found["ranking"]["examples"] == len(data.by_name(examples).train)
    assert set(found["accuracy"]) == {"before", "after", "healed"}

    again = train.load(folder)
    assert again.network.config["without"] == found["removed"]
    assert len(again.history) == 2
    test = data.by_name(examples).test
    with torch.no_grad():
        right = (again.network(test.inputs).argmax(1) == test.labels).float().mean().item()
    assert found["accuracy"]["healed"] == pytest.approx(100 * right)
    assert found["accuracy"]["healed"] == pytest.approx(100 - again.test_error)
    assert invoke("trace", str(folder)).stdout.startswith("5 blocks")
    # What was pruned once can be pruned again: indices are those of the smaller network.
    assert facts(folder, "--drop", "0")["modules"] == [f"blocks.{min({0, 1, 2, 3, 4, 5} - set(found['removed']))}"]


def test_drop_and_save_without_healing(run, examples, tmp_path):
    folder = tmp_path / "mlp4"
    found = facts(run, "--drop", "blocks.1,-2", "--save", folder)
    assert found["removed"] == [1, 4]
    assert found["ranking"] is None
    assert found["saved"]["kind"] == "run"
    again = train.load(folder)
    x = data.by_name(examples).test.inputs[:4]
    form = unbraid.trace(train.load(run).network, x)
    assert torch.allclose(again.network(x), form.without(1, 4)(x), atol=1e-6)
    carried_on = train.fit(again.network, data.by_name(examples), train.Recipe(epochs=3), folder=folder, resume=True)
    assert len(carried_on.history) == 3


@pytest.mark.parametrize("by", ["lesion", "gradient"])
def test_ranks_by_labels(run, by):
    found = facts(run, "--keep", "0.5", "--by", by, "--examples", "64")
    assert len(found["removed"]) == 3
    assert found["ranking"]["whole"] > 0


def test_people_see_tables(run):
    result = invoke("prune", str(run), "--drop", "0")
    assert result.status == 0
    assert "whole members of its lists were taken out" in " ".join(result.stdout.split())
    assert "accuracy on the test part: before" in result.stdout


@pytest.mark.slow
def test_transformers_are_saved_as_their_own(tmp_path):
    model, _, kwargs, _ = made("GPT2")
    model.save_pretrained(tmp_path / "gpt2")
    found = facts(f"hf:{tmp_path / 'gpt2'}", "--keep", "0.75", "--save", tmp_path / "smaller")
    assert found["how"] == "members"
    assert found["configuration"] == ["n_layer: 4 -> 3"]
    assert found["accuracy"] is None
    assert found["saved"]["kind"] == "pretrained"
    assert invoke("trace", f"hf:{tmp_path / 'smaller'}").stdout.startswith("6 blocks")
    part = facts(f"hf:{tmp_path / 'gpt2'}", "--drop", "3", "--save", tmp_path / "part")
    assert part["saved"]["kind"] == "form"
    form = unbraid.load(tmp_path / "part" / "form")
    assert form(**kwargs)["logits"].shape == (2, 6, 30)


FACTORY = """
import torch
def network():
    torch.manual_seed(0)
    block = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    return torch.nn.TransformerEncoder(block, 2), torch.randn(2, 3, 8)
"""


def test_bad_input_is_one_line(run, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "model.py").write_text(FACTORY)
    other = f"{tmp_path / 'model.py'}:network"
    for arguments, said in [
        ([run], "say what goes: either --drop 3,7 or --keep 0.75."),
        ([run, "--drop", "1", "--keep", "0.5"], "either --drop 3,7 or --keep 0.75"),
        ([run, "--drop", "one"], '--drop is blocks with commas between, such as 3,7, or 3:1 for a branch; got "one".'),
        (
            [run, "--drop", "blocks1"],
            """such as 3,7, or 3:1 for a branch; got "blocks1". There is no block 'blocks1'. Did""",
        ),
        ([run, "--drop", "1,,2"], 'or 3:1 for a branch; got "1,,2".'),
        ([run, "--drop", "17"], "--drop: there is no block 17; blocks are numbered 0 to 5."),
        ([run, "--drop", "1:4"], "--drop: block 1 has no branch 4; branches are numbered 0 to 0."),
        ([run, "--keep", "1.5"], "--keep is a share from 0 to 1; got 1.5."),
        ([run, "--drop", "1", "--save", tmp_path / "full"], "--save takes a new folder; there is something at"),
        ([run, "--drop", "1", "--data", "digits"], "does not take the inputs of digits, [2, 64]"),
        ([run, "--drop", "1", "--data", "nowhere"], '"nowhere" is no data set'),
        ([other, "--drop", "1", "--heal", "1"], "--heal trains on data that unbraid knows; give --data"),
        ([other, "--keep", "0.5", "--by", "lesion"], "--by lesion needs labels; give --data"),
        ([run, "--drop", "1", "--heal", "1", "--lr", "1e9"], "healing diverged at step"),
        (["nowhere", "--drop", "1"], '"nowhere" is no model'),
    ]:
        result = invoke("prune", *map(str, arguments))
        assert (result.status, result.stdout) == (2, ""), arguments
        assert result.stderr.count("\n") == 1, result.stderr
        assert said in result.stderr
    assert invoke("prune").status == 2
    assert "which model?" in invoke("prune").stderr
