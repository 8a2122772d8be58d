"""A form that runs a circuit: each reader hears the circuit's edges, and of all others what takes their place."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, fx

from unbraid.discover import Block
from unbraid.discover.wiring import Wiring, rewire
from unbraid.form._core import Form
from unbraid.graph import Graph, Segment, Step, Stream, makes, needed, reads, runnable
from unbraid.graph.edits import renamed
from unbraid.graph.state import State
from unbraid.walk import run

aten = torch.ops.aten
MASK = "attention_mask"


@runtime_checkable
class EdgeSet(Protocol):
    """Some of a form's edges, as `unbraid.Circuit` has them."""

    @property
    def edges(self) -> Sequence[tuple[str, str]]:
        """(writer, reader) by name."""

    @property
    def by(self) -> str:
        """Whether writers and readers are blocks, branches or attention heads."""

    @property
    def nested(self) -> bool:
        """Whether blocks inside branches write and read in the place of those around them."""


def called_with(form: Form, corrupt: Any, fill: str | None) -> dict[str, Any] | None:
    """The inputs of the corrupt call, a tensor, a tuple or a dict; None where what is replaced is filled.

    Raises:
        ValueError: both or none is given, or `fill` is unknown.
    """
    if fill not in (None, "zero", "mean"):
        raise ValueError(f'only: fill is "zero" or "mean"; {fill!r} came.')
    if (corrupt is None) == (fill is None):
        raise ValueError(
            'only: what takes the place of other edges is corrupt=, or fill="zero" or "mean": one of them.'
        )
    if corrupt is None:
        return None
    return inputs_of(form, corrupt)


def inputs_of(form: Form, call: Any) -> dict[str, Any]:
    """The input streams of a call: a tensor, a tuple of positional arguments, or a dict of keyword ones."""
    return form.inputs((), call) if isinstance(call, Mapping) else form.inputs(call)


def only(
    graph: Graph,
    blocks: tuple[Block, ...],
    state: State,
    circuit: EdgeSet,
    corrupt: Mapping[str, Any] | None,
    fill: str | None,
) -> tuple[Graph, dict[str, Tensor], Mapping[str, str]]:
    """Leave a circuit of a form; see `ResidualForm.only`.

    Args:
        graph: the form's graph.
        blocks: its top-level blocks.
        state: its parameters.
        circuit: the edges that stay.
        corrupt: the inputs, by stream, at which replaced values are taken; or None.
        fill: "zero" or "mean"; or None.

    Returns:
        The graph, what joins the state, and what the head reads in the place of streams of the trunk.

    Raises:
        ValueError: the form has no such edge.
    """
    wiring = Wiring(graph, blocks, circuit.by != "block", circuit.nested)
    kept = list(circuit.edges)
    if unknown := [edge for edge in kept if edge not in wiring.edges]:
        names = [w.name for w in wiring.writers], [r.name for r in wiring.readers]
        raise ValueError(
            f"only: there is no edge from {unknown[0][0]!r} to {unknown[0][1]!r}.\n  Writers are {names[0]}, readers "
            f"{names[1]}, and an edge leads from a writer to a later reader."
        )
    written = sorted(wiring.written)
    instead = {stream: f"in the place of {stream}" for stream in written}
    streams = {**graph.streams, **{name: replace(graph.streams[s], id=name) for s, name in instead.items()}}
    held: dict[str, Tensor] = {}
    if fill is None:
        assert corrupt is not None, "one of both is given"
        with torch.no_grad():
            values = run(graph, state, corrupt, keep=written)
        held = {instead[stream]: values[stream] for stream in written}
        extra: list[Step] = [_held(name, value) for name, value in held.items()]
    elif fill == "zero":
        extra = [_zeros(stream, name) for stream, name in instead.items()]
    else:
        clean = {s: f"{s} in the clean run" for step in needed(graph.steps, (*written,)) for s in makes(step)}
        streams |= {name: replace(graph.streams[s], id=name) for s, name in clean.items()}
        extra = [renamed(step, clean, clean) for step in needed(graph.steps, (*written,))]
        extra += [_mean(graph, s, clean.get(s, s), name) for s, name in instead.items()]
    whole = replace(graph, streams=streams, steps=_in_order(graph, extra))
    left, heard = rewire(wiring, whole, kept, instead)
    return left, held, heard


def _in_order(graph: Graph, extra: list[Step]) -> tuple[Step, ...]:
    """The steps of a graph with further ones, each as soon as what it reads is there."""
    steps, there, waiting = list[Step](), set(graph.inputs), list(extra)
    for step in (None, *graph.steps):
        if step is not None:
            steps.append(step)
            there.update(makes(step))
        for other in list(waiting):  # each after what it reads, which may be another of them
            if there.issuperset(reads(other)):
                steps.append(other)
                there.update(makes(other))
                waiting.remove(other)
    return (*steps, *waiting)


def _counts(stream: Stream) -> int:
    """The dimension that counts the examples."""
    places = [place for place, size in enumerate(stream.shape) if isinstance(size, str) and "batch" in size]
    if len(places) != 1:
        raise ValueError(
            f"only: {stream.id!r} {list(stream.shape)} has no one dimension that counts the examples, so there is no "
            'mean over them. fill="zero" needs none.'
        )
    return places[0]


def _held(name: str, value: Tensor) -> Segment:
    """What is held in the state under its own name."""
    graph = fx.Graph()
    held = graph.placeholder("held")
    held.meta["val"] = value.to("meta")
    graph.output(held)
    return Segment(name, (), (name,), runnable(graph, "held"), params=(name,))


def _zeros(stream: str, name: str) -> Segment:
    graph = fx.Graph()
    graph.output(graph.call_function(aten.zeros_like.default, (graph.placeholder("value"),)))
    return Segment(name, (stream,), (name,), runnable(graph, "zeros"), size_only=frozenset([stream]))


def _mean(whole: Graph, written: str, stream: str, name: str) -> Segment:
    """The mean over the examples, at each position, for each of them; what an attention mask leaves out is left out."""
    stands, along = whole.streams[written], _counts(whole.streams[written])
    graph = fx.Graph()
    value, read = graph.placeholder("value"), [stream]
    mask = whole.streams.get(MASK) if MASK in whole.inputs else None
    if mask is not None and along == 0 and len(stands.shape) > 2 and mask.shape == stands.shape[:2]:
        read.append(MASK)
        weights = graph.call_function(aten.type_as.default, (graph.placeholder("mask"), value))
        for _ in stands.shape[2:]:
            weights = graph.call_function(aten.unsqueeze.default, (weights, -1))
        total = graph.call_function(aten.sum.dim_IntList, (weights, [along], True))
        least = graph.call_function(aten.clamp_min.default, (total, 1))
        weighed = graph.call_function(aten.mul.Tensor, (value, weights))
        mean = graph.call_function(
            aten.div.Tensor, (graph.call_function(aten.sum.dim_IntList, (weighed, [along], True)), least)
        )
    else:
        mean = graph.call_function(aten.mean.dim, (value, [along], True))
    graph.output(graph.call_function(aten.expand_as.default, (mean, value)))
    return Segment(name, (*read,), (name,), runnable(graph, "mean"))
