"""The promises of docs/security.md, one test each at least."""

import builtins
import io
import json
import os
import re
import stat
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import torchvision_stub  # noqa: F401
from cli._run import invoke
from sums import signed
from unbraid import _folder, data, draw, nn, trace, train
from unbraid.data import _files
from unbraid.errors import CheckpointError, DataError
from unbraid.form import load
from unbraid.reports import Page, write

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def form(tmp_path_factory):
    network = nn.mlp(inputs=3, classes=2, width=3, depth=1, generator=torch.Generator().manual_seed(0)).eval()
    return trace(network, torch.zeros(2, 3)).save(tmp_path_factory.mktemp("form") / "saved")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    network = nn.mlp(width=8, depth=2, norm=None, generator=torch.Generator().manual_seed(0))
    train.save(network, data.mnist1d(), folder)
    return folder


def copied(folder, target):
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def rewritten(form, target, change):
    """A saved form whose graph's members went through a function of their names and contents."""
    folder = copied(form, target)
    with zipfile.ZipFile(form / "graph.pt2") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(folder / "graph.pt2", "w") as archive:
        for name, content in change(members).items():
            archive.writestr(name, content)
    return signed(folder)


def in_model(find, put):
    def change(members):
        (name,) = [name for name in members if name.endswith("models/model.json")]
        model = members[name].decode()
        assert find in model
        return {**members, name: model.replace(find, put, 1).encode()}

    return change


SIZE = "Symbol('s77', positive=True, integer=True)"


def hostile(kind, mark):
    runs = f"__import__('os').mkdir('{mark}')"
    spec = json.dumps(json.dumps([1, {"type": "builtins.dict", "context": "X", "children_spec": []}]))
    enum = json.dumps({"__enum__": True, "fqn": "hostile_module:x", "name": "x"})
    return {
        "a size that is Python": in_model(SIZE, runs),
        "a size with Python inside": in_model(SIZE, f"Max({runs}, 1)"),
        "a size that never ends": in_model(SIZE, "Pow(Integer(10), Integer(10000000000))"),
        "a function of torch's modules": in_model("torch.ops.aten.relu.default", "torch.os.system"),
        "an operator that writes a file": in_model("torch.ops.aten.relu.default", "torch.ops.aten.save.default"),
        "an extension": in_model("torch.ops.aten.relu.default", "#hostile"),
        "a module that is imported": in_model(
            re.search('"in_spec": ("(?:[^"\\\\]|\\\\.)*")', text_of_model()).group(1),
            spec.replace("X", json.dumps(json.dumps(enum)[1:-1])[1:-1]),
        ),
        "a native library": lambda members: {**members, "archive/data/aotinductor/model/x.so": b"\x7fELF"},
        "an escaped flag": lambda members: {
            name: content.replace(b'"use_pickle": false', b'"use_p\\u0069ckle":\n true')
            for name, content in members.items()
        },
    }[kind]


_model: list[str] = []


def text_of_model():
    return _model[0]


KINDS = (
    *("a size that is Python", "a size with Python inside", "a size that never ends", "a function of torch's modules"),
    *("an operator that writes a file", "an extension", "a module that is imported", "a native library"),
    "an escaped flag",
)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_in_a_saved_form_runs(form, tmp_path, kind, monkeypatch):
    with zipfile.ZipFile(form / "graph.pt2") as archive:
        _model[:] = [archive.read("archive/models/model.json").decode()]
    mark = tmp_path / "it ran"
    (tmp_path / "hostile_module.py").write_text(f"import os; os.mkdir({str(mark)!r})")
    monkeypatch.syspath_prepend(tmp_path)
    folder = rewritten(form, tmp_path / "copy", hostile(kind, mark))
    with pytest.raises(CheckpointError, match="load: "):
        load(folder)
    assert not mark.exists()
    assert "hostile_module" not in sys.modules


@pytest.mark.parametrize("kind", ["a size that is Python", "a module that is imported"])
def test_torch_itself_would_run_it(form, tmp_path, kind, monkeypatch):
    """The attack is one: the reader that the form's check stands before falls for it."""
    with zipfile.ZipFile(form / "graph.pt2") as archive:
        _model[:] = [archive.read("archive/models/model.json").decode()]
    mark = tmp_path / "it ran"
    (tmp_path / "hostile_module.py").write_text(f"import os; os.mkdir({str(mark)!r})")
    folder = rewritten(form, tmp_path / "copy", hostile(kind, mark))
    code = "import sys, torch; torch.export.load(sys.argv[1])"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code, str(folder / "graph.pt2")], env=environment, capture_output=True)
    assert mark.exists()


def test_members_come_once_and_uncompressed(form, tmp_path):
    def twice(members):
        with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(tmp_path / "twice", "w") as archive:
            for name, content in (*members.items(), ("archive/models/model.json", b"{}")):
                archive.writestr(name, content)
        return members

    folder = rewritten(form, tmp_path / "copy", twice)
    (folder / "graph.pt2").write_bytes((tmp_path / "twice").read_bytes())
    with pytest.raises(CheckpointError, match="each name once"):
        load(signed(folder))
    with zipfile.ZipFile(form / "graph.pt2") as old, zipfile.ZipFile(folder / "graph.pt2", "w", 8) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(CheckpointError, match="is compressed"):
        load(signed(folder))


def test_weights_of_another_shape_are_refused(form, tmp_path):
    folder = copied(form, tmp_path / "copy")
    weights = load_file(folder / "weights.safetensors")
    save_file({**weights, "head.bias": torch.zeros(7)}, folder / "weights.safetensors")
    with pytest.raises(CheckpointError, match=r"head\.bias is torch\.float32 \[7\] there, and torch\.float32 \[2\]"):
        load(signed(folder))
    facts = json.loads((form / "form.json").read_text())
    (copied(form, tmp_path / "other") / "form.json").write_text(json.dumps({**facts, "deletions": [99]}))
    with pytest.raises(CheckpointError, match="holds no form: "):
        load(signed(tmp_path / "other"))


def test_archives_that_fill_the_memory_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(_files, "_MOST_BYTES", 2**16)
    np.savez_compressed(tmp_path / "bomb.npz", x=np.zeros((2**18, 1)), y=np.zeros(2**18))
    with pytest.raises(DataError, match=r"unpacks to [\d,]+ is refused"):
        data.load(tmp_path / "bomb.npz")
    linear = torch.nn.Linear(2, 2)
    file = io.BytesIO()
    torch.save(linear.state_dict(), file)
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(tmp_path / "bomb.pt", "w", 8) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name) + bytes(2**16))
    result = invoke("trace", _factory(tmp_path), "--weights", str(tmp_path / "bomb.pt"))
    assert result.status == 2
    assert re.search(r"bomb\.pt has [\d,]+ bytes and unpacks to [\d,]+: it was not read", result.stderr)


def _factory(folder, body="return nn.Linear(2, 2), torch.zeros(2, 2)"):
    (folder / "model.py").write_text(f"import torch\nfrom torch import nn\ndef make():\n    {body}\n")
    return f"{folder / 'model.py'}:make"


def test_a_factory_is_the_users_own_code_and_the_help_says_so(tmp_path):
    assert "FILE.py:FACTORY (whose code is run)" in " ".join(invoke("trace", "--help").stdout.replace("│", " ").split())
    assert "a function in a Python file, which is run" in invoke("trace").stderr
    result = invoke("trace", _factory(tmp_path, "raise KeyError('x')"))
    assert (result.status, result.stderr.count("\n")) == (2, 1)
    assert "make in" in result.stderr
    assert "cannot be called: KeyError: 'x'" in result.stderr


GPT2 = {"model_type": "gpt2", "n_embd": 8, "n_head": 2, "n_layer": 1, "vocab_size": 16}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["gpt2", "of its own"])
def test_code_beside_a_configuration_is_not_run(tmp_path, kind, monkeypatch):
    pytest.importorskip("transformers")
    mark = tmp_path / "it ran"
    (tmp_path / "modeling.py").write_text(
        f"import os\nos.mkdir({str(mark)!r})\nclass Config: pass\nclass Model: pass\n"
    )
    mapped = {"AutoConfig": "modeling.Config", "AutoModel": "modeling.Model"}
    facts = {**GPT2, "model_type": kind, "auto_map": mapped, "architectures": ["Nothing"]}
    (tmp_path / "config.json").write_text(json.dumps(facts))
    monkeypatch.setattr(builtins, "input", lambda *_: pytest.fail("it asks whether to run code"))
    result = invoke("trace", f"hf:{tmp_path}")
    assert result.status == (0 if kind == "gpt2" else 2), result.stderr
    assert not mark.exists()


@pytest.mark.filterwarnings("ignore")
def test_a_configuration_names_classes_of_models_alone(tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers")
    monkeypatch.setattr(transformers, "pipeline", lambda *_: pytest.fail("a name in a file was called"))
    (tmp_path / "config.json").write_text(json.dumps({**GPT2, "architectures": ["pipeline"]}))
    assert invoke("trace", f"hf:{tmp_path / 'config.json'}").status == 0
    (tmp_path / "config.json").write_text(json.dumps({**GPT2, "attn_implementation": "someone/kernels"}))
    result = invoke("trace", f"hf:{tmp_path / 'config.json'}")
    assert result.status == 2
    assert "code from elsewhere" in result.stderr


@pytest.mark.parametrize(("key", "value"), [("depth", 10**9), ("width", 10**9), ("classes", -1), ("order", "x")])
def test_a_run_cannot_ask_for_more_than_its_weights_hold(run, tmp_path, key, value):
    folder = copied(run, tmp_path / "copy")
    facts = json.loads((folder / "config.json").read_text())
    facts["network"][key] = value
    _folder.write(folder, {"config.json": lambda path: path.write_text(json.dumps(facts))})
    result = invoke("trace", str(folder))
    assert (result.status, result.stderr.count("\n")) == (2, 1), result.stderr


def test_weights_that_are_no_numbers_are_no_exact_form(run, tmp_path):
    folder = copied(run, tmp_path / "copy")
    weights = load_file(folder / "weights.safetensors")
    broken = {name: torch.full_like(value, torch.nan) for name, value in weights.items()}
    _folder.write(folder, {"weights.safetensors": lambda path: save_file(broken, path)})
    result = invoke("trace", str(folder))
    assert (result.status, result.stderr.count("\n")) == (2, 1), (result.stdout, result.stderr)


def test_a_link_in_a_run_moves_nothing(run, tmp_path):
    folder, precious = copied(run, tmp_path / "copy"), tmp_path / "precious"
    precious.mkdir()
    (precious / "letter.txt").write_text("kept")
    (folder / ".committed").symlink_to(precious)
    with pytest.raises(CheckpointError, match="this is a link"):
        _folder.write(folder, {"config.json": lambda path: path.write_text("{}")})
    assert (precious / "letter.txt").read_text() == "kept"


def test_links_among_images_end(tmp_path):
    pytest.importorskip("PIL.Image")
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "again").symlink_to(tmp_path / "cat")
    with pytest.raises(DataError, match="this link leads back"):
        data.images(tmp_path)


GRIDS = {
    "seeds = 10000000000": "more runs than",
    "lr = 1" + "0" * 400: "too large",
    "depth = " + "[" * 5000: "nested too deeply",
    "depth = [" + "1," * 400 + "]\nwidth = [" + "1," * 400 + "]": "160,000 runs",
    "#" * 2**21: "bytes is refused",
}


@pytest.mark.parametrize("text", GRIDS, ids=range(len(GRIDS)))
def test_a_grid_too_large_is_one_line(tmp_path, text):
    path = tmp_path / "grid.toml"
    path.write_text(text)
    result = invoke("sweep", str(path))
    assert (result.status, result.stderr.count("\n")) == (2, 1), result.stderr
    assert GRIDS[text] in result.stderr


@pytest.mark.parametrize("shape", ["9" * 40, "4294967295,4294967295", "1,,2"])
def test_a_shape_too_large_is_one_line(tmp_path, shape):
    result = invoke("trace", _factory(tmp_path), "--input-shape", shape)
    assert (result.status, result.stderr.count("\n")) == (2, 1), result.stderr


def test_what_is_being_written_is_private(tmp_path, monkeypatch):
    """Files are finished in a folder that only their owner can enter; what they become is as open as any file."""
    modes, replace = [], Path.replace

    def watched(self, target):
        modes.append(stat.S_IMODE(self.parent.stat().st_mode))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    write(Page("title", ()), tmp_path / "page.html")
    draw.save(draw.unravelled(2), tmp_path / "figure.svg")
    _folder.write(
        tmp_path / "run", {"x": lambda path: modes.append(stat.S_IMODE(path.parent.stat().st_mode)) or path.touch()}
    )
    assert modes == [0o700] * 4
    umask = os.umask(0)
    os.umask(umask)
    for name in ("page.html", "report.json", "figure.svg", "run/x"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o666 & ~umask
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figure.svg", "page.html", "report.json", "run"]


def test_every_promise_has_its_tests():
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert len(named) >= 15
    for file, name in named:
        assert f"\ndef {name}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file} has no test {name}"
    promises = [line for line in text.splitlines() if line.startswith("- ")]
    for promise in re.split(r"\n- ", text)[1:]:
        assert "`tests/" in promise, promise
    assert promises
