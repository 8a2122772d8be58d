"""Saved forms: `unbraid.load`."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from fuzz._changes import NASTY, changed_bytes, changed_json, changed_safetensors, changed_zip
from fuzz._source import Source, often, pick, written
from sums import signed

FILES = ("graph.pt2", "weights.safetensors", "form.json")
RUNS = "__import__('os').mkdir('/tmp/unbraid-fuzz-ran')"
HOSTILE = (
    *("torch.os.system", "torch.ops.aten.save.default", "torch.ops.aten.from_file.default", "_operator.methodcaller"),
    *("torch.load", "math.__class__", "torch.ops.aten.__class__.mro", "#x", "builtins.eval", "torch.hub.load"),
    *(RUNS, f"Symbol({RUNS})", "2**2**2**2**2**2", "Pow(Integer(10), Integer(1000000000))", "s0.__class__", "Max(s0"),
    *('[1, {"type": "builtins.dict", "context": "{\\"__enum__\\": 1, \\"fqn\\": \\"antigravity:x\\"}"}]', 7, 99),
)


@cache
def seeds() -> tuple[dict[str, bytes], ...]:
    from unbraid import chain, nn, trace

    made = []
    network = nn.mlp(inputs=3, classes=2, width=3, depth=1, generator=torch.Generator().manual_seed(0)).eval()
    x = torch.zeros(2, 3)
    for form in (trace(network, x), chain(network.plain(), x, layers=["stem", "head"])):
        with TemporaryDirectory() as folder:
            form.save(Path(folder))
            made.append({name: (Path(folder) / name).read_bytes() for name in FILES})
    return tuple(made)


def case(source: Source, folder: Path):
    from unbraid.form import load

    kept = pick(source, seeds())
    saved = written(kept, folder / "form")
    name = pick(source, ("graph.pt2", *FILES))
    if not often(source, 20):
        (saved / name).write_bytes(pick(source, seeds())[name])
    elif name == "graph.pt2":
        (saved / name).write_bytes(changed_zip(source, kept[name], _member))
    else:
        change = changed_json if name == "form.json" else changed_safetensors
        (saved / name).write_bytes(change(source, kept[name]))
    stream = not often(source, 4)
    return lambda: load(signed(saved), stream=stream)


def _member(source: Source, name: str, data: bytes) -> bytes:
    if name.endswith(".json"):
        return changed_json(source, data, (*HOSTILE, *NASTY))
    return changed_bytes(source, data)
