"""What the studies share: rows that survive a kill, and pages whose tables are rewritten between two markers."""

import json
import math
import os
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
DOCS = Path(__file__).parents[1] / "docs" / "studies"


class Rows:
    """Finished runs in a JSON file, written anew after each at one moment: a kill loses at most the run it interrupts.

    Args:
        file: where they are kept.
        key: the fields that say which run a row is of.
    """

    def __init__(self, file: Path, *key: str) -> None:
        self.file, self.key = file, key
        self.rows: list[Row] = json.loads(file.read_text()) if file.exists() else []

    def run(self, wanted: Iterable[Row], work: Callable[[Row], Row], say: Callable[[str], object] = print) -> list[Row]:
        """The rows of the wanted runs, those that are not there yet made first."""
        wanted = list(wanted)
        done = {self._name(row) for row in self.rows}
        for number, row in enumerate(wanted, start=1):
            if self._name(row) not in done:
                say(f"{number}/{len(wanted)}  {', '.join(map(str, self._name(row)))}")
                try:
                    made = work(row)
                except KeyboardInterrupt:
                    there = {self._name(row) for row in self.rows} & {self._name(row) for row in wanted}
                    kept = f"{len(there)} of {len(wanted)} runs are kept in {self.file}"
                    say(f"interrupted; {kept}: the same command goes on")
                    raise
                self.rows.append({**row, **made})
                self._write()
        names = {self._name(row) for row in wanted}
        return [row for row in self.rows if self._name(row) in names]

    def _name(self, row: Row) -> tuple[Any, ...]:
        return tuple(row[field] for field in self.key)

    def _write(self) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        part = self.file.with_suffix(".part")
        part.write_text(json.dumps([_plain(row) for row in self.rows], indent=1, ensure_ascii=False) + "\n")
        os.replace(part, self.file)


def grid(**choices: Sequence[Any]) -> list[Row]:
    """Every combination of the choices, the last one changing fastest."""
    rows: list[Row] = [{}]
    for name, values in choices.items():
        rows = [{**row, name: value} for row in rows for value in values]
    return rows


def markdown(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table; the first column to the left, the others to the right."""
    marks = ["---", *["---:"] * (len(header) - 1)]
    rows = [header, marks, *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def rewrite(page: Path, tables: Mapping[str, str]) -> None:
    """Put each table between the markers of its name, <!-- name --> and <!-- end -->, in a page written by hand.

    Raises:
        ValueError: the page lacks a marker.
    """
    text = page.read_text(encoding="utf-8")
    for name, table in tables.items():
        start, end = f"<!-- {name} -->", "<!-- end -->"
        if start not in text or end not in text.split(start, 1)[1]:
            raise ValueError(f"{page} has no place for the table {name!r}: it needs {start} and then {end}.")
        before, rest = text.split(start, 1)
        text = f"{before}{start}\n{table}\n{end}{rest.split(end, 1)[1]}"
    page.write_text(text, encoding="utf-8")


def spread(values: Sequence[float], digits: str = ".2f") -> str:
    """The median, and the range where there are several; runs without a number are counted apart."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known:
        return f"none of {len(values)}"
    text = f"{statistics.median(known):{digits}}"
    if len(known) > 1:
        text += f" ({min(known):{digits}} to {max(known):{digits}})"
    return text if len(known) == len(values) else f"{text}, {len(values) - len(known)} of {len(values)} diverge"


def rounded(value: Any, digits: int = 4) -> Any:
    """The same rows, lists and numbers with so many digits behind the point: what is kept should be read."""
    if isinstance(value, dict):
        return {key: rounded(one, digits) for key, one in value.items()}
    if isinstance(value, list):
        return [rounded(one, digits) for one in value]
    return round(value, digits) if isinstance(value, float) else value


def _plain(value: Any) -> Any:
    """JSON has no nan and no infinity."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
