"""The steps of a block as they are in another's place: which streams they read and make there."""

from dataclasses import replace

from unbraid.discover._block import Block
from unbraid.discover._movable_units import Unit
from unbraid.graph import Add, Graph, Segment, Step
from unbraid.graph.edits import renamed


def read_instead(graph: Graph, unit: Unit, here: Unit) -> dict[str, str]:
    """What a block's branches read in another's place: its fork, and the other trunks at their state there.

    Two trunks may begin at one stream. Then a branch that reads it reads the trunk that those in the other place read.
    """
    along = {unit.fork: here.fork} if here.inward or unit.fork not in unit.beside.values() else {}
    for trunk, stream in unit.beside.items():
        state = here.beside.get(trunk, stream)
        if stream not in along and graph.streams[state].shape == graph.streams[stream].shape:
            along[stream] = state
    return along


def moved_step(step: Step, block: Block, along: dict[str, str], inside: dict[str, str]) -> Step:
    """A step of a block in another's place."""
    if step.block not in (block.index, None) or (isinstance(step, Segment) and step.role == "branch"):
        return renamed(step, inside, inside)
    if isinstance(step, Segment):
        return renamed(step, along, along)
    moved = renamed(step, along, along)
    assert isinstance(moved, Add)
    # A branch may be the state of another trunk itself.
    return replace(moved, branches=tuple(branch and inside.get(branch, branch) for branch in step.branches))
