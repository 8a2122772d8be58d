"""Random paths of every length (Veit et al. 2016, section 5): uniform over all paths of that length.

The walk with counts says how many paths go on from each choice; choices are drawn in proportion.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from unbraid._modes import outside_modes
from unbraid._renamed import split_before
from unbraid.form import TARGET, Linearised, ResidualForm
from unbraid.graph import SKIP
from unbraid.paths._chosen_paths import followed
from unbraid.paths._single_paths import Paths
from unbraid.results import Target
from unbraid.walk import NOT_MET, Choice, Counts, Tally, walk


@split_before
@outside_modes
def sample_paths(
    form: ResidualForm,
    args: Any,
    kwargs: Mapping[str, Any] | None = None,
    *,
    target: Target,
    per_length: int = 32,
    generator: torch.Generator | None = None,
    linearize: Literal["frozen", "jacobian"] = "jacobian",
    output: str | int | None = None,
    chunk: int = 128,
) -> Paths:
    """Random paths of every length, each with the norm of the gradient through it alone (Veit et al. 2016, section 5).

    Paths of one length are drawn uniformly, with replacement, from all paths of that length in the graph.

    Args:
        form: a traced model.
        args: its positional inputs; a bare tensor means (tensor,).
        kwargs: its keyword inputs.
        target: what to explain, one number per example: a class, or a tensor [batch] of them, for an output [batch,
            classes]; a pair (position, class), each an int or a tensor [batch], for [batch, positions, classes]; a list
            of these, one for each example; or a function of what the model returns that gives a tensor [batch].
        output: which of several outputs indices pick from, by name or number; see `ResidualForm.explaining`.
        per_length: how many paths of each length.
        generator: where the choices come from; by default a fresh one with seed 0.
        linearize: "jacobian" for true derivatives, as in the paper, or "frozen".
        chunk: how many paths are pulled back in one pass.

    Returns:
        The paths in order of length; `mean_norms()` gives each length's mean and its standard error.

    Raises:
        ValueError: the target does not fit the output.
    """
    linear = Linearised.at(form.explaining(output), args, kwargs, target, frozen=linearize == "frozen")
    masks = _draw(linear, per_length, generator or torch.Generator().manual_seed(0))
    return followed(linear, masks, chunk)


def _draw(linear: Linearised, per_length: int, generator: torch.Generator) -> Tensor:
    """Choose from the sources to the output: each next choice with the number of paths that go on from it."""
    counts = Counts(linear.graph, linear.lengths)
    places = {*linear.graph.sources, *(add.output for add in linear.graph.adds)}
    tallies = walk(linear.graph, counts, {TARGET: counts.seed()}, places)
    begin: dict[tuple[int, int] | None, tuple[int, ...]] = {}
    for source in linear.graph.sources:
        begin.update(tallies.get(source, {}))
    outputs = {add.block: add.output for add in linear.graph.adds}
    masks = []
    for length in range(max(map(len, begin.values()))):
        if not any(length < len(paths) and paths[length] for paths in begin.values()):
            continue
        for _ in range(per_length):
            mask = torch.full((len(linear.lengths.columns),), NOT_MET, dtype=torch.int16, device="cpu")
            tally, left = begin, length
            while True:
                choice = _pick(tally, left, generator)
                if choice is None:
                    break
                block, operand = choice
                mask[linear.lengths.columns[block]] = operand
                left -= linear.lengths.weights[block][operand] if operand != SKIP else 0
                tally = dict(tallies[outputs[block]])
            masks.append(mask)
    return torch.stack(masks)


def _pick(tally: Tally, left: int, generator: torch.Generator) -> Choice:
    """One of the choices, in proportion to the paths of the length that is left; counts can pass 2^63."""
    weights = [paths[left] if left < len(paths) else 0 for paths in tally.values()]
    shares = torch.tensor([weight / sum(weights) for weight in weights], dtype=torch.float64, device="cpu")
    return list(tally)[int(torch.multinomial(shares, 1, generator=generator))]
