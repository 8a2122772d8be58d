"""torch's own files of weights: what it writes is read, and what asks for more is refused before torch sees it."""

import os
import pickle
import struct
import warnings
import zipfile

import pytest
import torch
from torch import nn

from unbraid.cli.models._weights import load_weights
from unbraid.errors import CheckpointError

LINEAR = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.tensor([7.0, 8.0])}


def model(dtype=torch.float32):
    return nn.Linear(3, 2).to(dtype)


def text(name):
    return b"X" + struct.pack("<I", len(name)) + name.encode()


def whole(number):
    return b"\x8a\x09" + number.to_bytes(9, "little", signed=True)


def storage(kind="FloatStorage", key="0", numel=6, module="torch"):
    return b"(" + text("storage") + f"c{module}\n{kind}\n".encode() + text(key) + text("cpu") + whole(numel) + b"tQ"


def tensor(storage, size=(2, 3), stride=(3, 1), offset=0, function="_rebuild_tensor_v2", end=b"\x89}"):
    sizes = b"".join(b"(" + b"".join(map(whole, numbers)) + b"t" for numbers in (size, stride))
    return f"ctorch._utils\n{function}\n".encode() + b"(" + storage + whole(offset) + sizes + end + b"tR"


def state(*items):
    return b"\x80\x02}(" + b"".join(items) + b"u."


def archive(path, pickled, members=None, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr("archive/data.pkl", pickled)
        for name, data in ({"data/0": bytes(24), "data/1": bytes(8)} if members is None else members).items():
            file.writestr(f"archive/{name}", data)
        file.writestr("archive/version", "3\n")
        file.writestr("archive/byteorder", "little")
    return path


@pytest.fixture
def unread(monkeypatch):
    """torch's reader must not be asked."""
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch was shown the file"))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_what_torch_writes_is_read(tmp_path, zipped, dtype):
    """Views of one storage, expanded ones, parameters, ordered dicts with the versions of modules."""
    if dtype is torch.float8_e4m3fn and not zipped:
        pytest.skip("torch writes such a file, and does not read it")
    shared = torch.arange(9.0).to(dtype)
    held = {"weight": shared[:6].reshape(2, 3), "bias": shared[6:7].expand(2)}
    wanted = {name: value.clone() for name, value in held.items()}
    source = model(dtype) if dtype not in (torch.float8_e4m3fn,) else None
    for number, value in enumerate((held, source and source.state_dict(), source and dict(source.named_parameters()))):
        if value is None:
            continue
        path = tmp_path / f"{number}.pt"
        torch.save(value, path, _use_new_zipfile_serialization=zipped)
        made = model().to(dtype)
        load_weights(made, path)
        expected = wanted if number == 0 else source.state_dict()
        for name, read in made.state_dict().items():
            assert torch.equal(read.view(torch.uint8), expected[name].contiguous().view(torch.uint8))


def test_the_handmade_file_is_one(tmp_path):
    """What the hostile files below are made from is read."""
    weight = tensor(storage())
    good = state(text("weight"), weight, text("bias"), tensor(storage(key="1", numel=2), (2,), (1,)))
    members = {"data/0": torch.arange(6.0).numpy().tobytes(), "data/1": torch.tensor([7.0, 8.0]).numpy().tobytes()}
    made = model()
    load_weights(made, archive(tmp_path / "w.pt", good, members))
    assert all(torch.equal(value, LINEAR[name]) for name, value in made.state_dict().items())


ENORMOUS = whole(10**10)
HOSTILE = {
    "bytearray": (b"\x80\x02cbuiltins\nbytearray\n" + ENORMOUS + b"\x85R.", r"builtins\.bytearray"),
    "bytearray in a state": (
        state(text("weight"), b"cbuiltins\nbytearray\n" + ENORMOUS + b"\x85R"),
        r"builtins\.bytearray",
    ),
    "a tensor of a size": (b"\x80\x02ctorch\nTensor\n" + ENORMOUS + b"\x85R.", r"torch\.Tensor"),
    "a new parameter": (b"\x80\x02ctorch.nn.parameter\nParameter\n" + ENORMOUS + b"\x85\x81.", "the opcode NEWOBJ"),
    "encoded text": (b"\x80\x02c_codecs\nencode\n" + text("x") + text("zlib") + b"\x86R.", r"_codecs\.encode"),
    "a set": (b"\x80\x02\x8f.", "the opcode EMPTY_SET"),
    "a counter": (b"\x80\x02ccollections\nCounter\n" + text("x") + b"\x85R.", r"collections\.Counter"),
    "a sparse tensor": (
        b"\x80\x02ctorch._utils\n_rebuild_sparse_tensor\n)R.",
        r"torch\._utils\._rebuild_sparse_tensor",
    ),
    "a tensor on meta": (
        b"\x80\x02ctorch._utils\n_rebuild_meta_tensor_no_storage\n)R.",
        r"torch\._utils\._rebuild_meta_tensor_no_storage",
    ),
    "a function": (b"\x80\x02cos\nmkdir\n" + text("x") + b"\x85R.", r"os\.mkdir"),
    "a view over its storage": (
        state(text("weight"), tensor(storage(), (10**9,), (1,))),
        r"a tensor over 1,000,000,000 numbers of a storage of 24 bytes",
    ),
    "an offset over its storage": (state(text("weight"), tensor(storage(), offset=1)), "a tensor over 7 numbers"),
    "a view before its storage": (state(text("weight"), tensor(storage(), offset=-1)), "a tensor of negative sizes"),
    "a stride back": (state(text("weight"), tensor(storage(), stride=(-3, 1))), "a tensor of negative sizes"),
    "sizes without strides": (state(text("weight"), tensor(storage(), stride=(1,))), "a tensor of negative sizes"),
    "another type than its storage": (
        state(text("weight"), tensor(storage(), end=b"\x89ctorch\nfloat8_e4m3fn\n")),
        "a tensor with attributes",
    ),
    "a storage of negative size": (state(text("weight"), tensor(storage(numel=-1))), "a storage of torch FloatStorage"),
    "a storage twice": (
        state(text("a"), storage(), text("b"), storage(kind="DoubleStorage")),
        "two storages with the name '0'",
    ),
    "a key that is a tuple": (b"\x80\x02}))s.", "a tuple where a state dict has none"),
    "a dict with methods": (
        b"\x80\x02ccollections\nOrderedDict\n)R}" + text("items") + b"K\x01sb.",
        "a dict with attributes",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_asks_for_more_than_tensors_is_refused_unread(tmp_path, case, unread):
    pickled, message = HOSTILE[case]
    for path in (archive(tmp_path / "w.pt", pickled), tmp_path / "w.bin"):
        if path.suffix == ".bin":  # as the fourth pickle of a file from before 2020
            lead = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
            path.write_bytes(b"".join([*lead, pickled, pickle.dumps([], 2)]))
        assert path.stat().st_size < 1200
        with pytest.raises(
            CheckpointError, match=rf"holds more than tensors, {message}.*could run code: it was not read"
        ):
            load_weights(model(), path)


ONE = state(text("weight"), tensor(storage()))


@pytest.mark.parametrize(
    ("pickled", "members", "message"),
    [
        (
            state(text("weight"), storage(numel=10**10)),
            None,
            "its tensors need 40,000,000,000 bytes of '0', and 24 are",
        ),
        (ONE, {"data/0": bytes(20)}, "need 24 bytes of '0', and 20 are there"),
        (ONE, {"data/0": bytes(28)}, "need 24 bytes of '0', and 28 are there"),
        (ONE, {}, "need 24 bytes of '0', and 0 are there"),
        (state(text("w"), tensor(storage(key="../x"))), {"../x": bytes(24)}, r"bytes of '\.\./x', and 0 are there"),
    ],
)
def test_storages_are_as_long_as_their_members(tmp_path, pickled, members, message, unread):
    with pytest.raises(CheckpointError, match=message):
        load_weights(model(), archive(tmp_path / "w.pt", pickled, members))


def test_numbers_of_old_files_are_all_there(tmp_path, unread):
    path = tmp_path / "w.pt"
    torch.save(LINEAR, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    for changed in (content[:-1], content + b"\0", content.replace(b"FloatStorage", b"DoubleStorage")):
        path.write_bytes(changed)
        with pytest.raises(CheckpointError, match=r"w\.pt is damaged: its tensors need .* It was not read"):
            load_weights(model(), path)


def test_members_overlap_come_twice_or_are_packed(tmp_path, unread):
    path = archive(tmp_path / "w.pt", ONE, {"data/0": bytes(24)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match=r"has [\d,]+ bytes and unpacks to [\d,]+: it was not read"):
        load_weights(model(), path)
    content = archive(path, ONE, {"data/0": bytes(24)}).read_bytes()
    # Two entries of the list show one member.
    at = content.rindex(b"PK\x01\x02")
    first = content.index(b"PK\x01\x02")
    path.write_bytes(content[: at + 42] + content[first + 42 : first + 46] + content[at + 46 :])
    with pytest.raises(CheckpointError, match=r"w\.pt (is damaged: .* reaches over what follows|cannot be read)"):
        load_weights(model(), path)
    path.write_bytes(b"PK\x03\x04" + content)
    with pytest.raises(CheckpointError, match=r"w\.pt (is no file of torch's|cannot be read|is damaged)"):
        load_weights(model(), path)
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(path, "w") as file:
        for name in ("data.pkl", "data/0", "data/0"):
            file.writestr(f"archive/{name}", ONE if name == "data.pkl" else bytes(24))
    with pytest.raises(CheckpointError, match="each name once"):
        load_weights(model(), path)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="there is no file"):
        load_weights(model(), tmp_path / "w.pt")


def test_what_is_loaded_is_what_was_looked_at(tmp_path, monkeypatch):
    """The file is swapped after the look: torch reads the one that is open."""
    path, read = tmp_path / "w.pt", torch.load
    torch.save(LINEAR, path)

    def swapped(file, **options):
        archive(tmp_path / "other", HOSTILE["a function"][0]).rename(path)
        return read(file, **options)

    monkeypatch.setattr(torch, "load", swapped)
    made = model()
    load_weights(made, path)
    assert torch.equal(made.weight, LINEAR["weight"])
