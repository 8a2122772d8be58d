"""A scalar of the output split over the terms, without holding the terms.

It goes back along the trunk instead of pushing terms forward: the same product from the other side, with one cotangent
instead of K terms. Where rows of a stream are no examples, products would mix them, and terms are held.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid._modes import outside_modes
from unbraid._renamed import gone
from unbraid.form import Linearised, ResidualForm
from unbraid.freeze import freeze
from unbraid.graph import SKIP, Add, Graph, Segment, Step, makes, reads, subgraph
from unbraid.graph.state import State
from unbraid.results import Examples, Target
from unbraid.terms._attribution import Attribution, attributed
from unbraid.terms._frozen_head import frozen_head
from unbraid.terms._route import CONSTANTS, INPUT, By, Route, Writer, in_order, names_of, parts_of, taken_by, written
from unbraid.terms._spill_file import SpillFile


@gone(split='give by="head"')
@outside_modes
def attribute(
    form: ResidualForm,
    args: Any,
    kwargs: Mapping[str, Any] | None = None,
    *,
    target: Target,
    by: By = "block",
    output: str | int | None = None,
) -> Attribution:
    """Split a scalar of the output over the input and the blocks: unravel(form, args, kwargs).attribute(target).

    The terms are never in memory together. They wait in a temporary file while the model runs; then the target's
    gradient goes back along trunk and skips, and where it meets a term, a product is its contribution.

    Args:
        form: a traced model.
        args: its positional inputs; a bare tensor means (tensor,).
        kwargs: its keyword inputs.
        target: what to explain, one number per example: a class, or a tensor [batch] of them, for an output [batch,
            classes]; a pair (position, class), each an int or a tensor [batch], for [batch, positions, classes]; a list
            of these, one for each example; or a function of what the model returns that gives a tensor [batch].
            Where the model ends in a linear map, indices cost no scores but those that they pick.
        by: "block" for one contribution per block; "branch" for one per branch; or "head" for one per branch and, where
            the graph shows attention heads, one per head.
        output: which of several outputs indices pick from, by name or number; see `ResidualForm.explaining`.

    Returns:
        The contributions, which sum to the target to the measured `error`.

    Raises:
        ValueError: the target does not fit the output, by is none of these, or no branch shows attention heads.
        InexactError: the contributions do not sum to the target, or an operator of trunk or head has no rule.
    """
    exact, by_branch = taken_by(form.explaining(output), by, "attribute").exact, by != "block"
    route = Route(exact).to(exact.end)
    inputs = exact.inputs(args, kwargs)
    with SpillFile.opened() as spilled:
        trunk, state, given, stream = _passed(exact, inputs, route, by_branch, spilled)
        head = frozen_head(exact, inputs, exact.end, stream, target)
        del stream
        back = _behind(head, trunk, state, given)
        parts = dict(_contributions(route, by_branch, back, spilled))
    fixed = [back.product(stream, value) for stream, value in back.constants if bool(value.any())]
    writers: tuple[Writer, ...] = (INPUT, *in_order(set(parts)), *([CONSTANTS] if fixed else []))
    nothing = head.target.new_zeros(back.examples.count)
    entered = [back.product(s, given[s]) for s in _sources(route, trunk)]
    contributions = {INPUT: sum(entered, start=nothing), **parts, CONSTANTS: sum(fixed, start=nothing)}
    values = torch.stack([contributions[writer] for writer in writers])
    return attributed(names_of(exact, writers), values, head, back.examples)


@dataclass(frozen=True, eq=False)
class _Back:
    """The target's gradient along trunk and skips, and what the trunk itself adds.

    Attributes:
        gradients: at every stream on the way that it reaches.
        constants: the trunk's, each with the stream at which it joins.
        examples: the examples, told apart at these streams.
    """

    gradients: Mapping[str, Tensor]
    constants: list[tuple[str, Tensor]]
    examples: Examples

    def product(self, stream: str, value: Tensor) -> Float[Tensor, " batch"]:
        """⟨gradient, value⟩ per example."""
        return self.examples.dot(stream, self.gradients[stream], value)


def _behind(head: Linearised, trunk: Graph, state: State, given: Mapping[str, Any]) -> _Back:
    """The frozen trunk before a head: the target there is what the head's gradient makes of the stream."""
    (end,) = trunk.outputs

    def along(outputs: Mapping[str, Any]) -> Tensor:
        return head.examples.dot(end, head.gradients[end], outputs[end])

    linear = Linearised.of(head.form, trunk, given, along, frozen=True, state=state)
    gradients = linear.gradients_at({*trunk.inputs, *trunk.makers})
    examples = head.examples if head.examples.count == 1 else linear.examples_of(gradients)
    return _Back(gradients, linear.constants, examples)


def _passed(
    form: ResidualForm, inputs: Mapping[str, Any], route: Sequence[Step], by_branch: bool, spilled: SpillFile
) -> tuple[Graph, State, dict[str, Any], Tensor]:
    """Run the form as far as the stream and put every term into the file.

    Returns:
        The trunk, frozen and without branches; its state; the values of the streams that enter it; and the stream.
    """
    bare = _bare(form, route)
    ends: set[str] = set()
    for add in _adds(route):
        ends.update(stream for operand, stream in add.operands if operand != SKIP)
    entering = {stream: inputs[stream] for stream in bare.inputs if stream in inputs}
    last = dict[str, Tensor](entering)

    def seen(stream: str, value: Any) -> None:
        if stream in ends:
            spilled.put(stream, value)
        if stream in bare.inputs:
            entering[stream] = value
        if stream == form.end:
            last[stream] = value

    on_way = [step.id for step in bare.segments]
    frozen, state = freeze(subgraph(form.graph, (form.end,)), form.state, inputs, on_way, seen)
    held = {segment.id: segment for segment in frozen.segments}
    steps = tuple(held[step.id] if isinstance(step, Segment) else step for step in bare.steps)
    return replace(bare, steps=steps), state, entering, last[form.end]


def _bare(form: ResidualForm, route: Sequence[Step]) -> Graph:
    """Trunk and skips alone: h_k = P_k(S_k h_{k−1}), where a layer without skip begins anew."""
    steps = tuple(
        replace(step, branches=()) if isinstance(step, Add) else step
        for step in route
        if not (isinstance(step, Add) and step.skip is None)
    )
    inside = set(chain.from_iterable(map(makes, steps)))
    read = dict.fromkeys((*chain.from_iterable(map(reads, steps)), *map(_end, _adds(route)), form.end))
    given = tuple(stream for stream in read if stream not in inside)
    sources = tuple(stream for stream in given if stream in form.graph.carried)
    return Graph(form.streams, steps, given, sources, (form.end,))


def _contributions(
    route: Sequence[Step], by_branch: bool, back: _Back, spilled: SpillFile
) -> Iterator[tuple[Writer, Float[Tensor, " batch"]]]:
    """Each term times the gradient where it joins, one at a time."""
    for add in _adds(route):
        streams, device = dict(add.operands), back.gradients[add.output].device
        for writer, branches in parts_of(add, by_branch).items():
            values = {streams[j]: spilled.take(streams[j], device) for j in branches}
            yield writer, back.product(add.output, written(add, branches, values))


def _sources(route: Sequence[Step], trunk: Graph) -> list[str]:
    """The streams with which the input's term begins: all that enter the trunk but the ends of layers without skip."""
    layers = {add.output for add in _adds(route) if add.skip is None}
    return [stream for stream in trunk.sources if stream not in layers and stream in _passing(trunk)]


def _passing(trunk: Graph) -> set[str]:
    """What is read as data, not for its sizes alone; and the end itself."""
    read = set(trunk.outputs)
    for step in trunk.steps:
        size_only = step.size_only if isinstance(step, Segment) else frozenset[str]()
        read |= set(reads(step)) - size_only
    return read


def _adds(route: Sequence[Step]) -> list[Add]:
    return [step for step in route if isinstance(step, Add)]


def _end(add: Add) -> str:
    return add.output
