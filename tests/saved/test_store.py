"""A form saved and loaded: without the model's code, and without running anything from the folder."""

import io
import json
import os
import subprocess
import sys
import weakref
import zipfile
from pathlib import Path

import pytest
import torch

from sums import signed
from unbraid import chain, nn, trace
from unbraid.errors import CheckpointError, TraceError
from unbraid.form import load
from unbraid.saved import _store, _tensors


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
    form = load(saved)
    larger = torch.cat([images, images + 1])
    assert torch.equal(form(larger), network(larger))
    assert form.verify(images).error < 1e-5
    fresh = trace(network, images)
    assert form.blocks == fresh.blocks
    assert form.path_counts() == fresh.path_counts()
    assert str(form.signature) == str(fresh.signature)


def test_the_models_code_is_not_needed(saved, images, network):
    code = (
        "import sys, torch, unbraid; form = unbraid.load(sys.argv[1]);"
        "x = torch.load(sys.argv[2], weights_only=True); torch.save(form(x), sys.argv[2]);"
        "assert 'unbraid.nn' not in sys.modules"
    )
    exchange = saved / "exchange.pt"
    torch.save(images, exchange)
    subprocess.run([sys.executable, "-W", "error::ResourceWarning", "-c", code, str(saved), str(exchange)], check=True)
    assert torch.equal(torch.load(exchange, weights_only=True), network(images))


def test_deletions_are_kept(network, images, tmp_path):
    form = trace(network, images).without(1)
    loaded = load(form.save(tmp_path / "a"))
    assert torch.equal(loaded(images), form(images))
    assert not torch.equal(loaded(images), network(images))


def test_a_chain_is_kept(network, images, tmp_path):
    form = chain(network.plain(), images, layers=["layers.0", "layers.1", "layers.2"])
    loaded = load(form.save(tmp_path / "a"))
    assert loaded.path_counts() == [0, 0, 0, 1]
    assert [block.name for block in loaded.blocks] == ["layers.0", "layers.1", "layers.2"]
    assert torch.equal(loaded(images), form(images))


def test_a_recorded_run_is_not_saved(network, images, tmp_path):
    with pytest.raises(TraceError, match="one recorded run"):
        trace(network, images, tracer="dispatch").save(tmp_path / "a")


@pytest.mark.parametrize("name", ["graph.pt2", "weights.safetensors", "form.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "half", "noise"])
@pytest.mark.parametrize("sign", [False, True])
def test_damage_is_named(saved, tmp_path, name, damage, sign):
    folder = _copied(saved, tmp_path)
    content = (folder / name).read_bytes()
    if damage == "missing":
        (folder / name).unlink()
    else:
        (folder / name).write_bytes({"empty": b"", "half": content[: len(content) // 2], "noise": b"\x07" * 99}[damage])
    with pytest.raises(CheckpointError, match=r"^load: "):
        load(signed(folder) if sign else folder)


def test_weights_that_the_graph_reads_must_be_there(saved, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = _copied(saved, tmp_path)
    weights = load_file(folder / "weights.safetensors")
    del weights["stem.0.weight"]
    save_file(weights, folder / "weights.safetensors")
    with pytest.raises(CheckpointError, match=r"lacks 'stem\.0\.weight'"):
        load(signed(folder))


def test_another_version_is_refused(saved, tmp_path):
    folder = _copied(saved, tmp_path)
    facts = json.loads((folder / "form.json").read_text())
    (folder / "form.json").write_text(json.dumps({**facts, "version": 99}))
    with pytest.raises(CheckpointError, match="version 99; this unbraid reads 1 and 2"):
        load(signed(folder))


def test_a_form_saved_before_weights_were_listed_is_read(saved, tmp_path, network, images):
    """And before there were checksums: of version 1. One of today's whose checksums are missing is refused."""
    folder = _copied(saved, tmp_path)
    (folder / "SHA256SUMS").unlink()
    with pytest.raises(CheckpointError, match=r"lacks SHA256SUMS, with which its files are checked\. Copy the whole"):
        load(folder)
    facts = json.loads((folder / "form.json").read_text())
    assert facts.pop("weights") == ["weights.safetensors"]
    assert facts.pop("layouts") == {}
    (folder / "form.json").write_text(json.dumps({**facts, "version": 1}))
    for stream in (False, True):
        assert torch.equal(load(folder, stream=stream)(images), network(images))
    again = load(folder).without(0).save(folder)
    assert torch.equal(load(again)(images), trace(network, images).without(0)(images))


@pytest.mark.parametrize(
    "weights", [["../weights.safetensors"], "weights.safetensors", [1], [f"weights-{'1' * 999}.safetensors"]]
)
def test_weights_lie_in_the_folder(saved, tmp_path, weights):
    folder = _copied(saved, tmp_path)
    (tmp_path / "weights.safetensors").write_bytes((saved / "weights.safetensors").read_bytes())
    facts = json.loads((folder / "form.json").read_text())
    (folder / "form.json").write_text(json.dumps({**facts, "weights": weights}))
    with pytest.raises(CheckpointError, match="is no description of a form: weights is"):
        load(signed(folder))


@pytest.mark.parametrize("stream", [False, True])
def test_many_weights_go_into_several_files(network, images, tmp_path, monkeypatch, stream):
    whole = trace(network, images)
    monkeypatch.setattr(_store, "_SHARD", 2000)
    form = load(whole.save(tmp_path / "a"), stream=stream)
    files = sorted(path.name for path in (tmp_path / "a").glob("*.safetensors"))
    assert files == [f"weights-{n:05}.safetensors" for n in range(1, len(files) + 1)]
    assert len(files) > 2
    assert torch.equal(form(images), network(images))
    again = load(form.without(1).save(tmp_path / "b"))
    assert torch.equal(again(images), whole.without(1)(images))


def test_a_streamed_form_is_saved_file_by_file(network, images, tmp_path, monkeypatch):
    """No more than one file's tensors are in memory; with all weights in one file all of them are."""
    form = load(trace(network, images).save(tmp_path / "a"), stream=True)
    alive, read = set(), _tensors.Stored.read

    def noted(entry):
        tensor = read(entry)
        alive.add(id(tensor))
        weakref.finalize(tensor, alive.remove, id(tensor))
        most.append(len(alive))
        return tensor

    monkeypatch.setattr(_tensors.Stored, "read", noted)
    most = []
    form.save(tmp_path / "whole")
    assert max(most) == len(form.state) > 10
    monkeypatch.setattr(_store, "_SHARD", 1)
    most = []
    form.save(tmp_path / "shards")
    assert max(most) == 1


def test_of_weights_saved_over_others_the_new_ones_count(tmp_path, monkeypatch):
    """For `form.with_weights` as well: with files no longer named, and with files committed and not yet moved."""
    x = torch.randn(3, 40, generator=torch.Generator().manual_seed(1))
    models = [nn.mlp(depth=2, width=20, norm=None, generator=torch.Generator().manual_seed(n)).eval() for n in (0, 1)]
    old, new = (trace(model, x) for model in models)
    empty = trace(models[0], x, device="meta")
    for before, after in ((1, 1e9), (1e9, 1500), (1, 4000)):
        folder = tmp_path / f"{before}"
        monkeypatch.setattr(_store, "_SHARD", before)
        old.save(folder)
        monkeypatch.setattr(_store, "_SHARD", after)
        named = json.loads((new.save(folder) / "form.json").read_text())["weights"]
        assert sorted(path.name for path in folder.glob("*.safetensors")) == named
        assert torch.equal(empty.with_weights(folder)(x), new(x))
        assert torch.equal(load(folder)(x), new(x))
    monkeypatch.setattr(_store, "_SHARD", 1e9)
    folder = old.save(tmp_path / "pending")
    new.save(tmp_path / "new").rename(folder / ".committed")
    for form in (empty.with_weights(folder), empty.with_weights(folder, stream=True), load(folder)):
        assert torch.equal(form(x), new(x))
        assert not torch.equal(form(x), old(x))


def test_a_full_disk_leaves_the_form_that_was_there(saved, tmp_path, network, images):
    """A limit on the size of files stands in for a full disk: of the graph, of the weights."""
    resource = pytest.importorskip("resource")
    folder, other = _copied(saved, tmp_path), trace(network, images).without(0)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    sizes = {name: (saved / name).stat().st_size for name in ("graph.pt2", "weights.safetensors")}
    assert sizes["graph.pt2"] > sizes["weights.safetensors"]
    for most in (sizes["graph.pt2"] // 2, sizes["weights.safetensors"] // 2):
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
        try:
            with pytest.raises(CheckpointError, match=r"cannot be written: .* What it held before"):
                other.save(folder)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert torch.equal(load(folder)(images), network(images))
    assert torch.equal(load(other.save(folder))(images), other(images))


def test_a_place_that_is_taken_is_named_and_the_new_form_counts(saved, tmp_path, network, images):
    folder, other = _copied(saved, tmp_path), trace(network, images).without(0)
    (folder / "graph.pt2").unlink()
    (folder / "graph.pt2").mkdir()
    with pytest.raises(
        CheckpointError, match=r"its new files count, but the folder cannot be put in order: .*\.committed"
    ):
        other.save(folder)
    assert torch.equal(load(folder)(images), other(images))


def test_a_kill_at_any_touch_of_the_folder_leaves_one_form_or_the_other(tmp_path):
    program = Path(__file__).with_name("_killed_form.py")
    done = subprocess.run([sys.executable, str(program), str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) > 10
    assert set(found) == {"old", "new"}
    assert found == sorted(found, reverse=True)  # one moment at which the new one counts, and no way back


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
        load(signed(folder))
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
    for name in ("graph.pt2", "weights.safetensors", "form.json", "SHA256SUMS"):
        (copy / name).write_bytes((folder / name).read_bytes())
    return copy
