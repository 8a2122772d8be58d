"""What tracing one model of the zoo gave."""

import math
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from zoo.entry import Entry, Known, Made
from zoo.watch import additions


@dataclass(frozen=True)
class Result:
    """One line of the zoo's table, as plain values.

    Attributes:
        name: of the model.
        library: where it comes from.
        kind: its group.
        failure: "refused" or "inexact" where there is no form; otherwise empty.
        reason: what the refusal says.
        counts: blocks, projections, branches, nested blocks; all 0 where the trace says that there is no block.
        trunks: the number of sources.
        error: the largest relative error measured.
        silent: blocks too small to be tested.
        tracer: which one served.
        build: seconds to build the model.
        seconds: to trace it.
        lines: for each line of the model's code that adds two float tensors of one shape: how often it ran, how many
            branches were found there, how many additions were refused.
    """

    name: str
    library: str = ""
    kind: str = ""
    failure: str = ""
    reason: str = ""
    counts: tuple[int, int, int, int] | None = None
    trunks: int = 0
    error: float = math.nan
    silent: int = 0
    tracer: str = ""
    build: float = 0.0
    seconds: float = 0.0
    lines: dict[str, tuple[int, int, int]] = field(default_factory=dict)

    def verdict(self, known: Known | None) -> str:
        """ "exact", "refused", or "wrong": the form departs from the model, or its counts from what is known."""
        if self.failure == "refused":
            return "refused"
        agrees = known is None or (self.counts is not None and tuple(self.counts) == known.counts)
        return "exact" if agrees and not self.failure else "wrong"


def measure(entry: Entry) -> Result:
    """Build a model and trace it; every failure is a result."""
    from unbraid.errors import InexactError, NotResidualError

    result = Result(entry.name, entry.library, entry.kind)
    started = time.perf_counter()
    try:
        made = entry.make()
        result = replace(result, build=time.perf_counter() - started)
        ran = additions(made)
        started = time.perf_counter()
        return _traced(result, made, ran)
    except NotResidualError as error:
        refused = Counter(refusal.where for refusal in error.refusals)
        lines = {line: (ran.get(line, 0), 0, refused[line]) for line in ran.keys() | refused.keys()}
        said = str(error).splitlines()[0]
        result = replace(result, counts=(0, 0, 0, 0), lines=lines, reason=said)
    except InexactError as error:
        result = replace(result, failure="inexact", reason=str(error), error=error.error)
    except Exception as error:
        traceback.print_exc(limit=-6)
        result = replace(result, failure="refused", reason=f"{type(error).__name__}: {error}")
    return replace(result, seconds=time.perf_counter() - started)


def _traced(result: Result, made: Made, ran: dict[str, int]) -> Result:
    from unbraid.form import trace

    started = time.perf_counter()
    form = trace(made.model, made.args, made.kwargs)
    return replace(
        result,
        counts=counts(form),
        trunks=len(form.sources),
        error=form.error,
        silent=len(form.silent),
        tracer=form.tracer,
        seconds=time.perf_counter() - started,
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
