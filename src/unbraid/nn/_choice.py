"""One way to look up an option by name, and one wording when the name is unknown."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TypeVar

T = TypeVar("T")


def suggestion(given: str, options: Iterable[str]) -> str:
    """Return ` Did you mean "linear"?` where an option is close to what was given, otherwise nothing."""
    close = get_close_matches(given, list(options), n=1)
    return f' Did you mean "{close[0]}"?' if close else ""


def choose(what: str, given: str, options: Mapping[str, T]) -> T:
    """Return `options[given]`.

    Raises:
        ValueError: there is no such option; the message lists those there are.
    """
    if given not in options:
        listed = ", ".join(options)
        raise ValueError(f'{what}: unknown name "{given}"\n  Choose from: {listed}.{suggestion(given, options)}')
    return options[given]


def positive(**values: int) -> None:
    """Refuse counts and sizes below 1, by their names."""
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} must be 1 or more, but is {value}")
