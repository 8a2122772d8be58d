import pickle
import re
import zipfile

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from unbraid import data
from unbraid.errors import DataError


def arrays(**changes):
    rng = np.random.default_rng(0)
    parts = {
        "x": rng.normal(3, 2, (20, 4)),
        "y": np.arange(20) % 3,
        "x_test": rng.normal(3, 2, (5, 4)),
        "y_test": np.arange(5) % 3,
    }
    return {key: value for key, value in (parts | changes).items() if value is not None}


def spoiled(key, place, value):
    array = arrays()[key].astype(float)
    array[place] = value
    return {key: array}


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_both_kinds_of_file_give_the_same(tmp_path, ending):
    path = tmp_path / f"mine{ending}"
    if ending == ".npz":
        np.savez_compressed(path, **arrays(), extra=np.zeros(1))
    else:
        save_file(arrays() | {"extra": np.zeros(1)}, path)
    mine = data.load(path)
    raw = arrays()
    expected = (raw["x_test"] - raw["x"].mean()) / raw["x"].std()
    torch.testing.assert_close(mine.test_inputs, torch.tensor(expected, dtype=torch.float32))
    assert mine.train_labels.tolist() == raw["y"].tolist()
    assert (mine.name, mine.classes, mine.features) == (path.name, 3, (4,))


def test_bfloat16_is_read_exactly(tmp_path):
    x = torch.tensor([[1.0], [2.5], [-3.0], [0.0]], dtype=torch.bfloat16)
    y = torch.tensor([0, 1, 0, 1])
    save_torch({"x": x, "y": y, "x_test": x.clone(), "y_test": y.clone()}, tmp_path / "mine.safetensors")
    mine = data.load(tmp_path / "mine.safetensors", over="nothing")
    assert mine.train_inputs.flatten().tolist() == [1.0, 2.5, -3.0, 0.0]


def test_without_a_test_part_a_share_is_set_apart_the_same_each_time(tmp_path):
    np.savez(tmp_path / "mine.npz", x=np.arange(50.0)[:, None], y=np.arange(50) % 2)
    first, again = data.load(tmp_path / "mine.npz"), data.load(tmp_path / "mine.npz")
    other = data.load(tmp_path / "mine.npz", test_fraction=0.5, seed=3)
    assert (len(first.train), len(first.test), len(other.test)) == (40, 10, 25)
    assert torch.equal(first.test_inputs, again.test_inputs)
    raw = torch.cat([first.train_inputs, first.test_inputs]) * first.std + first.mean
    assert sorted(raw.flatten().round().tolist()) == list(range(50))
    assert abs(first.train_inputs.mean()) < 1e-6  # of the training part alone


@pytest.mark.parametrize(
    ("over", "shape"), [("all", ()), ("channel", (3, 1, 1)), ("feature", (3, 2, 2)), ("nothing", ())]
)
def test_standardisation_against_numpy(over, shape):
    x = np.random.default_rng(1).normal(5, 3, (30, 3, 2, 2))
    made = data.from_arrays(x, np.arange(30) % 2, x[:4], np.arange(4) % 2, over=over)
    axes = {"all": (0, 1, 2, 3), "channel": (0, 2, 3), "feature": (0,)}
    expected = x if over == "nothing" else (x - x.mean(axes[over], keepdims=True)) / x.std(axes[over], keepdims=True)
    assert made.mean.shape == made.std.shape == shape
    torch.testing.assert_close(made.train_inputs, torch.tensor(expected, dtype=torch.float32))
    assert torch.equal(made.test_inputs, made.train_inputs[:4])
    flat = made.flat()
    torch.testing.assert_close(
        flat.test_inputs * flat.std + flat.mean,
        torch.tensor(x[:4].reshape(4, 12)),
        rtol=0,
        atol=1e-5,
        check_dtype=False,
    )


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e9 + 0.1])
def test_a_feature_that_does_not_vary_becomes_zero(constant):
    x = np.random.default_rng(2).normal(size=(30, 2))
    x[:, 1] = constant
    made = data.from_arrays(x, np.arange(30) % 2, over="feature")
    assert made.train_inputs[:, 1].abs().max() < 1e-6
    assert made.std[1] == 1


BAD_ARRAYS = [
    ({"x": None, "y": None}, r"x and y missing\. It holds: x_test, y_test\."),
    ({"y": None}, r"y missing\. It holds: x, x_test, y_test\."),
    ({"y_test": None}, r"come together; there is x_test but no y_test"),
    ({"x_test": None}, r"come together; there is y_test but no x_test"),
    ({"y": np.arange(19) % 3}, r"x and y must have one length; x holds 20 examples and y 19 labels"),
    ({"y_test": np.zeros(7, int)}, r"x_test holds 5 examples and y_test 7 labels"),
    ({"x_test": np.zeros((5, 6))}, r"one shape; in x it is \[4\], in x_test \[6\]"),
    ({"x": np.zeros(20)}, r"x must be \[examples, \*features\]; it is \[20\]"),
    ({"y": np.eye(20)}, r"y must be \[examples\], one label each; it is \[20, 20\]\. One-hot"),
    ({"x": np.zeros((0, 4)), "y": np.zeros(0, int)}, r"x is empty: \[0, 4\]"),
    ({"x": np.zeros((20, 0)), "x_test": np.zeros((5, 0))}, r"x is empty: \[20, 0\]"),
    (spoiled("x", (13, 2), np.nan), r"x must be finite; row 13 holds NaN at \[2\]"),
    (spoiled("x_test", (4, 0), -np.inf), r"x_test must be finite; row 4 holds infinity at \[0\]"),
    (spoiled("y", 6, np.nan), r"labels must be finite; y holds NaN in row 6 \(1 such of 20\)"),
    (spoiled("y", 5, 1.5), r"labels must be whole numbers; y holds 1\.5 in row 5 \(1 such of 20\)"),
    (spoiled("y", [2, 9], -1), r"labels count the classes from 0; y holds -1\.0 in row 2 \(2 such of 20\)"),
    (spoiled("y_test", 3, 3), r"below the number of classes, 3; y_test holds 3 in row 3 \(1 such of 5\)"),
    (spoiled("y", 1, 600), r"the largest of 20 labels in y is 600.*classes=601"),
    ({"y": np.full(20, 2**40)}, r"labels must be below 2\^31; y holds 1099511627776 in row 0"),
    ({"x": np.full((20, 4), "a")}, r"x must hold real numbers; its type is <U1"),
    ({"x": np.ones((20, 4), complex)}, r"x must hold real numbers; its type is complex128"),
    ({"y": np.full(20, "cat")}, r"y must hold whole numbers; its type is <U3"),
    (spoiled("x", (0, 0), 1e300), r"too large to standardise"),
]


@pytest.mark.parametrize(("changes", "message"), BAD_ARRAYS)
def test_each_rule_has_its_message(tmp_path, changes, message):
    np.savez(tmp_path / "mine.npz", **arrays(**changes))
    with pytest.raises(DataError, match=rf"mine\.npz: .*{message}"):
        data.load(tmp_path / "mine.npz")


def test_labels_saved_as_floats_count_by_their_value():
    assert data.from_arrays(np.eye(4), np.array([0.0, 1.0, 2.0, 1.0]), np.eye(4), np.zeros(4)).classes == 3


def test_classes_can_be_given():
    assert data.from_arrays(**arrays(), classes=7).classes == 7
    with pytest.raises(DataError, match=r"below the number of classes, 2; y holds 2 in row 2 \(6 such of 20\)"):
        data.from_arrays(**arrays(), classes=2)


def test_too_few_to_set_any_apart():
    with pytest.raises(DataError, match=r"0\.2 of 2 examples is 0"):
        data.from_arrays(np.eye(2), np.array([0, 1]))
    with pytest.raises(ValueError, match=r"between 0 and 1, both excluded; got 1\.0"):
        data.from_arrays(np.eye(2), np.array([0, 1]), test_fraction=1.0)


class Trap:
    """Unpickling this writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_pickles_are_refused_and_never_run(tmp_path):
    sprung = tmp_path / "sprung"
    np.savez(tmp_path / "objects.npz", x=np.array([[Trap(sprung)]], dtype=object), y=np.array([0]))
    with pytest.raises(DataError, match=r"x holds Python objects, which are never unpickled"):
        data.load(tmp_path / "objects.npz")
    (tmp_path / "pickle.npz").write_bytes(pickle.dumps(Trap(sprung)))
    with pytest.raises(DataError, match=r"pickle\.npz: not an \.npz archive, or cut short \(\d+ bytes\)"):
        data.load(tmp_path / "pickle.npz")
    with zipfile.ZipFile(tmp_path / "inside.npz", "w") as archive:
        archive.writestr("x.npy", pickle.dumps(Trap(sprung)))
        archive.writestr("y.npy", pickle.dumps(Trap(sprung)))
    with pytest.raises(DataError, match=r"inside\.npz: x (is no numpy array|holds Python objects|is damaged)"):
        data.load(tmp_path / "inside.npz")
    assert not sprung.exists()


def test_files_that_are_none(tmp_path):
    np.save(tmp_path / "lone.npy", np.eye(3))
    (tmp_path / "lone.npy").rename(tmp_path / "lone.npz")
    (tmp_path / "folder.npz").mkdir()
    for name, message in {
        "lone.npz": r"not an \.npz archive",
        "folder.npz": r"this is not a file",
        "gone.npz": r"there is no such file",
        "table.csv": r"ends in \.npz or \.safetensors; this one ends in '\.csv'",
    }.items():
        with pytest.raises(DataError, match=rf"{re.escape(name)}: .*{message}"):
            data.load(tmp_path / name)


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_every_truncation_is_an_error_of_ours(tmp_path, ending):
    whole = tmp_path / f"whole{ending}"
    (np.savez(whole, **arrays()) if ending == ".npz" else save_file(arrays(), whole))
    content = whole.read_bytes()
    cut = tmp_path / f"cut{ending}"
    for length in [*range(0, len(content), 37), len(content) - 1]:
        cut.write_bytes(content[:length])
        with pytest.raises(DataError, match=rf"cut{re.escape(ending)}: (not an? |x is damaged|the archive is damaged)"):
            data.load(cut)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_every_flipped_byte_of_an_npz_is_seen_or_harmless(tmp_path, save):
    """Members have checksums (the directory behind has none): a flip is an error of ours or the same data."""
    whole, flipped = tmp_path / "whole.npz", tmp_path / "flipped.npz"
    save(whole, **arrays())
    content, good = whole.read_bytes(), data.load(whole)
    seen = 0
    for place in range(0, content.index(b"PK\x01\x02"), 11):
        flipped.write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])
        try:
            assert torch.equal(data.load(flipped).train_inputs, good.train_inputs)
        except DataError:
            seen += 1
    assert seen > 50
