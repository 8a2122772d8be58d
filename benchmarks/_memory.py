"""Peak memory of one piece of work, measured by the kernel in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

# Every tensor of 64 kB or more is mapped for itself and given back when freed; the allocator otherwise keeps freed
# memory, and a peak would depend on what ran before.
_PLAIN = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}


def resident(field: str) -> int:
    """A line of /proc/self/status, in bytes: VmRSS for what is resident now, VmHWM for the most that was."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


def from_now() -> int:
    """Forget earlier peaks; returns what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


def in_child(script: str, *arguments: str, plain: bool = True) -> dict[str, float]:
    """Run a benchmark's file again as a child with some arguments; it prints one JSON object, last.

    With `plain` the allocator keeps nothing that was freed: for memory, not for times.
    """
    command = [sys.executable, script, *arguments]
    done = subprocess.run(
        command,
        env={**os.environ, **(_PLAIN if plain else {"OMP_NUM_THREADS": "1"})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found
