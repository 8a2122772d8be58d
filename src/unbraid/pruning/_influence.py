"""How much groups of blocks turn the stream: the sum with and without their branches, S h against S h + f."""

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from unbraid.form import ResidualForm
from unbraid.graph import BranchIndex, Removal
from unbraid.pruning._stream_readings import Over, before_and_after, branches_of, cosine, read, vectors
from unbraid.sweep import Batches


def influence(
    form: ResidualForm, batches: Batches, groups: Sequence[Sequence[Removal]], over: Over
) -> tuple[list[float], int]:
    """1 − E cos(before, after) of each group, nan where there is no before; and the number of examples.

    Raises:
        ValueError: the blocks of a group do not follow one another.
    """
    readings, places = [], []
    for place, group in enumerate(groups):
        blocks = sorted({block for block, _ in branches_of(form, group)})
        if not any(_follow(blocks, run) for run in _runs(form)):
            raise ValueError(
                f'rank: by="influence" takes groups of consecutive blocks of one trunk; {list(group)} came.'
            )
        if change := before_and_after(form, group):
            readings.append(change.reading(partial(_turn, over=over)))
            places.append(place)
    means, examples = read(form, batches, readings)
    scores = [float("nan")] * len(groups)
    for place, mean in zip(places, means, strict=True):
        scores[place] = mean
    return scores, examples


def _runs(form: ResidualForm) -> list[tuple[int, ...]]:
    """The blocks that follow one another: those of each trunk, and those inside each branch."""
    inner: dict[BranchIndex, tuple[int, ...]] = {}
    for block in form.all_blocks:
        if block.parent is not None:
            inner[block.parent] = (*inner.get(block.parent, ()), block.index)
    return [*(trunk.blocks for trunk in form.trunks), *inner.values()]


def _follow(blocks: Sequence[int], run: Sequence[int]) -> bool:
    """Whether blocks stand in a run without another between them."""
    start = run.index(blocks[0]) if blocks[0] in run else len(run)
    return tuple(blocks) == tuple(run[start : start + len(blocks)])


def _turn(before: Tensor, after: Tensor, over: Over) -> Tensor:
    return 1 - cosine(vectors(before, over), vectors(after, over))
