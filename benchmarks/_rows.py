"""Measured rows in a JSON file, with where and when they were measured."""

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

Row = dict[str, Any]


def keep(path: Path, rows: list[Row], device: str) -> None:
    """Add the rows to those of other cases, devices and numbers of threads, in one step."""
    facts = {
        "device": device,
        "machine": torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "torch": str(torch.__version__),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
    }
    new = [{**found, **facts} for found in rows]
    tables = json.loads(path.read_text()) if path.exists() else {}
    kept = [found for found in tables.get("rows", []) if _key(found) not in set(map(_key, new))]
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps({**tables, "rows": [*kept, *new]}, indent=1, ensure_ascii=False) + "\n")
    part.replace(path)


def commit() -> str:
    """The commit that was measured, marked where the tree has changes besides results."""
    git = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    said = subprocess.run(git, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return said.stdout.strip()


def _key(found: Row) -> tuple[object, ...]:
    """What tells one row from another."""
    return tuple(found[name] for name in ("case", "quantity", "device", "threads"))
