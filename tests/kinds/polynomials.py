"""Path counts by hand: a list holds how many paths pass 0, 1, 2, ... branches."""

from itertools import zip_longest
from math import comb

Counts = list[int]
ONE: Counts = [1]


def plus(*counts: Counts) -> Counts:
    """What two ways bring together."""
    return [sum(column) for column in zip_longest(*counts, fillvalue=0)]


def t(counts: Counts) -> Counts:
    """One branch more."""
    return [0, *counts]


def chain(depth: int, start: Counts = ONE) -> Counts:
    """(1 + t)^depth · start."""
    for _ in range(depth):
        start = plus(start, t(start))
    return start


def binomials(depth: int) -> Counts:
    return [comb(depth, m) for m in range(depth + 1)]
