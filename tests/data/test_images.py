"""A folder of images by class: the same pixels, in the same order, and a message for each thing that is wrong."""

import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from unbraid import data
from unbraid.errors import DataError


def picture(seed, height=5, width=4, channels=3):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8).squeeze()


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


@pytest.fixture
def folder(tmp_path):
    """Three classes of four images each, [5, 4, 3], written out of order."""
    for number, name in enumerate(["dog", "cat", "eel"]):
        for index in (3, 0, 2, 1):
            save(tmp_path / "pets" / name / f"{index}.png", picture(10 * number + index))
    return tmp_path / "pets"


def raw(dataset, inputs):
    """The levels from 0 to 255 again."""
    return (inputs * dataset.std + dataset.mean).round().to(torch.uint8)


def test_pixels_labels_and_names_are_those_of_the_files(folder):
    read = data.images(folder, test_fraction=0.25)
    assert (read.name, read.classes, read.names) == ("pets", 3, ("cat", "dog", "eel"))
    assert read.features == (3, 5, 4)
    assert (len(read.train), len(read.test)) == (9, 3)
    inputs = torch.cat([raw(read, read.train_inputs), raw(read, read.test_inputs)])
    labels = torch.cat([read.train_labels, read.test_labels]).tolist()
    found = {(label, tuple(image.flatten().tolist())) for label, image in zip(labels, inputs, strict=True)}
    # In the order of the names, dog was written first with seeds 0 to 3, then cat with 10 to 13.
    written = {
        (label, tuple(picture(10 * number + index).transpose(2, 0, 1).flatten().tolist()))
        for label, number in enumerate([1, 0, 2])
        for index in range(4)
    }
    assert found == written


def test_the_order_is_that_of_the_paths_whatever_the_file_system_says(folder, monkeypatch):
    first = data.images(folder)
    listed = type(folder).iterdir
    monkeypatch.setattr(type(folder), "iterdir", lambda self: sorted(listed(self), reverse=True))
    again = data.images(folder)
    assert torch.equal(first.train_inputs, again.train_inputs)
    assert torch.equal(first.test_labels, again.test_labels)
    assert not torch.equal(first.train_inputs, data.images(folder, seed=1).train_inputs)


def test_each_channel_is_standardised_on_the_training_part(folder):
    read = data.images(folder, test_fraction=0.25)
    assert read.mean.shape == read.std.shape == (3, 1, 1)
    train = read.train_inputs.double()
    torch.testing.assert_close(train.mean((0, 2, 3)), torch.zeros(3).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(train.std((0, 2, 3), correction=0), torch.ones(3).double(), rtol=0, atol=1e-6)


def test_train_and_test_in_folders_of_their_own(folder, tmp_path):
    for part, keep in (("train", "123"), ("test", "0")):
        shutil.copytree(folder, tmp_path / "split" / part)
        for path in (tmp_path / "split" / part).rglob("*.png"):
            if path.stem not in keep:
                path.unlink()
    (tmp_path / "split" / "README.md").write_text("Beside the folders, what is no image does not matter.")
    read = data.images(tmp_path / "split")
    assert read.train_labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    assert read.test_labels.tolist() == [0, 1, 2]
    assert torch.equal(raw(read, read.test_inputs)[1], torch.from_numpy(picture(0).transpose(2, 0, 1)))
    shutil.rmtree(tmp_path / "split" / "test" / "eel")
    with pytest.raises(DataError, match=r'must have the same classes; "eel" is in train, not in test\.'):
        data.images(tmp_path / "split")
    shutil.rmtree(tmp_path / "split" / "test")
    with pytest.raises(DataError, match=r"beside train/ there must be test/ .* there is README\.md, train\."):
        data.images(tmp_path / "split")


def test_folders_within_a_class_belong_to_it_and_hidden_files_do_not(folder):
    save(folder / "cat" / "more" / "9.jpg", picture(99))
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "cat" / ".hidden").write_bytes(b"x")
    assert sum(data.images(folder).train_labels == 0) + sum(data.images(folder).test_labels == 0) == 5


@pytest.mark.parametrize("ending", ["png", "bmp", "ppm", "tiff", "webp", "gif", "jpg"])
def test_kinds_of_files(tmp_path, ending):
    """Flat pictures, which lossy kinds keep to within a few levels."""
    for label, level in enumerate((40, 200)):
        for index in range(2):
            save(tmp_path / str(label) / f"{index}.{ending.upper()}", np.full((8, 8, 3), level, dtype=np.uint8))
    read = data.images(tmp_path, test_fraction=0.5)
    levels = read.train_inputs * read.std + read.mean
    expected = torch.tensor([40.0, 200.0])[read.train_labels]
    assert (levels - expected[:, None, None, None]).abs().max() <= 3


def test_grey_levels_palettes_and_transparency(tmp_path):
    grey = picture(0, channels=1)
    save(tmp_path / "a" / "grey.png", grey)
    save(tmp_path / "a" / "transparent.png", np.stack([grey] * 3 + [grey // 2], -1))
    palette = Image.fromarray(grey).convert("P")
    palette.save(tmp_path / "a" / "palette.png", transparency=bytes(range(256)))
    Image.fromarray(grey).save(tmp_path / "a" / "bytes.gif")
    read = data.images(tmp_path, colours="grey", over="nothing", test_fraction=0.25)
    both = torch.cat([read.train_inputs, read.test_inputs])
    assert both.shape == (4, 1, 5, 4)
    assert torch.equal(both, torch.from_numpy(grey).float().expand(4, 1, 5, 4))


def test_photographs_are_turned_as_their_exif_says(tmp_path):
    pixels = picture(0)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise
    save(tmp_path / "a" / "0.png", pixels, exif=exif)
    save(tmp_path / "a" / "1.png", np.rot90(pixels, -1).copy())
    read = data.images(tmp_path, over="nothing", test_fraction=0.5)
    assert read.features == (3, 4, 5)
    assert torch.equal(read.train_inputs, read.test_inputs)


def test_sizes_that_differ_are_refused_or_scaled(folder):
    save(folder / "cat" / "2.png", picture(1, 10, 8))
    with pytest.raises(DataError, match=r"cat/0\.png is 5x4, cat/2\.png 10x8\. Have them scaled: size=\(5, 4\)\."):
        data.images(folder)
    assert data.images(folder, size=(5, 4)).features == (3, 5, 4)
    assert data.images(folder, size=6).features == (3, 6, 6)
    # An image of one level keeps it at any size.
    shutil.rmtree(folder / "dog")
    save(folder / "dog" / "flat.png", np.full((9, 3, 3), 77, dtype=np.uint8))
    read = data.images(folder, size=(2, 7), over="nothing")
    flat = torch.cat([read.train_inputs, read.test_inputs])[torch.cat([read.train_labels, read.test_labels]) == 1]
    assert (flat == 77).all()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: shutil.rmtree(f), r"pets: there is no such folder"),
        (lambda f: (shutil.rmtree(f), f.write_text("x")), r"pets: this is a file"),
        (lambda f: [shutil.rmtree(c) for c in f.iterdir()], r"a folder of images for each class; there is none\."),
        (lambda f: (f / "fox").mkdir(), r"pets/fox: a class must hold images; this folder is empty\. Fill it"),
        (
            lambda f: (f / "cat" / "notes.txt").write_text("x"),
            r"cat/notes\.txt: this is no image\. A class holds .*\.png",
        ),
        (lambda f: save(f / "0.png", picture(0)), r"pets/0\.png: an image lies in the folder of its class"),
        (
            lambda f: (f / "cat" / "0.png").write_bytes(b""),
            r"cat/0\.png: the image cannot be read: .*Remove it, or write",
        ),
        (lambda f: (f / "cat" / "0.png").write_text("%!PS-Adobe-3.0 EPSF"), r"cat/0\.png: the image cannot be read"),
        (
            lambda f: save(f / "cat" / "0.png", np.full((5, 4), 1000, dtype=np.uint16)),
            r"cat/0\.png: .* at most 8 bits a channel; this one is of kind I;16\. Convert it first\.",
        ),
    ],
)
def test_each_rule_has_its_message(folder, spoil, message):
    spoil(folder)
    with pytest.raises(DataError, match=message):
        data.images(folder)


@pytest.mark.parametrize("ending", ["png", "jpg", "gif", "bmp", "tiff", "webp"])
def test_every_truncation_is_an_error_of_ours_or_the_whole_image(tmp_path, ending):
    path = tmp_path / "a" / f"0.{ending}"
    save(path, picture(0, 16, 16))
    save(tmp_path / "a" / f"1.{ending}", picture(0, 16, 16))
    content = path.read_bytes()
    lengths = range(0, len(content), max(len(content) // 40, 1))
    right = 0
    for length in lengths:
        path.write_bytes(content[:length])
        try:
            read = data.images(tmp_path, over="nothing", test_fraction=0.5)
        except DataError as error:
            right += f"0.{ending}: the image cannot be read" in str(error)
        else:
            assert torch.equal(read.train_inputs, read.test_inputs)
            right += 1
    assert right == len(lengths)


def test_options_that_make_no_sense_are_refused(folder):
    with pytest.raises(ValueError, match=r"a size must be 1 or more; got \(0, 3\)"):
        data.images(folder, size=(0, 3))
    with pytest.raises(ValueError, match=r'colours are "rgb" or "grey"; got "gray"'):
        data.images.__wrapped__(folder, colours="gray")


def test_without_pillow_the_command_that_installs_it_is_named(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)  # what Python itself does to forbid an import
    with pytest.raises(DataError, match=r"reading images needs the package Pillow.*pip install 'unbraid\[data\]'"):
        data.images(folder)


def test_a_folder_by_its_path(folder):
    assert data.by_name(folder).names == ("cat", "dog", "eel")
    assert data.by_name(str(folder)).flat().features == (60,)


def test_inputs_in_another_shape():
    digits = data.digits()
    rows = digits.shaped(8, -1)
    assert rows.features == (8, 8)
    assert torch.equal(rows.test_inputs, digits.test_inputs[:, 0])
    x = np.random.default_rng(0).normal(size=(6, 2, 3))
    made = data.from_arrays(x, np.arange(6) % 2, x, np.arange(6) % 2, over="feature").shaped(3, 2)
    undone = made.test_inputs.double() * made.std + made.mean
    torch.testing.assert_close(undone, torch.tensor(x.reshape(6, 3, 2)), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match=r"digits: inputs of \[1, 8, 8\] have no shape \[7, 9\]"):
        digits.shaped(7, 9)
