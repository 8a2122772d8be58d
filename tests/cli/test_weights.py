"""Weights from a file: every name and shape checked, and nothing that would run code read."""

import os

import pytest
import torch
from safetensors.torch import save_file

from unbraid import nn
from unbraid.cli.models._weights import load_weights
from unbraid.errors import CheckpointError


def network(seed: int):
    return nn.mlp(depth=2, width=4, norm=None, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_weights_are_loaded(tmp_path, suffix):
    path, wanted, model = tmp_path / f"w.{suffix}", network(1), network(2)
    (save_file if suffix == "safetensors" else torch.save)(dict(wanted.state_dict()), path)
    load_weights(model, path)
    assert all(torch.equal(a, b) for a, b in zip(wanted.parameters(), model.parameters(), strict=True))


def test_a_pickle_does_not_run(tmp_path):
    class Runs:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "it ran"),)

    torch.save({"a": Runs()}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="reading it could run code: it was not read"):
        load_weights(network(0), tmp_path / "w.pt")
    assert not (tmp_path / "it ran").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("head.bias"), r"it lacks head\.bias"),
        (lambda state: state.update(other=torch.zeros(1)), "it has other, which the model has not"),
        (lambda state: state.update({"head.bias": torch.zeros(3)}), r"it has head\.bias \[3\], the model \[10\]"),
    ],
)
def test_weights_must_fit(tmp_path, change, message):
    state = dict(network(0).state_dict())
    change(state)
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=message):
        load_weights(network(0), tmp_path / "w.safetensors")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
@pytest.mark.parametrize("content", [b"", b"\x07" * 99])
def test_damage_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        load_weights(network(0), tmp_path / name)


def test_a_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match="there is no file"):
        load_weights(network(0), tmp_path / "none.pt")


def test_something_else_than_a_state_dict(tmp_path):
    torch.save([torch.zeros(1)], tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="must hold a state dict"):
        load_weights(network(0), tmp_path / "w.pt")
