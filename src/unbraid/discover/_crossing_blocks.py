from collections.abc import Collection

from torch import fx

from unbraid.discover._block_nodes import BlockNodes
from unbraid.discover._dataflow import Dataflow


def crossing(flow: Dataflow, blocks: Collection[BlockNodes]) -> list[fx.Node]:
    """The sums of blocks that cross another: they begin inside it and end outside, with its sum in their own branch.

    Blocks follow one another, nest, or lie side by side in trunks of their own. A bias of attention scores that every
    layer adds reads like a skip around layers which it does not contain: so does a sum of scores over layers. Of two
    blocks that cross, the one stays that begins at data, or else first.
    """
    order = flow.order
    kept: list[BlockNodes] = []
    crossed: list[fx.Node] = []
    for block in sorted(blocks, key=lambda b: (b.fork not in flow.carries, order[b.fork], order[b.add])):
        if any(_cross(flow, block, other) or _cross(flow, other, block) for other in kept):
            crossed.append(block.add)
        else:
            kept.append(block)
    return crossed


def _cross(flow: Dataflow, first: BlockNodes, second: BlockNodes) -> bool:
    order = flow.order
    if not order[first.fork] < order[second.fork] < order[first.add] < order[second.add]:
        return False
    return any(first.add in flow.region(second.fork, branch) for branch in second.branches)
