"""What one batch adds to the sums behind a `Signal`, and where nan first appears."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial, reduce
from operator import add as plus
from typing import Any

import torch
from torch import Tensor

from unbraid.form import Linearised, ResidualForm, explained
from unbraid.graph import SKIP as SKIP_OPERAND
from unbraid.graph import Add, Segment, channel_dimension, makes, reads
from unbraid.ranks import Row
from unbraid.results import loss_target
from unbraid.sweep import Batch
from unbraid.walk import Tape

SOURCE, SUM, SKIP, BRANCH, PRODUCT = "source", "sum", "skip", "branch", "product"
_FORWARD, _BACKWARD = "forward", "backward"


@dataclass(frozen=True)
class NotFinite:
    """Where nan or infinity first appears.

    Attributes:
        where: "block 3 ('layer2.0')", the trunk before a block, or the head.
        way: "forward", or "backward" for a gradient.
    """

    where: str
    way: str


class Propagated:
    """What one batch adds to the sums behind a `Signal`: per channel, in float64, at every top-level addition.

    Attributes:
        form: a traced model.
        loss: a function (output, labels) -> [batch], or None for the forward signal alone.
        adds: its top-level additions.
    """

    def __init__(self, form: ResidualForm, loss: Callable[[Any, Any], Tensor] | None) -> None:
        self.form, self.loss = form, loss
        self.adds = [add for add in form.adds if add.block < len(form.blocks)]
        self._channels = [channel_dimension(form.graph, add.block) for add in self.adds]

    def row(self, batch: Batch) -> Row:
        """Sums over the batch, by "PLACE WHAT"; and the number of the step where nan first appears, if any does."""
        linear = None if self.loss is None else self._linearised(batch, self.loss)
        tape = self.form.tape(batch.args, batch.kwargs) if linear is None else linear.tape
        row = {
            "examples": torch.tensor(batch.size, device="cpu"),
            **_sums(0, SOURCE, self._at(tape, self.adds[0].fork, 0)),
        }
        for place, add in enumerate(self.adds):
            row |= _sums(place, SUM, self._at(tape, add.output, place))
            skip = None if add.skip is None else self._at(tape, add.skip, place)
            branch = self._branch(tape, add, place)
            row |= {} if skip is None else _sums(place, SKIP, skip)
            row |= {} if branch is None else _sums(place, BRANCH, branch)
            # Side by side skip and branch have no channel in common.
            if skip is not None and branch is not None and add.along is None:
                row[f"{place} {PRODUCT}"] = (skip * branch).sum(1)
        if (step := _first_not_finite(self.form, tape)) is not None:
            row[_FORWARD] = torch.tensor(step, device="cpu")
        if linear is not None:
            row |= self._gradients(linear, batch.size)
        return row

    def not_finite(self, row: Row) -> NotFinite | None:
        """Where a batch is not finite first, forward before backward."""
        if _FORWARD in row:
            return NotFinite(_place(self.form, self.form.graph.steps[int(row[_FORWARD])]), _FORWARD)
        if _BACKWARD in row:
            return NotFinite(_block(self.form, int(row[_BACKWARD])), _BACKWARD)
        return None

    def _at(self, tape: Tape, stream: str, place: int) -> Tensor:
        return _rows(tape.values[stream], self._channels[place])

    def _branch(self, tape: Tape, add: Add, place: int) -> Tensor | None:
        """What the branches that are left add, or lay side by side; the zeros beside them are none of theirs."""
        streams = [tape.values[stream] for operand, stream in add.operands if operand != SKIP_OPERAND]
        if not streams:
            return None
        together = reduce(plus, streams) if add.along is None else torch.cat(streams, add.along)
        return _rows(together, self._channels[place])

    def _linearised(self, batch: Batch, loss: Callable[[Any, Any], Tensor]) -> Linearised:
        """The form as it is, its casts too, with the loss as its target."""
        function = partial(explained, self.form, target=loss_target(loss, batch.labels))
        return Linearised.of(self.form, self.form.graph, self.form.inputs(batch.args, batch.kwargs), function)

    def _gradients(self, linear: Linearised, size: int) -> dict[str, Tensor]:
        """Σ ‖∂loss/∂sum‖ over the batch for each block, 0 where no gradient arrives; the last that is not finite."""
        places = [add.output for add in self.adds]
        arrived = linear.gradients_at(places)
        examples = linear.examples_of(arrived)
        gradients = [arrived.get(stream, torch.zeros_like(linear.tape.values[stream])) for stream in places]
        squares = zip(places, gradients, strict=True)
        norms = [examples.sums(s, g.abs().double().square(), stacked=False).sqrt().mean() for s, g in squares]
        row = {"gradients": size * torch.stack(norms)}
        bad = [add.block for add, g in zip(self.adds, gradients, strict=True) if not bool(g.isfinite().all())]
        return row | ({_BACKWARD: torch.tensor(bad[-1], device="cpu")} if bad else {})


def _sums(place: int, what: str, rows: Tensor) -> dict[str, Tensor]:
    name = f"{place} {what}"
    return {
        f"{name} count": torch.tensor(rows.shape[1], device="cpu"),
        name: rows.sum(1),
        f"{name} squares": rows.square().sum(1),
    }


def _rows(value: Tensor, channels: int) -> Tensor:
    """[channels, everything else], in float64; a complex number is two."""
    value = torch.view_as_real(value) if value.is_complex() else value
    return value.movedim(channels, 0).flatten(1).double() if value.ndim > 1 else value[None].double()


def _first_not_finite(form: ResidualForm, tape: Tape) -> int | None:
    """The number of the first step that makes nan of finite numbers; masks, which may hold −∞, carry no data."""
    bad: set[str] = set()
    for number, step in enumerate(form.graph.steps):
        if any(_is_bad(form, tape.values, stream) for stream in makes(step)) and bad.isdisjoint(reads(step)):
            return number
        bad.update(stream for stream in makes(step) if _is_bad(form, tape.values, stream))
    return None


def _is_bad(form: ResidualForm, values: Mapping[str, Any], stream: str) -> bool:
    return stream in form.graph.carried and not bool(values[stream].isfinite().all())


def _place(form: ResidualForm, step: Add | Segment) -> str:
    top = {block.index for block in form.blocks}
    if step.block is not None:
        outer = step.block
        while outer not in top:
            parent = next(block.parent for block in form.all_blocks if block.index == outer)
            assert parent is not None
            outer = parent[0]
        return _block(form, outer)
    later = [add.block for add in form.adds[::-1] if add.block in top and _before(form, step, add)]
    return f"the trunk before {_block(form, later[-1])}" if later else "the head"


def _before(form: ResidualForm, step: Add | Segment, add: Add) -> bool:
    order = {id(other): number for number, other in enumerate(form.graph.steps)}
    return order[id(step)] < order[id(add)]


def _block(form: ResidualForm, block: int) -> str:
    return f"block {block} ({form.blocks[block].name!r})"
