"""The effect along one path, exactly: what a writer tells a reader, who tells the next, and so on to the head."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid._figures import Axes, Figure
from unbraid._modes import outside_modes
from unbraid.circuits._edges import function_of, refuse_unknown_by
from unbraid.circuits._replacement import refuse_neither_or_both, replacements
from unbraid.discover.wiring import HEAD, Reader, Wiring, part_of
from unbraid.form import ResidualForm, inputs_of
from unbraid.graph import makes, needed
from unbraid.results import Result, Target
from unbraid.results.rows import Row, as_rows
from unbraid.walk import run


@dataclass(frozen=True, eq=False, repr=False)
class PathEffect(Result):
    """By how much a target changes where one path carries replaced values, and all others clean ones.

    Attributes:
        path: the writers and readers, from the first writer to "head".
        effect: the change of the target, averaged over the examples.
        per_example: the same for each example, [batch].
        target: the target as it is, [batch].
    """

    path: tuple[str, ...]
    effect: float
    per_example: Float[Tensor, " batch"]
    target: Float[Tensor, " batch"]

    columns = (("path", "{path}"), ("effect", "{effect:+.4g}"))

    def rows(self) -> list[Row]:
        """One row."""
        return as_rows({"path": [" → ".join(self.path)], "effect": [self.effect]})

    def plot(self, *, ax: Axes | None = None) -> Figure:
        """The effect on each example."""
        from unbraid.draw import contributions

        names = [f"example {number}" for number in range(len(self.per_example))]
        return contributions(names, self.per_example.tolist(), ax=ax)


@outside_modes
def path_effect(
    form: ResidualForm,
    clean: Any,
    corrupt: Any = None,
    path: Sequence[str] = (),
    *,
    target: Target | None = None,
    metric: Callable[[Any], Tensor] | None = None,
    fill: str | None = None,
    by: str = "block",
    nested: bool = False,
    output: str | int | None = None,
) -> PathEffect:
    """The effect along one chosen path, exactly (path patching).

    The first writer's value is replaced for the second alone, which runs on it; what it then writes is heard by the
    third alone, and so on; the head hears what the last writes, and everything else as it is:

        input → f1 → f3 → head        b1' = f1(x'),  b3' = f3(h2 with b1' for b1),  y = head(h3 with b3' for b3)

    Args:
        form: a traced model.
        clean: its inputs: a tensor, a tuple of positional ones, or a dict of keyword ones.
        corrupt: inputs of the same sizes, at which the first writer's value is taken; or none, with `fill`.
        path: the names of writers and readers, from "input" or a block to "head".
        target: what to explain, one number per example; see `unbraid.attribute`.
        metric: or a function of what the model returns that gives one number for the batch.
        fill: "zero" or "mean", in the place of a corrupt input.
        by: "block", "branch" or "head", as for `unbraid.edges`.
        nested: as for `unbraid.edges`.
        output: which of several outputs indices pick from; see `ResidualForm.explaining`.

    Raises:
        ValueError: the path has an edge that the form has not, or an argument is none of these.
        TargetError: the target does not fit what the model returns.
        DataError: clean and corrupt inputs have other sizes.
    """
    refuse_unknown_by(by, "path_effect")
    refuse_neither_or_both(corrupt, fill, "path_effect")
    form = (form.split("heads") if by == "head" else form).explaining(output).exact
    given, function = inputs_of(form, clean), function_of(form, target, metric, "path_effect")
    wiring = Wiring(form.graph, form.blocks, by != "block", nested)
    _refuse_broken(wiring, path)
    with torch.no_grad():
        values = run(form.graph, form.state, given, keep={*given, *chain.from_iterable(map(makes, form.graph.steps))})
        before = function({stream: values[stream] for stream in form.graph.outputs})
        written = {stream: values[stream] for stream in wiring.written}
        told: Mapping[str, Any] = replacements(form, written, given, corrupt, fill)
        readers = {reader.name: reader for reader in wiring.readers}
        for name, following in pairwise(path):
            streams = next(writer.streams for writer in wiring.writers if writer.name == name)
            heard = {**values, **{stream: told[stream] for stream in streams}}
            told = _ran(form, wiring, readers[following], heard)
        after = function({stream: told.get(stream, values[stream]) for stream in form.graph.outputs})
    return PathEffect((*path,), float((after - before).mean()), after - before, before)


def _refuse_broken(wiring: Wiring, path: Sequence[str]) -> None:
    hops = list(pairwise(path))
    broken = next((hop for hop in hops if hop not in wiring.edges), None)
    if broken is not None or not hops or path[-1] != HEAD:
        why = f"there is no edge from {broken[0]!r} to {broken[1]!r}" if broken else f"{[*path]} came"
        names = [writer.name for writer in wiring.writers]
        raise ValueError(
            f'path_effect: a path leads along edges from a writer to "head"; {why}.\n  Writers are {names}; '
            "unbraid.edges(...) lists the edges."
        )


def _ran(form: ResidualForm, wiring: Wiring, reader: Reader, heard: Mapping[str, Any]) -> dict[str, Any]:
    """What a reader writes where some streams are replaced: the trunk up to it is run anew, and it on that."""
    anew = needed(wiring.trunk.steps, reader.entries)
    graph = part_of(wiring.graph, (*anew, *reader.steps), reader.streams)
    return run(graph, form.state, {stream: heard[stream] for stream in graph.inputs})
