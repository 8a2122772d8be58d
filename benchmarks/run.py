"""Run the benchmarks one after the other, or show what is in the working tree beside the last committed table.

    python benchmarks/run.py                   all of them: about two hours, on a machine that does nothing else
    python benchmarks/run.py paths lesion      these alone
    python benchmarks/run.py --compare         measures nothing

Each writes its rows, with the machine and the commit, to benchmarks/results/.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
ALL = sorted(path.stem for path in HERE.glob("[a-z]*.py") if path.stem != "run")
ABOUT = ("machine", "cores", "load", "date", "commit", "torch", "bar")


def main(
    names: Annotated[list[str] | None, typer.Argument(help=f"Of {', '.join(ALL)}.", show_default=False)] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Show results beside those of the last commit.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Small cases, to see that it works; nothing is kept.")] = False,
) -> None:
    chosen = names or ALL
    if unknown := set(chosen) - set(ALL):
        print(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(ALL)}", file=sys.stderr)
        raise typer.Exit(2)
    if compare:
        Console(width=None if sys.stdout.isatty() else 150).print(compared(chosen))
        return
    failed = []
    for name in chosen:
        print(f"== {name}", flush=True)
        kept = (
            (HERE / "results" / f"{name}.json").read_bytes() if (HERE / "results" / f"{name}.json").exists() else None
        )
        command = [sys.executable, str(HERE / f"{name}.py"), *(["--quick"] if quick else [])]
        failed += [name] if subprocess.run(command, check=False).returncode else []
        if quick and kept is not None:
            (HERE / "results" / f"{name}.json").write_bytes(kept)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
        raise typer.Exit(1)


def compared(names: list[str]) -> Table:
    """One row a number: as committed, as it is now, and their ratio."""
    table = Table(title="results in the working tree, beside the last commit that changed them")
    for column in ("benchmark", "what", "bar", "committed", "now", "now / committed", "measured"):
        table.add_column(column, justify="right" if column in {"committed", "now", "now / committed"} else "left")
    for name in names:
        path = HERE / "results" / f"{name}.json"
        new = numbers(json.loads(path.read_text())) if path.exists() else {}
        old = numbers(json.loads(committed(path)))
        for what in dict.fromkeys([*old, *new]):
            before, now = old.get(what), new.get(what)
            ratio = f"{now[0] / before[0]:.3f}" if before and now and before[0] else "-"
            shown = [f"{found[0]:.4g}" if found else "-" for found in (before, now)]
            about = now or before or (0.0, {})
            when = f"{about[1].get('date', '')[:10]} {about[1].get('commit', '')}"
            table.add_row(name, what, str(about[1].get("bar") or ""), *shown, ratio, when)
    return table


def committed(path: Path) -> str:
    """The file as the last commit has it; an empty table where it has none."""
    inside = path.relative_to(HERE.parent).as_posix()
    found = subprocess.run(["git", "show", f"HEAD:{inside}"], cwd=HERE, capture_output=True, text=True, check=False)
    return found.stdout if found.returncode == 0 else "{}"


def numbers(found: dict[str, Any]) -> dict[str, tuple[float, dict[str, Any]]]:
    """The numbers of a results file by what they are, each with what is known about its measurement."""
    machine = found.get("machine", {})
    return {
        what: (value, {**machine, **{key: row[key] for key in ABOUT if key in row}})
        for rows in found.values()
        if isinstance(rows, list)
        for row in rows
        for what, value in measured(row)
    }


def measured(row: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """A row of one value says which; of several, each by its own name and by the words and whole numbers beside it."""
    if "value" in row:
        yield f"{row['case']}: {row['quantity']}, {row['device']}, {row['threads']} threads", row["value"]
        return
    said = ", ".join(str(value) for key, value in row.items() if isinstance(value, str | int) and key not in ABOUT)
    for key, value in row.items():
        if isinstance(value, float):
            yield f"{said}: {key}", value


if __name__ == "__main__":
    typer.run(main)
