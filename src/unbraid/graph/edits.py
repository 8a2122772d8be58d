"""Edits of a graph: branches and skips deleted, narrow casts widened. Each gives another graph and shares the steps."""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_aggregate

from unbraid.errors import ShapeError
from unbraid.graph._types import SKIP, Add, BranchIndex, Graph, Removal, Segment, Step, differentiable, rewired
from unbraid.graph.questions import HELD
from unbraid.graph.state import State, meta_tensor, retyped

_NARROW = frozenset({torch.float16, torch.bfloat16, torch.float32})


def deleted(graph: Graph, which: tuple[Removal, ...], branches: Mapping[int, int]) -> Graph:
    """The graph with branches deleted, and with them whatever only they needed; see `Spared`."""
    return rewired(graph, Spared(graph, branches).steps(which))


class Spared:
    """The steps of a graph, each at its place, with branches left out of the additions.

    Args:
        graph: the graph.
        branches: how many branches each block has or had: what an earlier deletion took along may be deleted again.
        instead: the stream that takes the place of each (block, branch), if any.
        bare: whether nothing is left of a block but its input: the identity, in the place of its skip as well.
    """

    def __init__(
        self,
        graph: Graph,
        branches: Mapping[int, int],
        instead: Mapping[BranchIndex, str] | None = None,
        *,
        bare: bool = False,
    ) -> None:
        self._graph, self._branches, self._instead, self._bare = graph, branches, instead or {}, bare
        # A block's sum may be there several times: in a circuit each reader hears its own.
        self._places: dict[int, list[int]] = {}
        for place, step in enumerate(graph.steps):
            if isinstance(step, Add):
                self._places.setdefault(step.block, []).append(place)
        self._made: dict[tuple[int, tuple[int, ...]], Add] = {}

    def steps(self, which: Iterable[Removal]) -> tuple[Step, ...]:
        """The steps without some branches; equal edits give the same addition, not an equal one.

        Raises:
            IndexError: there is no such block or branch.
            ShapeError: a plain layer changes the size, so that no identity can take its place.
        """
        gone: dict[int, set[int]] = {}
        for part in which:
            block, branches = self._known(part)
            gone.setdefault(block, set()).update(branches)
        steps = list(self._graph.steps)
        for block, branches in gone.items():
            if block in self._places:
                for place in self._places[block]:
                    steps[place] = self._add(place, tuple(sorted(branches)))
                if branches & {SKIP, 0} and not self._bare:
                    steps = [_released(step, block, branches) for step in steps]
        return tuple(steps)

    def _known(self, part: Removal) -> tuple[int, Iterable[int]]:
        block, branch = part if isinstance(part, tuple) else (part, None)
        if block not in self._branches:
            known = _range(sorted(self._branches))
            raise IndexError(f"without: there is no block {block}; blocks are numbered {known}.")
        count = self._branches[block]
        if branch == SKIP:
            return block, [SKIP]
        if branch is not None and not 0 <= branch < count:
            raise IndexError(
                f"without: block {block} has no branch {branch}; branches are numbered {_range([*range(count)])}."
            )
        return block, range(count) if branch is None else [branch]

    def _add(self, place: int, gone: tuple[int, ...]) -> Add:
        if (place, gone) not in self._made:
            add = self._graph.steps[place]
            assert isinstance(add, Add)
            self._made[place, gone] = _bare(self._graph, add) if self._bare else self._spared(add, gone)
        return self._made[place, gone]

    def _spared(self, add: Add, gone: tuple[int, ...]) -> Add:
        """An addition without some operands; a plain layer of which no branch is left becomes the identity."""
        if SKIP in gone and add.skip is None and not add.skip_deleted:
            raise IndexError(f"without: layer {add.block} has no skip that could be deleted.")
        operands = {
            j: self._instead.get((add.block, j)) if j in gone and stream is not None else stream
            for j, stream in enumerate((add.skip, *add.branches), start=SKIP)
        }
        skip, *branches = operands.values()
        deleted = add.skip_deleted or (add.skip is not None and skip is None)
        if skip is not None or any(branches):
            return replace(add, skip=skip, branches=tuple(branches), skip_deleted=deleted)
        if deleted:
            raise IndexError(f"without: of block {add.block} neither skip nor branch would be left. Keep one of them.")
        return _bare(self._graph, add, " has no skip, and")


def _released(step: Step, block: int, gone: set[int]) -> Step:
    """A segment of a gated block as it computes once the skip, or the first branch, is gone.

    The first branch has the derivative of the skip's gates. Without that branch they are held no more; without the skip
    they have none.
    """
    if not isinstance(step, Segment) or step.block != block or not isinstance(step.code, fx.GraphModule):
        return step
    released = (["gate"] if 0 in gone else []) + (["derivative"] if SKIP in gone else [])
    if not any(node.meta.get(HELD) in released for node in step.code.graph.nodes):
        return step
    graph = copy.deepcopy(step.code.graph)
    for node in list(graph.nodes):
        if node.meta.get(HELD) not in released:
            continue
        if node.meta[HELD] == "gate":
            node.replace_all_uses_with(node.args[0])
        else:
            with graph.inserting_before(node):
                zeros = graph.call_function(torch.ops.aten.zeros_like.default, (node.args[0],))
            zeros.meta = {"val": node.meta.get("val")}
            node.replace_all_uses_with(zeros)
        graph.erase_node(node)
    return replace(step, code=fx.GraphModule(step.code, graph, class_name=f"released_{step.id}"))


def renamed(step: Step, read: Mapping[str, str], made: Mapping[str, str]) -> Step:
    """A step that reads and makes streams of other names."""
    if isinstance(step, Segment):
        return replace(
            step,
            inputs=tuple(read.get(s, s) for s in step.inputs),
            outputs=tuple(made.get(s, s) for s in step.outputs),
            size_only=frozenset(read.get(s, s) for s in step.size_only),
        )
    return replace(
        step,
        fork=read.get(step.fork, step.fork),
        skip=step.skip and read.get(step.skip, step.skip),
        branches=tuple(s and read.get(s, s) for s in step.branches),
        output=made.get(step.output, step.output),
    )


def widened(graph: Graph, state: State) -> tuple[Graph, State]:
    """A float64 graph with its casts to narrower types widened, so that sums over paths are exact to float64.

    Llama's norm, say, computes in float32 whatever the type of the model.
    """
    steps = tuple(_widened(step) for step in graph.steps)
    streams = {
        name: replace(stream, dtype=torch.float64) if stream.dtype in _NARROW else stream
        for name, stream in graph.streams.items()
    }
    same = all(new is old for new, old in zip(steps, graph.steps, strict=True))
    if same and streams == dict(graph.streams) and not any(meta_tensor(state, name).dtype in _NARROW for name in state):
        return graph, state
    return replace(graph, streams=streams, steps=steps), retyped(state, dict.fromkeys(_NARROW, torch.float64))


def coarsest(graph: Graph, dtype: torch.dtype) -> torch.dtype:
    """The type of fewest digits among those in which data are computed, and the given one."""
    dtypes = {dtype, *(graph.streams[stream].dtype for stream in graph.carried)}
    for segment in graph.segments:
        if any(graph.data(segment)) and isinstance(segment.code, fx.GraphModule):
            values = (node.meta.get("val") for node in segment.code.graph.nodes)
            dtypes.update(value.dtype for value in values if isinstance(value, Tensor))
    return max((dtype.to_real() for dtype in dtypes if differentiable(dtype)), key=lambda t: torch.finfo(t).eps)


def under_autocast(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """The type, or that of autocast where it is switched on and computes in fewer digits."""
    if device.type == "meta" or not torch.is_autocast_enabled(device.type):
        return dtype
    return max((dtype, torch.get_autocast_dtype(device.type)), key=lambda t: torch.finfo(t).eps)


def _widened(step: Step) -> Step:
    if not isinstance(step, Segment) or not isinstance(step.code, fx.GraphModule):
        return step
    arguments = ((*node.args, *node.kwargs.values()) for node in step.code.graph.nodes)
    if not any(map(_narrow, chain.from_iterable(arguments))):
        return step
    graph = copy.deepcopy(step.code.graph)
    for node in graph.nodes:
        node.args = map_aggregate(node.args, _widen)
        node.kwargs = map_aggregate(node.kwargs, _widen)
    return replace(step, code=fx.GraphModule(step.code, graph, class_name=f"wide_{step.id}"))


def _narrow(value: Any) -> bool:
    return isinstance(value, torch.dtype) and value in _NARROW


def _widen(value: Any) -> Any:
    return torch.float64 if _narrow(value) else value


def _bare(graph: Graph, add: Add, why: str = ":") -> Add:
    """The identity in the place of a block, or of a plain layer.

    Raises:
        ShapeError: it changes the size.
    """
    fork, output = graph.streams[add.fork], graph.streams[add.output]
    if fork.shape != output.shape:
        what = "layer" if add.skip is None else "block"
        raise ShapeError(
            f"without: {what} {add.block}{why} the identity cannot take its place: it changes the size.\n"
            f"  in   {list(fork.shape)}\n  out  {list(output.shape)}\n"
            f"  Keep this {what}, or delete one that keeps the size.",
            block=str(add.block),
            shapes={"in": _known(fork.shape), "out": _known(output.shape)},
        )
    return replace(add, skip=add.fork, branches=(None,) * len(add.branches), order=(), along=None, spans=())


def _known(shape: tuple[int | str, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if isinstance(size, int))


def _range(numbers: list[int]) -> str:
    return f"{numbers[0]} to {numbers[-1]}" if numbers else "nothing: there are none"
