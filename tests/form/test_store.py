"""A form saved and loaded: without the model's code, and without running anything from the folder."""

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from unbraid import ResidualForm, chain, nn, trace
from unbraid.errors import CheckpointError, TraceError


@pytest.fixture(scope="module")
def images():
    return torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def network():
    return nn.conv2d(inputs=1, layers=8, width=4, generator=torch.Generator().manual_seed(0)).eval()


@pytest.fixture(scope="module")
def saved(network, images, tmp_path_factory):
    return trace(network, images).save(tmp_path_factory.mktemp("form") / "saved")


def test_a_loaded_form_computes_what_the_model_computes(network, images, saved):
    form = ResidualForm.load(saved)
    larger = torch.cat([images, images + 1])
    assert torch.equal(form(larger), network(larger))
    assert form.verify(images).error < 1e-5
    fresh = trace(network, images)
    assert form.blocks == fresh.blocks
    assert form.path_counts() == fresh.path_counts()
    assert str(form.signature) == str(fresh.signature)


def test_the_models_code_is_not_needed(saved, images, network):
    code = (
        "import sys, torch, unbraid; form = unbraid.ResidualForm.load(sys.argv[1]);"
        "x = torch.load(sys.argv[2], weights_only=True); torch.save(form(x), sys.argv[2]);"
        "assert 'unbraid.nn' not in sys.modules"
    )
    exchange = saved / "exchange.pt"
    torch.save(images, exchange)
    subprocess.run([sys.executable, "-W", "error::ResourceWarning", "-c", code, str(saved), str(exchange)], check=True)
    assert torch.equal(torch.load(exchange, weights_only=True), network(images))


def test_deletions_are_kept(network, images, tmp_path):
    form = trace(network, images).without(1)
    loaded = ResidualForm.load(form.save(tmp_path / "a"))
    assert torch.equal(loaded(images), form(images))
    assert not torch.equal(loaded(images), network(images))


def test_a_chain_is_kept(network, images, tmp_path):
    form = chain(network.plain(), images, layers=["layers.0", "layers.1", "layers.2"])
    loaded = ResidualForm.load(form.save(tmp_path / "a"))
    assert loaded.path_counts() == [0, 0, 0, 1]
    assert [block.name for block in loaded.blocks] == ["layers.0", "layers.1", "layers.2"]
    assert torch.equal(loaded(images), form(images))


def test_a_recorded_run_is_not_saved(network, images, tmp_path):
    with pytest.raises(TraceError, match="one recorded run"):
        trace(network, images, tracer="dispatch").save(tmp_path / "a")


@pytest.mark.parametrize("name", ["graph.pt2", "weights.safetensors", "form.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "half", "noise"])
def test_damage_is_named(saved, tmp_path, name, damage):
    folder = _copied(saved, tmp_path)
    content = (folder / name).read_bytes()
    if damage == "missing":
        (folder / name).unlink()
    else:
        (folder / name).write_bytes({"empty": b"", "half": content[: len(content) // 2], "noise": b"\x07" * 99}[damage])
    with pytest.raises(CheckpointError, match="load: "):
        ResidualForm.load(folder)


def test_weights_that_the_graph_reads_must_be_there(saved, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = _copied(saved, tmp_path)
    weights = load_file(folder / "weights.safetensors")
    del weights["stem.0.weight"]
    save_file(weights, folder / "weights.safetensors")
    with pytest.raises(CheckpointError, match=r"lacks 'stem\.0\.weight'"):
        ResidualForm.load(folder)


def test_another_version_is_refused(saved, tmp_path):
    folder = _copied(saved, tmp_path)
    facts = json.loads((folder / "form.json").read_text())
    (folder / "form.json").write_text(json.dumps({**facts, "version": 99}))
    with pytest.raises(CheckpointError, match="version 99; this unbraid reads 1"):
        ResidualForm.load(folder)


class _Runs:
    """Unpickling this makes a folder."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (self.mark,)


@pytest.mark.parametrize("place", ["sample_inputs", "weights", "constants"])
def test_nothing_in_the_folder_runs(saved, tmp_path, place):
    """torch.export falls back to unpickling: a form with a pickle in any such place is refused before it gets there."""
    folder = _copied(saved, tmp_path)
    mark = tmp_path / "it ran"
    hostile = io.BytesIO()
    torch.save({"a": _Runs(str(mark))}, hostile)
    _planted(folder / "graph.pt2", place, hostile.getvalue())
    with pytest.raises(CheckpointError, match=r"could run code|would run code"):
        ResidualForm.load(folder)
    assert not mark.exists()


def _planted(path: Path, place: str, content: bytes) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    for name in list(entries):
        if place == "sample_inputs" and "sample_inputs" in name:
            entries[name] = content
        if place != "sample_inputs" and name.endswith(f"model_{place}_config.json"):
            root = name.rsplit("/", 1)[0]
            entries[f"{root}/hostile"] = content
            meta = {"path_name": "hostile", "is_param": False, "use_pickle": True, "tensor_meta": None}
            entries[name] = json.dumps({"config": {"x": meta}}).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


def _copied(folder: Path, target: Path) -> Path:
    copy = target / "copy"
    copy.mkdir()
    for name in ("graph.pt2", "weights.safetensors", "form.json"):
        (copy / name).write_bytes((folder / name).read_bytes())
    return copy
