"""Path counts by hand: every path of a network written down, as the choices that it makes.

    h = join("f0", START, START)          two paths: by the skip of f0, or by its branch
    h = join("f1", h, h)                  four; a branch that reads two streams is reached by the paths to both
    lengths(read(h, START))               a head reads the last stream, and the first: [2, 2, 1]

A path is a set of choices: two ways to a branch that part in streams that no block has made yet are one path.
"""

from math import comb

Trails = frozenset[tuple[tuple[str, int], ...]]
START: Trails = frozenset({()})


def read(*streams: Trails) -> Trails:
    """The paths to something that reads several streams."""
    return frozenset().union(*streams)


def join(block: str, skip: Trails, *branches: Trails) -> Trails:
    """The paths to a block's sum, by its skip or by one of its branches."""
    operands = enumerate((skip, *branches), start=-1)
    return read(*(frozenset((*path, (block, j)) for path in operand) for j, operand in operands))


def chain(blocks: str, start: Trails = START) -> Trails:
    """One block after the other."""
    for block in blocks.split():
        start = join(block, start, start)
    return start


def lengths(trails: Trails, *around: str) -> list[int]:
    """How many paths pass 0, 1, 2, ... branches; blocks around others are opened, and their branches no step."""
    steps = [sum(j >= 0 and block not in around for block, j in path) for path in trails]
    return [steps.count(length) for length in range(max(steps) + 1)]


def binomials(depth: int) -> list[int]:
    """Of a chain."""
    return [comb(depth, length) for length in range(depth + 1)]
