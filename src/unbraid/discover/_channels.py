from torch import fx

from unbraid.graph import Graph, name_of

# What a branch does first to its input says which dimension it takes for the channels.
_SECOND = ("conv", "batch_norm", "group_norm", "instance_norm")
_LAST = ("linear", "addmm", "mm", "matmul", "layer_norm", "rms_norm")


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
                name = name_of(node) if node.op == "call_function" else ""
                if any(part in name for part in _SECOND):
                    return min(1, rank - 1)
                if name in _LAST:
                    return rank - 1
    return rank - 1
