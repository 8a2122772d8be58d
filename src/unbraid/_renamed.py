"""Keyword arguments that have gone from public functions: who still gives one is told what to give instead."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def gone(**instead: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """For a public function: refuse keywords that it no longer has.

    Args:
        instead: for each of them what to do now, as the end of a sentence that begins with the old name.
    """

    def decorated(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            for name in instead.keys() & kwargs.keys():
                raise TypeError(f"{function.__name__}: {name}= is gone; {instead[name]}.")
            return function(*args, **kwargs)

        return called

    return decorated


split_before = gone(split='give form.split("heads") instead of the form')
keep_before = gone(keep="give the file as resume=")
keep_and_stateful_before = gone(keep="give the file as resume=", stateful="give allow_random=")
