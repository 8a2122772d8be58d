"""Where a case takes its choices from: hypothesis or atheris, by one interface.

Fuzzing takes choices, not bytes: each target builds a valid file and changes it by choices, so that one file serves
both, and changes reach past the first check.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

T = TypeVar("T")


class Source(Protocol):
    """Numbers that someone else chooses."""

    def number(self, low: int, high: int) -> int:
        """A whole number between two, both included."""
        ...


class Drawn:
    """Choices by hypothesis, which can repeat and shrink them."""

    def __init__(self, draw) -> None:
        self.draw = draw

    def number(self, low: int, high: int) -> int:
        from hypothesis import strategies as st

        return self.draw(st.integers(low, high))


class Bytes:
    """Choices by atheris, which changes the bytes towards code that it has not seen run."""

    def __init__(self, data: bytes) -> None:
        import atheris

        self.provider = atheris.FuzzedDataProvider(data)

    def number(self, low: int, high: int) -> int:
        return self.provider.ConsumeIntInRange(low, high)


def pick(source: Source, values: Sequence[T]) -> T:
    return values[source.number(0, len(values) - 1)]


def often(source: Source, times: int = 2) -> bool:
    """True in all but one of so many cases."""
    return source.number(1, times) > 1


def written(files: Mapping[str, bytes], folder: Path) -> Path:
    """The folder, made anew with these files in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder
