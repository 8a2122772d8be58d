"""Images that say they are larger than their files account for, and what decoding keeps."""

import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from unbraid import data
from unbraid.data import _images, _picture
from unbraid.errors import DataError


def png(width, height, mode=0, bits=1):
    """Black, of any size, in almost no bytes."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    row = (width * bits + 7) // 8 + 1
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(row * 100)) for _ in range(height // 100)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, bits, mode, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def bombs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bombs")
    for name in "ab":
        (folder / name).mkdir()
        (folder / name / "0.png").write_bytes(png(13000, 13000))
    return folder


@pytest.mark.parametrize("size", [None, 8])
@pytest.mark.parametrize("colours", ["rgb", "grey"])
def test_more_pixels_than_a_file_accounts_for_are_refused(bombs, size, colours, monkeypatch):
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("it was unpacked"))
    with pytest.raises(
        DataError, match=r"0\.png: an image file of [\d,]{6} bytes that unpacks to [\d,]+, 13,000x13,000 pixels, is ref"
    ):
        data.images(bombs, size=size, colours=colours)


def test_an_image_larger_than_is_read_at_once_is_unpacked_at_half_its_size(tmp_path, monkeypatch):
    """A JPEG; what is kept of it is the size wanted, and it is near what the whole would have given."""
    x, y = np.meshgrid(np.linspace(0, 255, 640), np.linspace(0, 255, 480))
    pixels = np.stack([x, y, 255 - x], -1).astype(np.uint8)
    for name in "ab":
        (tmp_path / name).mkdir()
        Image.fromarray(pixels).save(tmp_path / name / "0.jpg", quality=95)
    whole = data.images(tmp_path, size=(12, 16), over="nothing", test_fraction=0.5)
    sizes, load = [], Image.Image.load
    monkeypatch.setattr(_picture, "_MOST_BYTES", 640 * 480)
    monkeypatch.setattr(Image.Image, "load", lambda self: sizes.append(self.size) or load(self))
    drafted = data.images(tmp_path, size=(12, 16), over="nothing", test_fraction=0.5)
    assert max(sizes) == (80, 60)  # an eighth
    assert (drafted.train_inputs - whole.train_inputs).abs().max() <= 4


def test_many_images_unpack_to_no_more_than_their_files_account_for(tmp_path, monkeypatch):
    for name in "ab":
        (tmp_path / name).mkdir()
        for number in range(4):
            (tmp_path / name / f"{number}.png").write_bytes(png(200, 200))
    assert len(data.images(tmp_path).train_labels) == 6
    monkeypatch.setattr(_images, "_MOST_BYTES", 8 * 200 * 200 * 3 - 1)
    with pytest.raises(DataError, match=r"8 images of [\d,]+ bytes that unpack to 960,000 are refused.*: size=224"):
        data.images(tmp_path)
    assert data.images(tmp_path, size=20).features == (3, 20, 20)


def test_a_pipe_or_a_device_among_images_is_not_waited_for(tmp_path):
    (tmp_path / "a").mkdir()
    os.mkfifo(tmp_path / "a" / "0.png")
    with pytest.raises(DataError, match=r"0\.png: the image cannot be read: .*this is no ordinary file"):
        data.images(tmp_path)
    (tmp_path / "a" / "0.png").unlink()
    (tmp_path / "a" / "0.png").symlink_to("/dev/zero")
    with pytest.raises(DataError, match=r"0\.png: the image cannot be read: .*this is no ordinary file"):
        data.images(tmp_path)


PEAK = """
import resource, sys
from unbraid import data
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
import PIL.Image
try:
    data.images(sys.argv[1])
except data.DataError:
    pass
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is counted in kB there")
def test_a_bomb_takes_no_memory(bombs):
    code = PEAK.replace("data.DataError", "Exception")
    done = subprocess.run([sys.executable, "-c", code, str(bombs)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 60  # MB; 1,200 before


def test_the_levels_are_those_that_pillow_reads(tmp_path):
    """Whatever the order in which it is turned, converted and scaled."""
    numbers = np.random.default_rng(0)
    for name, mode in (("a", "RGBA"), ("b", "L")):
        (tmp_path / name).mkdir()
        exif = Image.Exif()
        exif[0x0112] = 6
        shape = (40, 30) if mode == "L" else (40, 30, 4)
        Image.fromarray(numbers.integers(0, 256, shape, dtype=np.uint8), mode).save(
            tmp_path / name / "0.png", exif=exif
        )
    read = data.images(tmp_path, size=(9, 7), over="nothing", test_fraction=0.5)
    found = {int(label): inputs for inputs, label in zip(read.train_inputs, read.train_labels, strict=True)}
    found |= {int(label): inputs for inputs, label in zip(read.test_inputs, read.test_labels, strict=True)}
    for label, name in enumerate("ab"):
        with Image.open(tmp_path / name / "0.png") as opened:
            turned = opened.transpose(Image.Transpose.ROTATE_270).convert("RGB")
        expected = np.asarray(turned.resize((7, 9), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
        assert torch.equal(found[label], torch.from_numpy(expected.copy()).float())
