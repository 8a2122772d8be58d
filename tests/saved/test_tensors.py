"""Headers of safetensors files that lie: refused in a line by whoever reads them, and nothing is allocated for them."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sums import signed
from unbraid import data, trace
from unbraid.cli.models._weights import load_weights
from unbraid.errors import CheckpointError, DataError
from unbraid.form import load
from unbraid.saved import read_tensors
from unbraid.saved._tensors import _TYPES


def one(shape=(1,), offsets=(0, 4), dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


ONE = json.dumps(one())
HEADERS = {
    "two in one place": ({"a": one(), "b": one()}, 4, "two tensors in the place of 'b'"),
    "two that overlap": ({"a": one([2], [0, 8]), "b": one([2], [4, 12])}, 12, "two tensors in the place of 'b'"),
    "many in one place": ({f"{n}": one([250], [0, 1000]) for n in range(1000)}, 1000, "two tensors in the place of"),
    "a gap": ({"a": one(offsets=[4, 8])}, 8, "a gap before 'a'"),
    "a gap between": ({"a": one(), "b": one(offsets=[8, 12])}, 12, "a gap before 'b'"),
    "more than is described": ({"a": one()}, 8, "too long: its header describes"),
    "less than is described": ({"a": one()}, 2, "cut short: its header describes"),
    "a negative size": ({"a": one([-1], [0, -4])}, 4, "no tensor known here"),
    "two negative sizes": ({"a": one([-1, -1])}, 4, "no tensor known here"),
    "a negative offset": ({"a": one(offsets=[-4, 0])}, 0, "no tensor known here"),
    "offsets the wrong way": ({"a": one(offsets=[4, 0])}, 4, "gives 'a' -4 bytes"),
    "a huge size": ({"a": one([2**62])}, 4, "no tensor known here"),
    "sizes that overflow": ({"a": one([2**32, 2**32], [0, 0])}, 0, "no tensor known here"),
    "huge sizes and none": ({"a": one([2**62, 2**62, 0], [0, 0])}, 0, "no tensor known here"),
    "many dimensions": ({"a": one([1] * 1000)}, 4, "no tensor known here"),
    "a number that is long": (b'{"a":{"dtype":"F32","shape":[%s],"data_offsets":[0,4]}}' % (b"9" * 5000), 4, "no JSON"),
    "a fraction": ({"a": one([1.0])}, 4, "no tensor known here"),
    "a truth": ({"a": one([True])}, 4, "no tensor known here"),
    "a type that is none": ({"a": one(dtype="X99")}, 4, "no tensor known here"),
    "a type in a list": ({"a": one(dtype=["F32"])}, 4, "no tensor known here"),
    "half bytes": ({"a": one([8], dtype="F4")}, 4, "no tensor known here"),
    "one name twice": (f'{{"a":{ONE},"a":{ONE}}}'.encode(), 4, "its header has 'a' twice"),
    "one field twice": (
        b'{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        4,
        "has 'dtype' twice",
    ),
    "UTF-16": (json.dumps({"a": one()}).encode("utf-16"), 4, "its header is no JSON"),
    "no UTF-8": (b'{"\xff":' + ONE.encode() + b"}", 4, "its header is no JSON"),
    "half a character": (b'{"\\ud800":' + ONE.encode() + b"}", 4, "no tensor known here"),
    "a name that rules the terminal": ({"\x1b[31m": one()}, 4, "no tensor known here"),
    "deep": (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 0, "more objects than its length has room for"),
    "deep and short": (b'{"a":' + b"[" * 1500 + b"]" * 98_500 + b"}", 0, "its header is no JSON"),
    "many objects": (b'{"a":[' + b"{}," * 100_000 + b"{}]}", 0, "more objects than its length has room for"),
    "a list": (b"[1, 2, 3]", 0, "its header is no JSON object"),
    "nothing": (b"", 0, "it has no whole header"),
}


def written(path, header, body, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + bytes(body))
    return path


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, h):
            return h + torch.relu(self.linear(h))

    return trace(Block(), torch.ones(2, 3)).save(tmp_path_factory.mktemp("form") / "saved")


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_lies_is_refused_by_every_reader(saved, tmp_path, name, monkeypatch):
    header, body, message = HEADERS[name]
    path = written(tmp_path / "a.safetensors", header, body)
    folder = shutil.copytree(saved, tmp_path / "form")
    shutil.copy(path, folder / "weights.safetensors")
    signed(folder)
    monkeypatch.setattr(torch, "empty", lambda *_, **__: pytest.fail("something was allocated"))
    for read, error in (
        (lambda: read_tensors(path), CheckpointError),
        (lambda: load_weights(nn.Identity(), path), CheckpointError),
        (lambda: data.load(path), DataError),
    ):
        with pytest.raises(error, match=message) as raised:
            read()
        assert len(str(raised.value)) < 600
    monkeypatch.undo()
    for stream in (False, True):
        with pytest.raises(CheckpointError, match=rf"^load: .*{message}"):
            load(folder, stream=stream)


@pytest.mark.parametrize("length", [0, 1, 67, 10**8 + 1, 2**63, 2**64 - 1])
def test_a_length_that_lies(tmp_path, length):
    path = written(tmp_path / "a.safetensors", {"a": one()}, 4, length)
    with pytest.raises(CheckpointError, match=r"a\.safetensors (is no readable|describes|is too long|is cut short)"):
        read_tensors(path)


@pytest.mark.parametrize("dtype", sorted(_TYPES, key=str))
def test_each_type_is_read_as_the_library_writes_it(tmp_path, dtype):
    values = torch.arange(24, dtype=torch.uint8) % 2
    tensor = values.view(_TYPES[dtype]).reshape(1, -1) if dtype != "BOOL" else values.bool()
    save_file({"x": tensor, "none": tensor[:0], "one": tensor.flatten()[0].clone()}, tmp_path / "a.safetensors")
    found = read_tensors(tmp_path / "a.safetensors")
    assert found["x"].dtype == tensor.dtype
    assert torch.equal(found["x"].flatten().view(torch.uint8), tensor.flatten().view(torch.uint8))
    assert (found["none"].shape, found["one"].shape) == (tensor[:0].shape, ())
    assert found["x"].data_ptr() % 64 == 0
