"""The zoo's results as a page of the documentation."""

from collections import Counter
from collections.abc import Sequence

from zoo.entry import Entry, Known
from zoo.result import Result

_HEAD = """# The zoo

Models that nobody here wrote, each traced in float32, in eval mode, with untrained weights; parameters that start
from zero, or next to it, were given values first, so that a missing branch would be seen. Made by `make zoo`.

- **exact**: the form returns what the model returns, at the traced input and at one of another batch size, to 1e-5
  in the largest norm; every addition is the sum of its operands; and the blocks are those counted by other
  means (last column).
- **refused**: there is no form, and the message says why.
- **wrong**: the form differs from the model, the counts from those known, or the joins from the ledgers.

A network without residual additions counts as exact where the trace says that there are none.

The **ledger** (`tests/zoo/ledger/`) lists every expression in the models' source that adds two tensors which depend on
an input, as a run of the model meets them, with a verdict by reading: a block, or why it is none. A form that does not
count what the ledger calls a block, or counts or passes over in silence what it does not, is wrong, and so is a model
with an addition that nobody has read. So it is with concatenations (`tests/zoo/ledger/concatenations/`): one that is a
block by reading is counted as such, and none of the others, most of which lay the parts of one tensor side by side.
What forms are known not to see stands at the end of this page; it fails nothing.

"""

_MISSED = """
## What forms do not see yet

Additions and concatenations that are blocks by the ledger and that no form counts (**missed**; additions are refused
with a reason, in `form.refusals`), and some that are none and that forms pass over without a reason (**unseen**). The
sums over paths are exact all the same: the paths through these joins lie inside a branch, a skip or the head.

| model | join | what it is |
|---|---|---|
"""


def page(results: Sequence[Result], entries: Sequence[Entry]) -> str:
    """The whole page in Markdown."""
    known = {entry.name: entry.known for entry in entries}
    parts = [_HEAD, score(results, entries), "\n"]
    for kind in dict.fromkeys(result.kind for result in results):
        parts += [f"\n## {kind}\n\n", *_TABLE]
        parts += [f"{_row(result, known[result.name])}\n" for result in results if result.kind == kind]
    missed = [f"| {result.name} | {where} | {why} |\n" for result in results for where, why in result.missed]
    return "".join([*parts, _MISSED, *missed] if missed else parts)


_TABLE = (
    "| model | | blocks | skips (identity / projection) | branches | nested | of other kinds | error | seconds "
    "| counted by |\n",
    "|---|---|--:|--:|--:|--:|---|--:|--:|---|\n",
)


def score(results: Sequence[Result], entries: Sequence[Entry]) -> str:
    """How many were exact, refused and wrong."""
    known = {entry.name: entry.known for entry in entries}
    verdicts = Counter(result.verdict(known[result.name]) for result in results)
    counted = sum(known[result.name] is not None for result in results)
    additions = sum(times for result in results for _, times in result.places)
    expressions = len({place for result in results for place, _ in result.places})
    missed = sum(bool(result.missed) for result in results)
    beside = sum(times for result in results for _, times in result.concatenations)
    lines = len({place for result in results for place, _ in result.concatenations})
    return (
        f"**{verdicts['exact']} exact / {verdicts['refused']} refused with a reason / {verdicts['wrong']} wrong**, "
        f"of {len(results)} models; {counted} of them have a count known by other means. They ran {additions:,} "
        f"additions of data at {expressions} places of their source and {beside:,} concatenations at {lines}, all of "
        f"which were read; {missed} models have some that forms do not see yet.\n"
    )


def line(result: Result, known: Known | None) -> str:
    """One model, for the terminal."""
    blocks, projections, branches, nested = result.counts or ("-",) * 4
    found = f"{blocks} blocks, {projections} projections, {branches} branches, {nested} nested"
    verdict = result.verdict(known)
    reason = "" if verdict == "exact" else f"  {_why(result, known)}"
    return f"{result.name:32} {verdict:8} {found:56} {result.error:8.1e} {result.seconds:6.1f} s{reason}"


def _row(result: Result, known: Known | None) -> str:
    verdict = result.verdict(known)
    note = (known.how if known else "") if verdict == "exact" else f"**{_why(result, known)}**"
    if result.counts is None:
        return f"| {result.name} | {verdict} | | | | | | | {result.seconds:.1f} | {note} |"
    blocks, projections, branches, nested = result.counts
    skips = f"{blocks - projections} / {projections}" if blocks else ""
    others = "; ".join(f"{count} {kind}" for kind, count in sorted(result.kinds.items()))
    error = f"{result.error:.1e}" if blocks or others else ""
    return (
        f"| {result.name} | {verdict} | {blocks} | {skips} | {branches} | {nested} | {others} | {error} "
        f"| {result.seconds:.1f} | {note} |"
    )


def _why(result: Result, known: Known | None) -> str:
    if result.failure:
        text = result.reason
    elif result.faults:
        text = "; ".join(result.faults)
    else:
        text = result.reason if known is None else f"known: {known.counts}, {known.kinds or ''}"
    return " ".join(text.split()).replace("|", "\\|")[:300]
