"""The metric of a model without each of some sets of blocks (Veit et al. 2016, section 4.1).

Each lesion is a variant of the form; `sweep` runs them all so that equal work is done once, and several in one batch.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, TypeGuard

import torch
from rich.table import Table

from unbraid._figures import Axes, Figure
from unbraid._modes import outside_modes
from unbraid._renamed import keep_and_stateful_before
from unbraid.discover import refuse_stateful
from unbraid.form import ResidualForm
from unbraid.graph import SKIP, BranchIndex, Removal
from unbraid.lesions._lesion_sets import LesionSet, Sets, the_names, the_sets
from unbraid.lesions._replace import NOTHING, Replacement, means, others
from unbraid.results import Result
from unbraid.results.rows import Row, as_rows
from unbraid.sweep import Batches, Metric, Resume, lesioned, sweep

_SAID = {
    "zero": "output left out",
    "mean": "output replaced by its mean over the data",
    "resample": "output replaced by another example's",
    "identity": "the identity in the place of each block, its skip as well",
}


@dataclass(frozen=True, repr=False)
class LesionStudy(Result):
    """A metric of a model without each of some sets of blocks, beside the whole model's (Veit et al. 2016).

    Attributes:
        whole: the metric of the whole model, averaged over all examples.
        sets: what was deleted: blocks by index, branches as (block, branch), or skips as (block, −1).
        names: the same by name.
        metrics: the metric without each set.
        replace: what took the place of a branch's output: "zero", "mean" or "resample"; "identity" that of a block.
        identity: the plain layers, which have no skip, in whose place the identity was put.
        examples: how many examples there were.
        stacked: whether several lesions ran together as one larger batch.
    """

    whole: float
    sets: tuple[LesionSet, ...]
    names: tuple[str, ...]
    metrics: tuple[float, ...]
    replace: str
    identity: tuple[int, ...]
    examples: int
    stacked: bool

    columns = (("without", "{without}"), ("", "{name}"), ("metric", "{metric:.4g}"), ("change", "{change:+.4g}"))

    @cached_property
    def delta(self) -> tuple[float, ...]:
        """By how much each lesion changes the metric."""
        return tuple(metric - self.whole for metric in self.metrics)

    @cached_property
    def ranked(self) -> tuple[int, ...]:
        """The numbers of the sets, those that change the metric most first."""
        return tuple(sorted(range(len(self.sets)), key=lambda number: -abs(self.delta[number])))

    def table(self) -> Table:
        """One row per lesion, those that change the metric most first."""
        table = super().table()
        table.columns[1].overflow = "fold"
        return table

    def _table_rows(self) -> list[Row]:
        rows = self.rows()
        return [rows[number] for number in self.ranked]

    @property
    def caption(self) -> str:
        """How the numbers were made."""
        identity = f"; the identity in the place of {len(self.identity)} plain layers" if self.identity else ""
        return f"whole model: {self.whole:.4g}; {_SAID[self.replace]}{identity}; {self.examples:,} examples"

    def to_dict(self) -> dict[str, Any]:
        """The metric of each lesion as plain values."""
        columns = {"without": map(list, self.sets), "name": self.names, "metric": self.metrics, "change": self.delta}
        return {
            "whole": self.whole,
            "lesions": as_rows(columns),
            "replace": self.replace,
            "identity": list(self.identity),
            "examples": self.examples,
            "stacked": self.stacked,
        }

    def rows(self) -> list[Row]:
        """One row per lesion, in the order asked for."""
        return as_rows({"without": self._labels, "name": self.names, "metric": self.metrics, "change": self.delta})

    @property
    def _labels(self) -> list[str]:
        return [", ".join(map(_short, which)) for which in self.sets]

    def plot(self, quantity: str = "metric", *, ax: Axes | None = None) -> Figure:
        """The metric without each block, pairs as a map; `quantity` says what it is, with its unit."""
        from unbraid import draw

        pairs = [which for which in self.sets if _is_pair(which)]
        if len(self.sets) == len(pairs) > 1:
            return draw.lesion_pairs(self.whole, pairs, self.metrics, quantity, ax=ax)
        return draw.lesions(self.whole, self._labels, self.names, self.metrics, quantity, ax=ax)


def _is_pair(which: LesionSet) -> TypeGuard[tuple[int, int]]:
    """Whether two whole blocks were deleted together."""
    return len(which) == 2 and all(isinstance(part, int) for part in which)


def _short(removal: Removal) -> str:
    if isinstance(removal, int):
        return str(removal)
    return f"({removal[0]}, {'skip' if removal[1] == SKIP else removal[1]})"


@keep_and_stateful_before
@outside_modes
def lesion(
    form: ResidualForm,
    batches: Batches,
    metric: Metric,
    *,
    sets: Sets = "single",
    replace: str = "zero",
    max_batch: int | None = None,
    allow_random: bool = False,
    generator: torch.Generator | None = None,
    resume: Path | str | None = None,
) -> LesionStudy:
    """The metric of a model without each of some sets of blocks.

    A deleted branch adds nothing, and the skip stays; in a plain layer, which has none, the identity takes the layer's
    place where sizes agree. Lesions that agree on what comes before a block share it, and those that do not run
    together as a larger batch, so all single deletions cost about half of K + 1 runs. Memory does not grow with the
    data, only with `max_batch`.

    Args:
        form: a traced model, or a chain.
        batches: pairs of inputs and labels; inputs a tensor, a tuple or a dict. With replace="mean" they are read
            twice, so no iterator.
        metric: (what the model returns, labels) -> a scalar tensor; averaged over batches by their size.
        sets: "single" for every block, "pairs" for every pair of blocks, or sets of your own: blocks by index or name,
            branches as (block, branch), skips as (block, "skip"), as `form.without` takes them.
        replace: what takes the place of the branch's output, or the skip's: "zero"; "mean", its mean over the data at
            each position; "resample", what it gives in the whole model for another example of the batch. Without the
            branch a gated or mixed skip stays as it was computed; "identity" leaves nothing of a block but its input.
        max_batch: how many examples run at once at most, if more than a batch holds; None lets the memory decide.
        allow_random: accept operators that draw random numbers, or norms that use their batch's own statistics; then
            nothing is stacked, and lesions that share a random operator share its draw.
        generator: of "resample"; with the seed 0 where none is given.
        resume: an SQLite file in which finished batches are kept, made where it is missing: the same call goes on from
            there, and ends with the numbers of an unbroken one. What the metric computes it cannot tell: give another
            file for another metric.

    Raises:
        ValueError: a random operator, or a norm in training, that was not asked for; unknown `sets` or `replace`.
        IndexError: there is no such block or branch; or neither skip nor branch of a block would be left.
        ShapeError: a plain layer changes the size, so that no identity can take its place; or any block does, with
            "identity".
        DataError: there is no batch; a batch of one with "resample"; batches of several lengths with "mean".
        CheckpointError: `resume` is the file of another job, form or settings, or cannot be read or written.
    """
    if replace not in _SAID:
        raise ValueError(f'replace: "zero", "mean", "resample" or "identity"; got "{replace}".')
    if not allow_random:
        refuse_stateful(form.graph, "lesion")
    elif resume is not None:
        raise ValueError(
            "lesion: what draws random numbers cannot go on where it stopped: leave out resume or allow_random."
        )
    settings = (replace, None if generator is None else generator.get_state())
    chosen = the_sets(form, sets)
    if replace == "identity" and any(isinstance(part, tuple) for part in chain.from_iterable(chosen)):
        raise ValueError('replace: "identity" takes the place of whole blocks; a branch or a skip is to go by itself.')
    # Errors come before the first pass, not after it.
    variants = lesioned(form, [(), *chosen], bare=replace == "identity")
    stand_in = _replacement(form, chosen, replace, batches, generator)
    if stand_in.instead:
        variants = lesioned(form, [(), *chosen], stand_in.instead)
    swept = sweep(
        form,
        variants,
        batches,
        metric,
        max_batch=max_batch,
        stack=not allow_random,
        given=stand_in.given,
        feed=stand_in.feed,
        resume=Resume(resume, "lesion", settings),
        text="lesions",
    )
    touched = {part if isinstance(part, int) else part[0] for part in chain.from_iterable(chosen)}
    plain = [b.index for b in form.blocks if b.skip == "none" and b.index in touched and replace == "zero"]
    names = the_names(form, chosen)
    return LesionStudy(
        swept.means[0], chosen, names, swept.means[1:], replace, tuple(plain), swept.examples, swept.stacked
    )


def _replacement(
    form: ResidualForm,
    chosen: tuple[LesionSet, ...],
    replace: str,
    batches: Batches,
    generator: torch.Generator | None,
) -> Replacement:
    if replace in ("zero", "identity"):
        return NOTHING
    branches = {block.index: range(len(block.branches)) for block in form.all_blocks}
    stand_ins: dict[BranchIndex, None] = {}
    for which in chosen:
        for part in which:
            pairs = [part] if isinstance(part, tuple) else [(part, branch) for branch in branches[part]]
            stand_ins.update(dict.fromkeys(pairs))
    return means(form, stand_ins, batches) if replace == "mean" else others(form, stand_ins, generator)
