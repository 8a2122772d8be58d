"""Packages that only some data sets need."""

from collections.abc import Iterator
from contextlib import contextmanager

from unbraid.errors import DataError

__all__ = ["needs"]


@contextmanager
def needs(package: str, *, extra: str, purpose: str) -> Iterator[None]:
    """Import inside this block: a failure becomes a DataError with the package and the install command."""
    try:
        yield
    except ImportError as error:
        raise DataError(
            f"{purpose} needs the package {package}, which cannot be imported: {error}. "
            f"Install it: pip install 'unbraid[{extra}]'"
        ) from error
