"""Which dimension of a stream holds the channels.

It is read from the branch: a convolution or a norm over images takes the second, a linear layer the last.
Three-dimensional streams exist in both kinds, and no rule about shapes can tell them apart.
"""

from torch import fx

from unbraid.graph._types import Graph
from unbraid.graph.operators import operator_of


def channel_dimension(graph: Graph, block: int) -> int:
    """The dimension of a block's stream that its branch takes for channels: 1 or the last one.

    A convolution, or a norm over images, takes the second; a linear layer, or a norm over features, the last. That of
    the first such operator in the branch counts; where there is none, the last dimension does.
    """
    add = next(add for add in graph.adds if add.block == block)
    rank = len(graph.streams[add.output].shape)
    for segment in graph.segments:
        if segment.block == block and segment.role == "branch" and isinstance(segment.code, fx.GraphModule):
            for node in segment.code.graph.nodes:
                # What a branch does first to its input says which dimension it takes for the channels.
                channels = operator_of(node).channels if node.op == "call_function" else None
                if channels is not None:
                    return rank - 1 if channels < 0 else min(channels, rank - 1)
    return rank - 1
