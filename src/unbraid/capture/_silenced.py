"""What torch warns of while it works for us, kept from the user."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def unwarned(message: str) -> Iterator[None]:
    """Ignore warnings that begin so, a pattern, and no others.

    `warnings.catch_warnings` belongs to the process: in the end it undoes what another thread has set meanwhile. One
    filter that names torch's own words, put in and taken out again, changes nothing for anybody else.
    """
    warnings.filterwarnings("ignore", message=message)
    added = warnings.filters[0]
    try:
        yield
    finally:
        if added in warnings.filters:  # a list that another thread may have put back to what it was
            warnings.filters.remove(added)  # type: ignore[attr-defined]
