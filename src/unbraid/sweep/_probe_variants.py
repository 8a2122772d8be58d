"""Which variants show whether steps that run as one larger batch give what they give by themselves.

Stacking is checked, not assumed: of each kind of step that is stacked for the first time, a node must lie in a variant
that equals its plain run. Of the example in `_merge` the one stacked kind has the nodes 4 and 5; the outputs of the
whole model depend on 4, so it suffices. A variant that lacks a branch says nothing of that branch.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from unbraid.graph import Segment
from unbraid.sweep._merge import NONE, Merged
from unbraid.sweep._schedule import Schedule


def used(merged: Merged, variants: Iterable[int]) -> set[int]:
    """The nodes on which outputs of these variants depend; they may list others, of a branch that they lack."""
    return set().union(*(_used(merged, variant) for variant in variants))


def _used(merged: Merged, variant: int) -> set[int]:
    nodes: set[int] = set()
    wanted = set(merged.outputs[variant].tolist())
    for number in sorted(merged.needs[variant].tolist(), reverse=True):  # a node reads what those before it make
        if number != NONE and not wanted.isdisjoint(merged.makes[number].tolist()):
            nodes.add(number)
            wanted.update(merged.reads[number].tolist())
            wanted.discard(NONE)  # of a node that reads fewer values than others
    return nodes


def stacked_kinds(merged: Merged, order: Schedule) -> dict[int, list[set[int]]]:
    """The groups of several nodes, by kind; sums are left out, as a sum is taken number by number."""
    by_kind: dict[int, list[set[int]]] = {}
    for group in order.groups:
        if len(group) > 1 and isinstance(merged.step(group[0]), Segment):
            by_kind.setdefault(int(merged.kinds[group[0]]), []).append(set(group.tolist()))
    return by_kind


def probe_variants(
    merged: Merged, sets: Iterable[Sequence[set[int]]], chosen: Sequence[int] = (), together: int = 1
) -> list[int]:
    """A few variants whose outputs depend on the nodes that count.

    Args:
        merged: the variants.
        sets: of each of these, one group must have enough nodes on which an output of a chosen variant depends.
        chosen: the variants that are chosen already.
        together: how many nodes of a group are enough.

    Returns:
        The variants that are chosen besides.
    """
    added: list[int] = []
    met = used(merged, chosen)
    for groups in sets:
        group = max(groups, key=lambda group: len(group & met))
        enough = min(together, len(group))
        if len(group & met) >= enough:
            continue
        for variant in np.flatnonzero(np.isin(merged.needs, list(group)).any(axis=1)).tolist():
            nodes = _used(merged, variant)
            if nodes & group - met:
                added.append(variant)
                met |= nodes
            if len(group & met) >= enough:
                break
    return added
