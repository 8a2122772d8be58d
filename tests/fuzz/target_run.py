"""Folders of training runs: `train.load`."""

import hashlib
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from fuzz._changes import changed_bytes, changed_json, changed_safetensors
from fuzz._source import Source, often, pick, written

FILES = ("config.json", "weights.safetensors", "optimizer.safetensors", "metrics.jsonl")


@cache
def seeds() -> tuple[dict[str, bytes], ...]:
    from unbraid import data, nn, train

    y = torch.arange(12) % 3
    examples = data.from_arrays(torch.randn(12, 4, generator=torch.Generator().manual_seed(0)).numpy(), y.numpy())
    made = []
    for network in (
        nn.mlp(inputs=4, classes=3, width=4, depth=2, generator=torch.Generator().manual_seed(0)),
        nn.mlp(inputs=4, classes=3, width=4, depth=2).plain(),
        nn.mlp(inputs=4, classes=3, width=4, depth=3).without(1),
        nn.transformer(inputs=4, positions=1, width=4, depth=1, heads=2, classes=3),
    ):
        with TemporaryDirectory() as folder:
            train.save(network, examples, folder)
            row = (
                '{"epoch": 1, "lr": 0.1, "train_loss": 1.0, "train_error": 50.0, "test_error": 50.0, "seconds": 1.0}\n'
            )
            files = {name: (Path(folder) / name).read_bytes() for name in FILES}
            made.append({**files, "metrics.jsonl": row.encode() + b'{"diverged": 3}\n'})
    return tuple(made)


def case(source: Source, folder: Path):
    from unbraid import train

    kept = pick(source, seeds())
    run = written(kept, folder / "run")
    name = pick(source, FILES)
    path, other = run / name, pick(source, seeds())
    what = source.number(0, 9)
    if what <= 6:
        change = {"n": changed_json, "s": changed_safetensors, "l": changed_bytes}[name[-1]]
        path.write_bytes(change(source, kept[name]))
    elif what == 7:
        path.write_bytes(other[name])
    elif what == 8:
        path.unlink()
        path.symlink_to(pick(source, ("/dev/zero", "/etc/hostname", str(run), name, "missing")))
    else:
        path.unlink()
        path.mkdir()
    sums = {name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in FILES if _ordinary(run / name)}
    text = "".join(f"{digest}  {name}\n" for name, digest in sums.items()).encode()
    (run / "SHA256SUMS").write_bytes(text if often(source, 10) else changed_bytes(source, text))
    return lambda: train.load(run)


def _ordinary(path: Path) -> bool:
    return path.is_file() and path.stat().st_size < 2**20
