"""One trace at a time, whichever thread asks, and nothing left of it in torch's own memory."""

import linecache
from collections.abc import Iterator
from contextlib import contextmanager

from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.fx.graph_module import _loader

from unbraid._interrupt import held_back
from unbraid._turns import turn


@contextmanager
def _forgotten() -> Iterator[None]:
    before = set(_loader.eval_cache)
    try:
        yield
    finally:
        ShapeEnv.get_implications.cache_clear()
        for name in _loader.eval_cache.keys() - before:
            del _loader.eval_cache[name]
            linecache.cache.pop(name, None)


@contextmanager
def exclusive() -> Iterator[None]:
    """Hold off other threads; afterwards let torch forget sizes and generated code that it would keep for ever."""
    with turn(), held_back(), _forgotten():
        yield
