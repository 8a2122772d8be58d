"""The paths that count most, one by one."""

from typing import TYPE_CHECKING

import torch

from unbraid import draw
from unbraid.reports._content import Code, Column, Picture, Section, Table
from unbraid.reports._content import count as count_of

if TYPE_CHECKING:
    from unbraid.paths import Paths

__all__ = ["single"]

_SHOWN = 20


def single(paths: "Paths", all_paths: int, said: str, python: str) -> Section:
    """The section on single paths, the largest values first."""
    means = paths.values.mean(1)
    order = means.abs().argsort(descending=True).tolist()
    complete = len(paths) == all_paths
    best = order[0]
    taken = [name for name, choice in zip(paths.blocks, paths.masks[best].tolist(), strict=True) if choice >= 0]
    through = (
        f"the branches of {', '.join(taken[:4])}{' and others' if len(taken) > 4 else ''}" if taken else "no branch"
    )
    which = (
        f"all {count_of(all_paths)} paths"
        if complete
        else f"{count_of(all_paths)} paths, as far as a search sees them,"
    )
    finding = (
        f"Of {which} the one that adds most to {said}, {float(means[best]):+.3g} of {float(paths.target.mean()):.3g}, "
        f"passes {through}."
    )
    columns = (
        Column("Rank"),
        Column("Path"),
        Column("Length", "branches"),
        Column("Value", format="+.4g"),
    )
    rows_by_path = paths.rows()
    rows = [
        (
            rank,
            rows_by_path[row]["path"],
            int(paths.lengths[row]),
            float(means[row]),
        )
        for rank, row in enumerate(order[:_SHOWN], start=1)
    ]
    caption = "A path by its choice at each block: a dot for the skip, the branch's number, from 0. Mean over examples."
    drawn = paths[torch.tensor(order[:_SHOWN], device="cpu")]
    figure = Picture(draw.svg(drawn.plot()), "What the largest paths add, one bar a path.", "Bars by length of path.")
    return Section("Single paths", finding, [figure, Table(columns, rows, caption), Code(python)])
