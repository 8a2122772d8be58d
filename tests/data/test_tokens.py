"""Tokens of a language model, from files."""

import numpy as np
import pytest

from unbraid import data
from unbraid.errors import DataError


def test_the_label_of_a_position_is_the_next_token(tmp_path):
    np.save(tmp_path / "t.npy", np.arange(23, dtype=np.uint16))
    inputs, labels = data.tokens(tmp_path / "t.npy", 4)
    assert inputs.tolist() == [[0, 1, 2, 3], [5, 6, 7, 8], [10, 11, 12, 13], [15, 16, 17, 18]]
    assert (labels == inputs + 1).all()


def test_rows_do_not_run_into_each_other(tmp_path):
    np.save(tmp_path / "t.npy", np.array([[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]]))
    inputs, labels = data.tokens(tmp_path / "t.npy", 3)
    assert inputs.tolist() == [[1, 2, 3], [6, 7, 8]]
    assert labels.tolist() == [[2, 3, 4], [7, 8, 9]]


def test_a_text_goes_through_its_tokenizer(tmp_path):
    (tmp_path / "t.txt").write_text("aé", encoding="utf-8")
    inputs, labels = data.tokens(tmp_path / "t.txt", 1, encode=lambda text: [ord(letter) for letter in text])
    assert (inputs.tolist(), labels.tolist()) == ([[97]], [[233]])


class Evil:
    def __reduce__(self):
        return pytest.fail, ("it was unpickled",)


def write(path, what):
    if isinstance(what, bytes):
        path.write_bytes(what)
    else:
        np.save(path, what, allow_pickle=True)


@pytest.mark.parametrize(
    ("name", "what", "said"),
    [
        ("t.csv", b"1,2", r"\.npy or \.txt file; this one ends in '\.csv'"),
        ("t.npy", np.array([Evil()], dtype=object), "cannot be read"),
        ("t.npy", b"\x93NUMPY", "cannot be read"),
        ("t.npy", b"", "cannot be read"),
        ("t.npy", np.arange(9.0), r"whole numbers .*found float64 \[9\]"),
        ("t.npy", np.zeros((2, 2, 2), dtype=int), r"found int64 \[2, 2, 2\]"),
        ("t.npy", np.array([1, -5, 2]), "the least here is -5"),
        ("t.npy", np.arange(5), "an example of 8 positions takes 9 tokens; the longest row has 5"),
        ("t.txt", b"\xff\xfe", "not UTF-8"),
        ("t.txt", b"abc", "needs the tokenizer"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, name, what, said):
    write(tmp_path / name, what)
    encode = None if isinstance(what, bytes) and what == b"abc" else list
    with pytest.raises(DataError, match=said):
        data.tokens(tmp_path / name, 8, encode=encode)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.npy: there is no such file"):
        data.tokens(tmp_path / "none.npy")
    with pytest.raises(DataError, match="at least 1 position; got 0"):
        data.tokens(tmp_path / "none.npy", 0)
