"""Trace every model type of transformers, each in a process of its own with limits, and write docs/types.md.

    python scripts/model_types.py                     all of them; a run that was stopped goes on where it was
    python scripts/model_types.py --only bert t5      these alone, anew
    python scripts/model_types.py --jobs 2            so many at a time
    python scripts/model_types.py --page              the page alone, from what is there
    python scripts/model_types.py --diffusers         the networks of diffusers, in an environment that has it; no page

Results are kept in runs/zoo/types.jsonl (diffusers.jsonl), one line per type. They hold for the code that made them;
`--keep` takes those of other code, too. (A file scripts/types.py would hide Python's own module of that name from all
scripts here.)
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Instead of this folder, in which zoo.py would pass for the package "zoo".
sys.path[0] = str(ROOT / "tests")

from rich.console import Console  # noqa: E402
from rich.progress import track  # noqa: E402

import torchaudio_stub  # noqa: E402, F401
import torchvision_stub  # noqa: E402, F401
from oracles.ledger import read  # noqa: E402
from zoo import diffusers_models, model_types  # noqa: E402
from zoo.entry import Made  # noqa: E402
from zoo.fingerprint import of_tracer  # noqa: E402
from zoo.limited import Limits, each  # noqa: E402
from zoo.measured_type import measure  # noqa: E402
from zoo.type_result import TypeResult  # noqa: E402
from zoo.types_page import line, page, score  # noqa: E402

RESULTS = ROOT / "runs" / "zoo" / "types.jsonl"
DIFFUSERS = ROOT / "runs" / "zoo" / "diffusers.jsonl"
PRELOAD = ("torchvision_stub", "torchaudio_stub", "zoo.libraries", "zoo.type_libraries")


def main() -> int:
    options = _options()
    ledger, code, names = read(), of_tracer(), (diffusers_models if options.diffusers else model_types).names()
    if unknown := set(options.only or ()) - set(names):
        print(f"there are no such model types: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    done = _earlier(options.results, None if options.keep or options.page else code)
    # What could not be built is tried anew: the rules may have changed.
    due = options.only or [name for name in names if name not in done or done[name].failure == "unbuilt"]
    limits = Limits(options.seconds, options.megabytes)
    try:
        work = _diffusers if options.diffusers else _transformers
        outcomes = each([] if options.page else due, work, limits, jobs=options.jobs, lost=_lost, preload=PRELOAD)
        for name, fields in track(outcomes, "types", total=len(due), console=Console(stderr=True)):
            done[name] = TypeResult(**fields)
            _write(options.results, code, done[name])
            print(line(done[name], ledger), flush=True)
    except KeyboardInterrupt:
        print(f"interrupted; what is done is in {options.results}: the same command goes on", file=sys.stderr)
        return 130
    results = [done[name] for name in names if name in done]
    if not options.only and not options.diffusers:
        others = list(_earlier(DIFFUSERS, None if options.keep or options.page else code).values())
        (ROOT / "docs" / "types.md").write_text(page(results, others, ledger, limits, len(names) - len(results)))
    print(score(results, ledger))
    return int(any(result.verdict(ledger) == "wrong" for result in results))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these types, anew; no page")
    parser.add_argument("--jobs", type=int, default=1, help="types at a time")
    parser.add_argument("--seconds", type=float, default=Limits.seconds, help="of the processor, the most for one type")
    parser.add_argument("--megabytes", type=float, default=Limits.megabytes, help="of memory, the most for one type")
    parser.add_argument("--keep", action="store_true", help="keep results of other code")
    parser.add_argument("--page", action="store_true", help="trace nothing, write the page")
    parser.add_argument("--diffusers", action="store_true", help="the networks of diffusers")
    parser.add_argument("--results", type=Path, help="where results are kept")
    options = parser.parse_args()
    options.results = options.results or (DIFFUSERS if options.diffusers else RESULTS)
    return options


def _transformers(name: str) -> TypeResult:
    return _measured(name, model_types.make)


def _diffusers(name: str) -> TypeResult:
    return _measured(name, diffusers_models.make)


def _measured(name: str, make: Callable[[str], Made]) -> TypeResult:
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    return measure(name, make)


def _lost(name: str, reason: str) -> dict[str, object]:
    """A type whose process did not live to tell: what it built is not known."""
    return vars(TypeResult(name, failure="limit", reason=reason))


def _earlier(kept: Path, code: str | None) -> dict[str, TypeResult]:
    """What was kept, of this code alone or of any; later lines replace earlier ones."""
    results = {}
    for text in kept.read_text().splitlines() if kept.exists() else ():
        try:
            record = json.loads(text)
        except ValueError:
            continue  # cut short when the run was killed
        if code is None or record["code"] == code:
            results[record["result"]["name"]] = TypeResult(**record["result"])
    return results


def _write(kept: Path, code: str, result: TypeResult) -> None:
    kept.parent.mkdir(parents=True, exist_ok=True)
    with kept.open("a") as file:
        # The line break comes first, so that a line cut short by a kill ends there.
        file.write("\n" + json.dumps({"code": code, "result": vars(result)}))


if __name__ == "__main__":
    sys.exit(main())
