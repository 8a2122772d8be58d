"""Trace every model of the zoo, each in a process of its own, and write docs/zoo.md.

    python scripts/zoo.py                 all of them; a run that was stopped goes on where it was
    python scripts/zoo.py resnet18 Llama  these alone
    python scripts/zoo.py --fresh         forget earlier results
    python scripts/zoo.py --more          the models of other libraries, in an environment that has them

Results are kept in runs/zoo/results.jsonl and runs/zoo/more.jsonl, one line a model, and hold for the code that made
them: after a change of the tracer all models are due again.
"""

import argparse
import json
import multiprocessing
import os
import signal
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# Instead of this folder, in which this very file would pass for the package "zoo".
sys.path[0] = str(ROOT / "tests")

from rich.console import Console  # noqa: E402
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: E402

import torchaudio_stub  # noqa: E402, F401
import torchvision_stub  # noqa: E402, F401
from oracles import concatenations  # noqa: E402
from oracles.ledger import read  # noqa: E402
from zoo.catalogue import MODELS, MORE, find  # noqa: E402
from zoo.entry import Entry  # noqa: E402
from zoo.fingerprint import of_tracer  # noqa: E402
from zoo.page import line, page, score  # noqa: E402
from zoo.result import Result, measure  # noqa: E402

RESULTS = ROOT / "runs" / "zoo" / "results.jsonl"
OTHERS = ROOT / "runs" / "zoo" / "more.jsonl"
SECONDS = 600  # a model that takes longer hangs


def main() -> int:
    options = _options()
    entries = MORE if options.more else MODELS
    chosen = [entry for entry in entries if not options.names or entry.name in options.names][: options.first]
    if unknown := set(options.names) - {entry.name for entry in chosen}:
        print(f"no such models in the zoo: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    code, stale = of_tracer(), []
    if options.fresh:
        options.results.unlink(missing_ok=True)
    done = {} if options.names else _earlier(options.results, code, options.keep)
    try:
        done |= _trace_all([entry for entry in chosen if entry.name not in done], code, options)
    except KeyboardInterrupt:
        print(f"interrupted; finished models are kept in {options.results}: the same command goes on", file=sys.stderr)
        return 130
    results = [done[entry.name] for entry in chosen if entry.name in done]
    if not options.names and options.first is None and not options.more:
        others = _earlier(OTHERS, code, options.keep)
        shown = [*results, *(others[entry.name] for entry in MORE if entry.name in others)]
        (ROOT / "docs").mkdir(exist_ok=True)
        (ROOT / "docs" / "zoo.md").write_text(page(shown, (*chosen, *MORE)))
        stale = _stale(shown)
    known = {entry.name: entry.known for entry in chosen}
    for result in results:
        print(line(result, known[result.name]))
        print("".join(f"    {fault}\n" for fault in result.faults), end="")
    print(score(results, chosen))
    print("".join(f"{text}\n" for text in stale), end="")
    return 1 if stale or any(result.verdict(known[result.name]) == "wrong" for result in results) else 0


def _stale(results: list[Result]) -> list[str]:
    """The lines of the ledger that no model runs any more; those of libraries that were not traced are left alone."""
    met = [place for result in results for place, _ in result.places]
    whole = {result.name for result in results} >= {entry.name for entry in (*MODELS, *MORE)}
    packages = {place.file.split("/")[0] for place in met} if whole else {"timm", "transformers"}
    beside = [place for result in results for place, _ in result.concatenations]
    unrecorded = not beside  # results of code that noted additions alone
    return [*read().stale(met, packages), *(() if unrecorded else concatenations.ledger().stale(beside, packages))]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="models to trace; by default the whole zoo")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results")
    parser.add_argument("--keep", action="store_true", help="keep earlier results, even those of other code")
    parser.add_argument("--jobs", type=int, default=1, help="models at a time")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="time limit of one model")
    parser.add_argument("--first", type=int, help="only so many models, and no page")
    parser.add_argument("--results", type=Path, help="where results are kept")
    parser.add_argument("--more", action="store_true", help="the models of other libraries than timm and transformers")
    options = parser.parse_args()
    options.results = options.results or (OTHERS if options.more else RESULTS)
    return options


def _earlier(kept: Path, code: str, keep: bool) -> dict[str, Result]:
    if not kept.exists():
        return {}
    results = {}
    for text in kept.read_text().splitlines():
        try:
            record = json.loads(text)
        except ValueError:
            continue  # cut short when the run was killed
        if keep or record["code"] == code:
            results[record["name"]] = Result(**record["result"])
    return results


def _trace_all(entries: list[Entry], code: str, options: argparse.Namespace) -> dict[str, Result]:
    """Start a process for each model, at most so many at a time, and write down each result when it arrives."""
    # The processes are forked from one that has imported the libraries: importing them takes longer than most traces.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torchvision_stub", "torchaudio_stub", "zoo.libraries"])
    waiting, running, done = list(entries), {}, {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("zoo", total=len(entries))
        while waiting or running:
            while waiting and len(running) < options.jobs:
                entry = waiting.pop(0)
                progress.update(task, description=f"{entry.library} {entry.name}")
                here, there = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(entry.name, there), daemon=True)
                process.start()
                there.close()
                running[entry.name] = (process, here, time.monotonic())
            for name, (process, here, started) in list(running.items()):
                result = _arrived(name, process, here, started, options.seconds)
                if result is not None:
                    del running[name]
                    done[name] = result
                    _write(options.results, name, code, result)
                    progress.advance(task)
            time.sleep(0.05)
    return done


def _arrived(name: str, process: Any, here: Connection, started: float, seconds: float) -> Result | None:
    """The result of a process that has ended, or that is made to end."""
    spent = time.monotonic() - started
    if here.poll():
        try:
            fields = here.recv()
            process.join()
            return Result(**fields)
        except EOFError:
            process.join()
            return _lost(name, f"its process ended with code {process.exitcode}", spent)
    if spent > seconds:
        process.kill()
        process.join()
        return _lost(name, f"took more than {seconds:g} s", spent)
    return None


def _lost(name: str, reason: str, seconds: float) -> Result:
    """A model whose process did not live to tell."""
    entry = find(name)
    return Result(name, entry.library, entry.kind, failure="refused", reason=reason, seconds=seconds)


def _work(name: str, there: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the first one speaks for all
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    there.send(vars(measure(find(name))))


def _write(kept: Path, name: str, code: str, result: Result) -> None:
    kept.parent.mkdir(parents=True, exist_ok=True)
    with kept.open("a") as file:
        # The line break comes first, so that a line cut short by a kill ends there.
        file.write("\n" + json.dumps({"name": name, "code": code, "result": vars(result)}))
        file.flush()
        os.fsync(file.fileno())


if __name__ == "__main__":
    sys.exit(main())
