"""What tracing one model of the zoo gave."""

import math
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from zoo.entry import Entry


@dataclass(frozen=True)
class Result:
    """One line of the zoo's table, as plain values.

    Attributes:
        name: of the model.
        library: where it comes from.
        kind: its group.
        verdict: "exact"; "refused" with a reason; "wrong": the counts differ from what is known, or the form from the model.
        reason: why it was refused, or what is wrong.
        counts: blocks, projections, branches, nested blocks.
        expected: the same as known by other means; None where nothing is known.
        how: by which means.
        trunks: the number of sources.
        error: the largest relative error measured.
        silent: blocks too small to be tested.
        tracer: which one served.
        build, seconds: what building and tracing took.
        lines: for each line of the model's code that adds two float tensors of one shape: how often it ran, how many
            branches were found there, how many additions were refused.
    """

    name: str
    library: str = ""
    kind: str = ""
    verdict: str = "exact"
    reason: str = ""
    counts: tuple[int, int, int, int] | None = None
    expected: tuple[int, int, int, int] | None = None
    how: str = ""
    trunks: int = 0
    error: float = math.nan
    silent: int = 0
    tracer: str = ""
    build: float = 0.0
    seconds: float = 0.0
    lines: dict[str, tuple[int, int, int]] = field(default_factory=dict)

    @classmethod
    def failed(cls, name: str, reason: str, seconds: float) -> "Result":
        """A model whose process did not live to tell."""
        return cls(name, verdict="refused", reason=reason, seconds=seconds)


def measure(entry: Entry) -> Result:
    """Build and trace a model, and compare what was found with what is known."""
    common: dict[str, Any] = {"name": entry.name, "library": entry.library, "kind": entry.kind}
    if entry.known is not None:
        common |= {"expected": entry.known.counts, "how": entry.known.how}
    try:
        return _traced(entry, common)
    except Exception as error:  # every failure is a line of the table
        traceback.print_exc(limit=-6)
        return Result(**common, verdict="refused", reason=f"{type(error).__name__}: {error}")


def _traced(entry: Entry, common: dict[str, Any]) -> Result:
    from zoo.watch import additions

    from unbraid.errors import InexactError, NotResidualError
    from unbraid.form import trace

    started = time.perf_counter()
    made = entry.make()
    common["build"] = time.perf_counter() - started
    ran = additions(made)
    started = time.perf_counter()
    try:
        form = trace(made.model, made.args, made.kwargs)
    except NotResidualError as error:
        common["seconds"] = time.perf_counter() - started
        none = entry.known is None or entry.known.blocks == 0
        refused = Counter(refusal.where for refusal in error.refusals)
        return Result(
            **common, verdict="exact" if none else "wrong", reason=str(error).splitlines()[0], counts=(0, 0, 0, 0),
            lines={line: (ran.get(line, 0), 0, refused[line]) for line in ran.keys() | refused.keys()},
        )  # fmt: skip
    except InexactError as error:
        common["seconds"] = time.perf_counter() - started
        return Result(**common, verdict="wrong", reason=str(error), error=error.error)
    common["seconds"] = time.perf_counter() - started
    found = counts(form)
    wrong = entry.known is not None and found != entry.known.counts
    return Result(
        **common,
        verdict="wrong" if wrong else "exact",
        reason=f"known: {entry.known.counts}" if wrong and entry.known else "",
        counts=found,
        trunks=len(form.sources),
        error=form.error,
        silent=len(form.silent),
        tracer=form.tracer,
        lines=_lines(form, ran),
    )


def counts(form: Any) -> tuple[int, int, int, int]:
    """Blocks, projections, branches, nested blocks."""
    blocks = form.blocks
    return (
        len(blocks),
        sum(block.skip == "projection" for block in blocks),
        sum(len(block.branches) for block in blocks),
        len(_all(blocks)) - len(blocks),
    )


def _all(blocks: Any) -> list[Any]:
    return [inner for block in blocks for inner in (block, *_all(block.nested))]


def _lines(form: Any, ran: dict[str, int]) -> dict[str, tuple[int, int, int]]:
    found: Counter[str] = Counter()
    for block in _all(form.blocks):
        found[block.where] += len(block.branches)
    refused = Counter(refusal.where for refusal in form.refusals)
    return {line: (ran.get(line, 0), found[line], refused[line]) for line in ran.keys() | found.keys() | refused.keys()}
