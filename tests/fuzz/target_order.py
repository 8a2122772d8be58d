"""Orders of operations: `nn.Order`."""

from pathlib import Path

from fuzz._changes import changed_bytes
from fuzz._source import Source, often, pick

WORDS = ("linear", "conv", "attention", "mlp", "norm", "act", "+", "++", "liner", "", " ", "\t", "\n", "é", "\0", "+ +")


def case(source: Source, folder: Path):
    from unbraid.nn import Order

    text = pick(source, (" ", "  ", "\n", "")).join(pick(source, WORDS) for _ in range(source.number(0, 9)))
    if not often(source, 3):
        text = changed_bytes(source, text.encode()).decode("utf-8", "replace")
    return lambda: Order(text).repeat(source.number(0, 3))
