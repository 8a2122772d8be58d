"""Through which nodes everything that a node is for must pass.

A node *post-dominates* another if every way from that one to the output leads through it. The nearest one is found for
all nodes in one pass from the output upwards: it is where the nearest ones of all readers meet.

    a → b → d → output        d post-dominates a, b and c
    a → c → d                 neither b nor c post-dominates a
"""

from functools import reduce

from torch import fx

from unbraid.graph.questions import values_read


class PostDominators:
    """The post-dominators of every node that an output needs.

    Args:
        graph: the graph.
        output: the node that is the output; by default all that the graph returns.
    """

    def __init__(self, graph: fx.Graph, output: fx.Node | None = None) -> None:
        self._next: dict[fx.Node, fx.Node | None] = {}
        self._depth: dict[fx.Node, int] = {}
        for node in reversed(graph.nodes):
            readers = [user for user in node.users if user in self._next and node in values_read(user)]
            if node is output or (output is None and node.op == "output"):
                self._next[node], self._depth[node] = None, 0
            elif readers:
                nearest = reduce(self._meeting, readers)
                self._next[node], self._depth[node] = nearest, self._depth[nearest] + 1

    def passes(self, node: fx.Node, through: fx.Node) -> bool:
        """Whether all ways from a node to the output lead through another; a node leads through itself."""
        if node not in self._depth or through not in self._depth:
            return False
        while self._depth[node] > self._depth[through]:
            node = self._above(node)
        return node is through

    def common(self, nodes: list[fx.Node]) -> fx.Node | None:
        """The nearest node through which all ways from some nodes lead; None where the output needs none of them."""
        known = [node for node in nodes if node in self._depth]
        return reduce(self._meeting, known) if known else None

    def next(self, node: fx.Node) -> fx.Node | None:
        """The nearest post-dominator but the node itself; None for the output."""
        return self._next[node]

    def _meeting(self, one: fx.Node, other: fx.Node) -> fx.Node:
        while one is not other:
            if self._depth[one] < self._depth[other]:
                one, other = other, one
            one = self._above(one)
        return one

    def _above(self, node: fx.Node) -> fx.Node:
        above = self._next[node]
        assert above is not None, "the output is above all others"
        return above
