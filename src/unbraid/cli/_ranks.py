"""One command line on many processes, as torchrun starts it: rank 0 speaks and writes, the others are silent."""

import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

__all__ = ["on_ranks", "report_failure"]

# The verbs that share their work; another runs on rank 0, and the others have nothing to do.
_SHARED = frozenset({"lesion", "sweep", "train"})


def on_ranks(command: Callable[[], int], arguments: Sequence[str]) -> int:
    """Run a command, on several connected ranks where torchrun started them; its exit status."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:  # known without torch, which takes seconds to import
        return command()
    from unbraid import ranks

    first = not ranks.many() or os.environ["RANK"] == "0"
    if not ranks.many() or _SHARED.isdisjoint(arguments[:1]):
        return command() if first else 0
    with ranks.group():
        if first:
            return command()
        with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            return command()


def report_failure(line: str) -> None:
    """Tell torchrun why this process fails: its summary shows it, also for a rank that is silent."""
    if file := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        said = {"message": {"message": line, "extraInfo": {"timestamp": str(int(time.time()))}}}
        Path(file).write_text(json.dumps(said))
