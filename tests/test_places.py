"""Places that are not what they seem: links, pipes, devices and folders where files belong; and where nothing fits.

Nothing is waited for, nothing outside is read as ours or written, and each ends in one line.
"""

import os
import re
import resource
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import torch

import unbraid
from cli._run import invoke
from sums import signed
from unbraid import _folder, data, nn, train
from unbraid.errors import CheckpointError
from unbraid.form import load

LETTER = "precious"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    network = nn.mlp(width=6, depth=2, norm=None, generator=torch.Generator().manual_seed(0))
    train.save(network, data.mnist1d(), folder, train.Recipe(epochs=1, batch_size=4000))
    return folder


@pytest.fixture(scope="module")
def form(tmp_path_factory):
    network = nn.mlp(inputs=3, classes=2, width=3, depth=1, generator=torch.Generator().manual_seed(0)).eval()
    return unbraid.trace(network, torch.zeros(2, 3)).save(tmp_path_factory.mktemp("form") / "saved")


@pytest.fixture
def letter(tmp_path):
    """A file of the user's own, outside; it stays as it is."""
    path = tmp_path / "outside" / "letter.txt"
    path.parent.mkdir()
    path.write_text(LETTER)
    yield path
    assert [file.read_text() for file in path.parent.iterdir()] == [LETTER]


KINDS = {
    "pipe": lambda path, letter: os.mkfifo(path),
    "device": lambda path, letter: path.symlink_to("/dev/zero"),
    "nothing": lambda path, letter: path.symlink_to("/dev/null"),
    "circle": lambda path, letter: path.symlink_to(path.name),
    "folder": lambda path, letter: path.mkdir(),
    "outside": lambda path, letter: path.symlink_to(letter),
    "hard": lambda path, letter: os.link(letter, path),
    "gone": lambda path, letter: path.symlink_to("not there"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_no_file_of_a_run_is_a_link_to_what_it_is_not(run, letter, tmp_path, kind):
    for name in [path.name for path in run.iterdir()]:
        folder = shutil.copytree(run, tmp_path / name)
        (folder / name).unlink()
        KINDS[kind](folder / name, letter)
        with pytest.raises(CheckpointError) as raised:
            train.load(folder)
        assert LETTER not in str(raised.value)


@pytest.mark.parametrize("kind", KINDS)
def test_no_file_of_a_form_is_a_link_to_what_it_is_not(form, letter, tmp_path, kind):
    for name in [path.name for path in form.iterdir()]:
        folder = shutil.copytree(form, tmp_path / name)
        (folder / name).unlink()
        KINDS[kind](folder / name, letter)
        for stream in (False, True):
            with pytest.raises(CheckpointError, match=r"^load: ") as raised:
                load(folder, stream=stream)
            assert LETTER not in str(raised.value)
            assert name in str(raised.value)


def test_content_that_a_link_shows_is_not_told(form, run, letter, tmp_path):
    """Were the checksum that of the letter."""
    for made, name in (
        (form, "form.json"),
        (run, "config.json"),
        (run, "metrics.jsonl"),
        (form, "weights.safetensors"),
    ):
        folder = shutil.copytree(made, tmp_path / f"{made.name} {name}")
        (folder / name).unlink()
        (folder / name).symlink_to(letter)
        with pytest.raises(CheckpointError) as raised:
            (load if made is form else train.load)(signed(folder))
        assert LETTER not in str(raised.value)


@pytest.mark.parametrize("kind", ["pipe", "outside", "folder", "circle", "hard", "link to a folder"])
@pytest.mark.parametrize("name", ["config.json", "SHA256SUMS", ".writing", ".committed", ".committed/config.json"])
def test_writing_goes_into_the_folder_alone(run, letter, tmp_path, kind, name):
    """It is refused, or replaces what was planted; what links show is neither written nor moved."""
    folder = shutil.copytree(run, tmp_path / "copy")
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    plant = KINDS.get(kind, lambda path, letter: path.symlink_to(letter.parent))
    plant(path, letter)
    with suppress(CheckpointError):
        _folder.write(folder, {"config.json": lambda file: file.write_text("{}")})
        assert (folder / "config.json").read_text() == "{}"
        assert not (folder / "config.json").is_symlink()


def test_names_that_lead_outside_are_not_listed(run, letter, tmp_path):
    folder = shutil.copytree(run, tmp_path / "copy")
    with (folder / "SHA256SUMS").open("a") as sums:
        sums.write(f"{'0' * 64}  ../outside/letter.txt\n{'0' * 64}  {letter}\n{'0' * 64}  ..\nx\n")
    assert train.load(folder).network is not None
    assert _folder.listed(folder) == _folder.listed(run)


@contextmanager
def limited(which, most):
    before = resource.getrlimit(which)
    resource.setrlimit(which, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(which, before)


GRID = "depth = 1\nwidth = 40\nepochs = 1\nbatch_size = 4000\nseeds = 1\n"
FULL = {
    "train": ["train", "new", "--depth", "2", "--width", "40", "--epochs", "1"],
    "sweep": ["sweep", "grid.toml"],
    "prune": ["prune", "RUN", "--drop", "0", "--save", "smaller"],
    "prune and heal": ["prune", "RUN", "--drop", "0", "--heal", "1", "--save", "smaller"],
    "prune a module": ["prune", "model.py:network", "--drop", "0", "--save", "smaller"],
    "report": ["report", "RUN", "-o", "page.html", "--skip", "lens,spectrum,values,paths,lesions,orders,signal"],
    "figure": ["lesion", "RUN", "-o", "figure.png", "--examples", "10"],
    "keep": ["lesion", "RUN", "--resume", "kept.sqlite", "--examples", "10"],
}
MODULE = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(20, 20)
    def forward(self, h):
        return h + torch.relu(self.linear(h))
def network():
    return Net(), torch.ones(2, 20)
"""


@pytest.mark.parametrize("name", FULL)
def test_a_full_disk_is_one_line(run, tmp_path, monkeypatch, name):
    """A limit on the size of files stands in for it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "grid.toml").write_text(GRID)
    (tmp_path / "model.py").write_text(MODULE)
    arguments = [str(run) if argument == "RUN" else argument for argument in FULL[name]]
    with limited(resource.RLIMIT_FSIZE, 1000):
        result = invoke(*arguments)
    assert (result.status, result.stderr.strip().count("\n")) == (2, 0), result.stderr
    assert "fault of unbraid" not in result.stderr


@contextmanager
def no_superuser():
    """Rights bind everyone but root, as whom containers run their tests."""
    root = os.geteuid() == 0
    if root:
        os.setegid(65534)
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
            os.setegid(0)


@pytest.fixture
def read_only(monkeypatch):
    """A folder that everybody may read and nobody may write; those of pytest are for their owner alone."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "grid.toml").write_text(GRID)
        (folder / "model.py").write_text(MODULE)
        folder.chmod(0o555)
        monkeypatch.chdir(folder)
        yield folder
        folder.chmod(0o755)


@pytest.mark.parametrize("name", ["train", "sweep", "prune a module", "figure", "keep"])
def test_a_place_that_may_only_be_read_is_one_line(run, tmp_path, monkeypatch, read_only, name):
    kept = shutil.copytree(run, read_only.parent / f"{read_only.name} run")
    try:
        arguments = [str(kept) if argument == "RUN" else argument for argument in FULL[name]]
        monkeypatch.chdir(tmp_path)
        for file in ("grid.toml", "model.py"):
            shutil.copy(read_only / file, tmp_path)
        assert invoke(*arguments).status == 0  # where it may be written; and what is imported late is imported
        monkeypatch.chdir(read_only)
        with no_superuser():
            result = invoke(*arguments)
        assert (result.status, result.stderr.strip().count("\n")) == (2, 0), result.stderr
        assert re.search("Permission denied|unable to open database file", result.stderr)
        assert sorted(path.name for path in read_only.iterdir()) == ["grid.toml", "model.py"]
    finally:
        shutil.rmtree(kept)


def test_a_form_cannot_be_saved_where_one_may_only_read(form, read_only):
    loaded = load(form)
    with no_superuser(), pytest.raises(CheckpointError, match=r"Permission denied"):
        loaded.save(read_only / "saved")
    assert not (read_only / "saved").exists()


def test_few_open_files(form, tmp_path):
    """Streamed forms hold theirs; where no more can be opened the line says so, and what to do."""
    held = []

    def hold():
        while len(held) < 60:
            held.append(load(form, stream=True))

    count = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 64
    with limited(resource.RLIMIT_NOFILE, count + 40), pytest.raises(CheckpointError, match=r"Too many.*ulimit -n"):
        hold()
    assert len(held) > 20
    x = torch.ones(2, 3)
    assert torch.equal(held[0](x), held[-1](x))
    held.clear()
    assert load(form, stream=True)(x).shape == (2, 2)


def test_little_memory_is_one_line(tmp_path, monkeypatch):
    """A file with more numbers than there is memory for, by a limit on address space.

    Each is larger than the 256 MiB that earlier sweeps may have left free in this process.
    """
    if not os.path.isfile("/proc/self/statm"):
        pytest.skip("the address space taken so far is read from /proc")
    from safetensors.torch import save_file

    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(MODULE.replace("20", "8500"))
    save_file({"linear.weight": torch.zeros(8500, 8500), "linear.bias": torch.zeros(8500)}, "w.safetensors")
    np.savez("d.npz", x=np.zeros((7 * 10**7, 1), dtype=np.float32), y=np.zeros(7 * 10**7, dtype=np.int8))
    commands = [
        ["trace", "model.py:network", "--weights", "w.safetensors"],
        ["train", "new", "--data", "d.npz", "--depth", "1", "--epochs", "1"],
    ]
    for command in commands:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        with limited(resource.RLIMIT_AS, pages * resource.getpagesize() + 2**23):
            result = invoke(*command)
        assert (result.status, result.stderr.strip().count("\n")) == (2, 0), result.stderr
        assert "memory" in result.stderr
