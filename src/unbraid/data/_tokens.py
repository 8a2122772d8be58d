"""Tokens for language models: rows of positions, and the token that follows each."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from unbraid.errors import DataError

__all__ = ["tokens"]

Encode = Callable[[str], Sequence[int]]


def tokens(
    path: str | Path, positions: int = 64, *, encode: Encode | None = None
) -> tuple[Int64[Tensor, "examples positions"], Int64[Tensor, "examples positions"]]:
    """Inputs and labels of a language model from a file: the label of a position is the token that follows it.

        inputs, labels = data.tokens("book.txt", 128, encode=tokenizer.encode)
        batches = list(zip(inputs.split(4), labels.split(4)))

    Args:
        path: an .npy file of whole numbers [length] or [examples, length], or a .txt file in UTF-8.
        positions: of an example. A row is cut into pieces of positions + 1 tokens; what is left over is dropped.
        encode: the tokenizer of a .txt file: text -> numbers.

    Raises:
        DataError: the file is missing, damaged, of another kind, or too short; or a text comes without a tokenizer.
    """
    path = Path(path)
    if positions < 1:
        raise DataError(f"tokens: an example has at least 1 position; got {positions}")
    rows = torch.as_tensor(_read(path, encode), device="cpu")
    rows = rows.reshape(-1, rows.shape[-1]) if rows.ndim > 1 else rows[None]
    pieces = [row[: len(row) // (positions + 1) * (positions + 1)].reshape(-1, positions + 1) for row in rows]
    whole = torch.cat(pieces)
    if not len(whole):
        raise DataError(
            f"{path}: an example of {positions} positions takes {positions + 1} tokens; the longest row has "
            f"{rows.shape[1]}"
        )
    return whole[:, :-1].contiguous(), whole[:, 1:].contiguous()


def _read(path: Path, encode: Encode | None) -> "np.ndarray[tuple[int, ...], np.dtype[np.int64]]":
    if path.suffix not in {".npy", ".txt"}:
        raise DataError(f"{path}: tokens stand in an .npy or .txt file; this one ends in {path.suffix!r}")
    if not path.is_file():
        raise DataError(f"{path}: there is no such file" if not path.exists() else f"{path}: this is not a file")
    try:
        if path.suffix == ".txt":
            if encode is None:
                raise DataError(f"{path}: a text needs the tokenizer of its model; or save the tokens as .npy")
            tokens = np.asarray(encode(path.read_text(encoding="utf-8")))
        else:
            # Opened here, because numpy forgets to close a file that it cannot read.
            with path.open("rb") as file:
                tokens = np.lib.format.read_array(file, allow_pickle=False)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: this is not UTF-8 text: {error.reason} at byte {error.start}") from error
    except DataError:
        raise
    except Exception as error:  # numpy's parser of headers raises many kinds, and so does a tokenizer
        raise DataError(
            f"{path}: the file cannot be read: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        ) from error
    if tokens.dtype.kind not in "iu" or tokens.ndim not in (1, 2) or not tokens.size:
        raise DataError(
            f"{path}: tokens are whole numbers [length] or [examples, length]; found {tokens.dtype} "
            f"{list(tokens.shape)}"
        )
    if int(tokens.min()) < 0 or int(tokens.max()) >= 2**63:
        raise DataError(f"{path}: tokens count from 0; the least here is {tokens.min()}, the largest {tokens.max()}")
    return tokens.astype(np.int64)
