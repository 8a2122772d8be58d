"""One trace at a time, whichever thread asks, and nothing left of it in torch's own memory."""

import linecache
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.fx.graph_module import _loader

# torch's exporter, its recording of operators, and its random state belong to the process, not to a thread: two traces
# at once would each record what the other computes.
_LOCK = RLock()


@contextmanager
def alone() -> Iterator[None]:
    """Hold off other threads; afterwards let torch forget sizes and generated code that it would keep for ever."""
    with _LOCK:
        before = set(_loader.eval_cache)
        try:
            yield
        finally:
            ShapeEnv.get_implications.cache_clear()
            for name in _loader.eval_cache.keys() - before:
                del _loader.eval_cache[name]
                linecache.cache.pop(name, None)
