"""Which parameters a block has: those of its own segments.

A segment holds everything that is computed for one cut alone, so what only this block needs is the block's, wherever
the model computes it from: the keys that a decoder layer makes of the encoder's output, a gate that reads a condition.
What is computed from parameters alone and read by several blocks (a weight that is normalised, a table of position
biases) counts in each of them; what is computed from data for several is no block's own.
"""

from collections.abc import Collection, Mapping, Sequence

from unbraid.graph import BranchIndex, Graph, Segment, makes


def parameters(
    graph: Graph,
    parents: Mapping[int, BranchIndex],
    learned: Collection[str],
    tied: Sequence[Sequence[str]] = (),
) -> dict[int, frozenset[str]]:
    """The names of the parameters that each block's branches and skip read, those of nested blocks included.

    Args:
        graph: the cut graph.
        parents: for each nested block the block and the branch that hold it.
        learned: which names of the state are parameters.
        tied: groups of names of one tensor, which counts once in a block.
    """
    one_name: dict[str, str] = {}
    for group in tied:
        one_name |= dict.fromkeys(group, group[0])
    makers: dict[str, Segment] = {}
    for step in graph.segments:
        makers |= dict.fromkeys(makes(step), step)
    names_of: dict[int, set[str]] = {add.block: set() for add in graph.adds}
    for segment in graph.segments:
        block = segment.block
        names = {one_name.get(name, name) for name in _names(graph, segment, makers) if name in learned}
        while block is not None:
            names_of.setdefault(block, set()).update(names)
            block = parents[block][0] if block in parents else None
    return {block: frozenset(names) for block, names in names_of.items()}


def _names(graph: Graph, segment: Segment, makers: Mapping[str, Segment]) -> set[str]:
    """What a segment reads of the state, be it by way of other segments that carry no data."""
    names, seen, stack = set[str](), {segment.id}, [segment]
    while stack:
        step = stack.pop()
        names.update(step.params)
        for stream in step.inputs:
            maker = makers.get(stream)
            if maker is not None and stream not in graph.reached and maker.id not in seen:
                seen.add(maker.id)
                stack.append(maker)
    return names
