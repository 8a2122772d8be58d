"""Single paths of one's own choice: the value and the gradient along each."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, SupportsIndex

import torch
from jaxtyping import Int
from torch import Tensor

from unbraid._modes import outside_modes
from unbraid._progress import progress
from unbraid._renamed import split_before
from unbraid.discover import BlockLike, branch_of, index_of
from unbraid.form import TARGET, Linearised, ResidualForm
from unbraid.graph import SKIP
from unbraid.paths._single_paths import Paths, counted, paths_of
from unbraid.results import Target
from unbraid.walk import NOT_MET, Chosen, walk


@split_before
@outside_modes
def chosen_paths(
    form: ResidualForm,
    args: Any,
    kwargs: Mapping[str, Any] | None = None,
    *,
    masks: Int[Tensor, "paths blocks"] | Sequence[Mapping[BlockLike, SupportsIndex | str]],
    target: Target,
    linearize: Literal["frozen", "jacobian"] = "frozen",
    output: str | int | None = None,
    chunk: int = 128,
) -> Paths:
    """Paths of one's own choice: the value and the gradient along each, whatever the number of all paths.

    Args:
        form: a traced model.
        args: its positional inputs; a bare tensor means (tensor,).
        kwargs: its keyword inputs.
        masks: for each path and block j ≥ 0 (branch j, from 0), −1 (the skip) or −2 (not met: no path through this
            block), as `Paths.masks` has them. Where several trunks meet and a row has choices on more than one, it
            stands for all paths that make these choices, and they add up. Or for each path a mapping of the blocks, by
            index or name, whose branch it passes, to the branch: [{"layer1.0": 0, −1: 0}]; it skips the others.
        target: what to explain, one number per example: a class, or a tensor [batch] of them, for an output [batch,
            classes]; a pair (position, class), each an int or a tensor [batch], for [batch, positions, classes]; a list
            of these, one for each example; or a function of what the model returns that gives a tensor [batch].
        output: which of several outputs indices pick from, by name or number; see `ResidualForm.explaining`.
        linearize: "frozen", where values are shares of the target, or "jacobian" for true derivatives.
        chunk: how many paths are pulled back in one pass.

    Raises:
        IndexError: a mapping names a block or a branch that is not there.
        ValueError: a mask has another number of blocks, or chooses a branch that a block does not have; or
            the target does not fit the output.
        InexactError: an operator has no rule.
    """
    linear = Linearised.at(form.explaining(output), args, kwargs, target, frozen=linearize == "frozen")
    branches = [len(block.branches) for block in linear.form.all_blocks if block.index in linear.lengths.columns]
    if not isinstance(masks, Tensor):
        masks = _as_masks(linear, masks)
    if masks.ndim != 2 or masks.shape[1] != len(branches) or not len(masks):
        raise ValueError(
            f"chosen_paths: masks are [paths, {len(branches)}], one choice a block; {list(masks.shape)} came."
        )
    wrong = ((masks < NOT_MET) | (masks >= torch.tensor(branches, device="cpu"))).nonzero()
    if len(wrong):
        row, column = wrong[0].tolist()
        raise ValueError(_no_such_choice(counted(linear)[column], branches, masks, row, column))
    return followed(linear, masks.to(torch.int16), chunk)


def _as_masks(
    linear: Linearised, paths: Sequence[Mapping[BlockLike, SupportsIndex | str]]
) -> Int[Tensor, "paths blocks"]:
    """The mask of each path that is told by the branches that it passes."""
    masks = torch.full((len(paths), len(linear.lengths.columns)), SKIP, device="cpu")
    for row, choices in enumerate(paths):
        for which, branch in choices.items():
            block = index_of(linear.form.blocks, which, "chosen_paths", nested=False)
            skips = branch in (SKIP, "skip")
            number = SKIP if skips else branch_of(linear.form.blocks, block, branch, "chosen_paths")
            masks[row, linear.lengths.columns[block]] = number
    return masks


def _no_such_choice(block: str, branches: list[int], masks: Tensor, row: int, column: int) -> str:
    last = branches[column] - 1
    said = (
        f"chosen_paths: branches count from 0 and the skip is −1: block {block!r} has "
        f"{f'branches 0 to {last}' if last else 'branch 0 alone'}, and path {row} asks for {int(masks[row, column])}."
    )
    older = masks - 1  # what they mean if they are of the old kind: 0 the skip, 1 the first branch
    if bool(((older >= NOT_MET) & (older < torch.tensor(branches, device="cpu"))).all()):
        said += " In masks of earlier versions branches counted from 1 and the skip was 0: subtract 1 from those."
    return said


def followed(linear: Linearised, masks: Tensor, chunk: int) -> Paths:
    """The paths of these masks, pulled back `chunk` at a time."""
    pieces = []
    with progress("paths", len(masks)) as step:
        for part in torch.split(masks, chunk):
            pieces.append(_along(linear, part))
            step(len(part))
    values, squares = (torch.cat(parts) for parts in zip(*pieces, strict=True))
    return paths_of(linear, masks, values, squares, exact=True)


def _along(linear: Linearised, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Value and squared norm of the gradient along each of these paths, by example."""
    algebra = Chosen(linear.graph, linear.tape, linear.lengths.columns, masks)
    seeds = {TARGET: algebra.seed(linear.seed)}
    arrived = walk(linear.graph, algebra, seeds, linear.graph.sources)
    values = linear.target.new_zeros((len(masks), len(linear.target)))
    squares = torch.zeros_like(values)
    for source, rows in arrived.items():
        place = rows.rows.to(values.device)
        along = linear.examples.dot(source, rows.stack, linear.tape.values[source])
        values.index_add_(0, place, along.to(values.dtype))
        squares.index_add_(0, place, linear.examples.sums(source, rows.stack.abs().square()).to(values.dtype))
    return values, squares
