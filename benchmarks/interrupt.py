"""How long jobs take to stop after Ctrl-C: real processes, interrupted at random moments after they have begun.

python benchmarks/interrupt.py
"""

import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from _rows import Row, keep

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "interrupt.json"
UNBRAID = ("-m", "unbraid")
JOBS = ("train", "sweep", "lesion", "report", "study", "zoo")
SWEEP = "depth = [4, 8]\nwidth = 40\nepochs = 20\nseeds = 40\n"


def jobs(folder: Path, trained: Path) -> Mapping[str, tuple[Sequence[str], str]]:
    """Each job's command, and what it says or writes once it has begun: a file in the folder, or words."""
    (folder / "grid.toml").write_text(SWEEP)
    lesion = ("lesion", str(trained), "--batch", "25", "--sets", "pairs")
    return {
        "train": ((*UNBRAID, "train", str(folder / "run"), "--depth", "54", "--epochs", "900"), "run"),
        "sweep": ((*UNBRAID, "sweep", str(folder / "grid.toml")), "grid.sqlite"),
        "lesion": ((*UNBRAID, *lesion, "--resume", str(folder / "kept")), "kept"),
        "report": ((*UNBRAID, "report", str(trained), "-o", str(folder / "report.html")), ""),
        "study": ((str(HERE.parent / "studies" / "depth.py"), "--out", str(folder)), "2/"),
        "zoo": ((str(HERE.parent / "scripts" / "zoo.py"), "--results", str(folder / "zoo.jsonl")), "zoo.jsonl"),
    }


def main(
    times: Annotated[int, typer.Option(min=1, help="Interrupts of each job.")] = 5,
    quick: Annotated[bool, typer.Option("--quick", help="One of each.")] = False,
    out: Annotated[Path, typer.Option(help="Where results are kept.")] = RESULTS,
) -> None:
    draw, rows = random.Random(0), []
    with tempfile.TemporaryDirectory() as name:
        trained = Path(name) / "trained"
        train = (*UNBRAID, "train", str(trained), "--depth", "54", "--epochs", "2")
        subprocess.run([sys.executable, *train], check=True, capture_output=True)
        for job in JOBS:
            found = [interrupted(job, trained, draw.uniform(0, 3)) for _ in range(1 if quick else times)]
            seconds, said = [one[0] for one in found], {one[1:] for one in found}
            rows.append(row(job, seconds))
            print(f"{job:8} slowest {max(seconds):.2f} s, median {statistics.median(seconds):.2f} s (bar 2 s)")
            for status, last in sorted(said):
                print(f"         status {status}: {last}")
    keep(out, rows, "cpu")


def interrupted(job: str, trained: Path, after: float) -> tuple[float, int, str]:
    """Start a job, wait until it has begun and a while more, and interrupt it and its children, as a terminal does.

    Returns:
        Seconds from then to its end, its exit status, and its last line.
    """
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryFile("w+") as said:
        folder = Path(name)
        command, begun = jobs(folder, trained)[job]
        child = subprocess.Popen(
            [sys.executable, *command],
            stdout=said,
            stderr=subprocess.STDOUT,
            cwd=HERE.parent,
            process_group=0,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        end = time.monotonic() + 90
        while begun and not ((folder / begun).exists() or begun in text(said)):
            if time.monotonic() > end:
                os.killpg(child.pid, signal.SIGKILL)
                raise RuntimeError(f"{job} had not begun after 90 s: {text(said)}")
            time.sleep(0.05)
        time.sleep(after if begun else 4 + after)
        if child.poll() is not None:
            raise RuntimeError(f"{job} ended by itself: {text(said)}")
        start = time.perf_counter()
        os.killpg(child.pid, signal.SIGINT)
        status = child.wait(60)
        seconds = time.perf_counter() - start
        lines = [line for line in text(said).replace("\r", "\n").splitlines() if line.strip()]
    last = re.sub(r"\d+ of", "N of", lines[-1].strip()) if lines else ""
    return seconds, status, last.replace(str(folder), "FOLDER")


def text(said: object) -> str:
    """What a job has said so far."""
    return os.pread(said.fileno(), 10**6, 0).decode(errors="replace")  # type: ignore[attr-defined]


def row(job: str, seconds: Sequence[float]) -> Row:
    return {
        "case": f"{job}, from Ctrl-C to its end",
        "quantity": "slowest, seconds",
        "value": max(seconds),
        "bar": "≤ 2",
        "median": statistics.median(seconds),
        "interrupts": len(seconds),
    }


if __name__ == "__main__":
    typer.run(main)
