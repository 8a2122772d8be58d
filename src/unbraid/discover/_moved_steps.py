"""The steps of a block as they are in another's place: which streams they read and make there."""

from dataclasses import replace

from unbraid.discover._block import Block
from unbraid.discover._movable_units import Unit
from unbraid.graph import Add, Graph, Segment, Step


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
        return _renamed(step, inside)
    if isinstance(step, Segment):
        return _renamed(step, along)
    moved = _renamed(step, along)
    assert isinstance(moved, Add)
    # A branch may be the state of another trunk itself.
    return replace(moved, branches=tuple(branch and inside.get(branch, branch) for branch in step.branches))


def _renamed(step: Step, called: dict[str, str]) -> Step:
    """A step that reads and makes the streams of another place."""
    if isinstance(step, Add):
        return replace(
            step,
            fork=called.get(step.fork, step.fork),
            skip=step.skip and called.get(step.skip, step.skip),
            branches=tuple(branch and called.get(branch, branch) for branch in step.branches),
            output=called.get(step.output, step.output),
        )
    return replace(
        step,
        inputs=tuple(called.get(stream, stream) for stream in step.inputs),
        outputs=tuple(called.get(stream, stream) for stream in step.outputs),
        size_only=frozenset(called.get(stream, stream) for stream in step.size_only),
    )
