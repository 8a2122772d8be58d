"""Change the code that finds, cuts and walks, one small thing at a time, and see whether a test fails.

    python scripts/mutate.py              every mutant; a run that was stopped goes on where it was
    python scripts/mutate.py _walk _cut   those of these files alone
    python scripts/mutate.py --again      survivors once more, after tests were added
    python scripts/mutate.py --page       only write docs/mutants.md from the results kept

The changes are mutmut's operators. Its own runner cannot be used here: it leaves decorated functions alone, such as
cached properties, and replaces the others by trampolines, which the run-time checks of types see; cosmic-ray starts
Python, and so imports torch, for every mutant. Here torch, unbraid and the tests are imported once. Each mutant is a
fork in which the changed function's code is put in place; the test that killed a mutant runs first for the next.

Results are kept in runs/mutants/results.jsonl, one line a mutant; they hold until its file changes.
"""

import argparse
import json
import os
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT / "scripts")

from mutants import SUBJECTS, Mutant, Result, mutants, page  # noqa: E402
from mutants.session import judge  # noqa: E402

RESULTS = ROOT / "runs" / "mutants" / "results.jsonl"


def main() -> int:
    options = _options()
    chosen = [name for name in SUBJECTS if not options.names or Path(name).stem in options.names]
    if options.names and len(chosen) != len(options.names):
        print(f"there are: {', '.join(Path(name).stem for name in SUBJECTS)}", file=sys.stderr)
        return 2
    every = [mutant for name in SUBJECTS for mutant in mutants(ROOT, name)]
    kept = _earlier(every)
    begun = time.monotonic()
    for name in () if options.page else chosen:
        due = [m for m in every if m.file == name and (m.key not in kept or (options.again and not kept[m.key].killed))]
        if due and not _judged_apart(name, due, options.jobs):
            print(f"{name}: its tests do not pass on the file as it is", file=sys.stderr)
            return 1
        print(f"{name}: {(time.monotonic() - begun) / 60:.1f} min", flush=True)
    kept = _earlier(every)
    (ROOT / "docs" / "mutants.md").write_text(page(ROOT, every, kept), encoding="utf-8")
    alive = sum(not result.killed for result in kept.values())
    print(f"{len(every)} mutants, {len(kept)} judged, {alive} survive")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="files, such as _walk")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="mutants at once")
    parser.add_argument("--again", action="store_true", help="survivors once more")
    parser.add_argument("--page", action="store_true", help="write the page, run nothing")
    return parser.parse_args()


def _earlier(every: list[Mutant]) -> dict[str, Result]:
    """The results kept of mutants that there still are, the last one of each."""
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    found = [Result(**json.loads(line)) for line in lines]
    keys = {mutant.key for mutant in every}
    return {result.key: result for result in found if result.key in keys}


def _judged_apart(name: str, due: list[Mutant], jobs: int) -> bool:
    """Judge the mutants of one file in a process of its own: a second run of pytest in one would not begin afresh."""
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        with RESULTS.open("a") as file:

            def keep(result: Result) -> None:
                file.write(json.dumps(asdict(result)) + "\n")
                file.flush()

            os._exit(0 if judge(ROOT, name, due, jobs, keep) else 1)
    _, status = os.waitpid(child, 0)
    return status == 0


if __name__ == "__main__":
    raise SystemExit(main())
