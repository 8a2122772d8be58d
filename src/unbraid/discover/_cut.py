"""Cut a graph of operators at the blocks' operands and sums.

x → conv → relu → conv → add(x, ·) → relu → ...: cuts at x, at the second convolution's result, at the sum, and at what
the output needs. Each operator belongs to the one cut for which it is computed; what serves several cuts becomes a cut:

    segment "branch"   conv, relu, conv     from x to the operand
    add                x + operand
    segment "trunk"    relu                 from the sum to the next fork

The tensors that are cuts are the *roots*, and the piece that serves one is its *cone* (in logic synthesis, a
fanout-free cone). One backward pass finds all cones, nothing is computed twice, and no rule about modules is needed.
Inputs that a segment reads for their sizes alone are marked `size_only`: they would otherwise count as data, and paths
that do not exist would be counted.
"""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, fx

from unbraid.capture import Capture
from unbraid.capture.signature import sizes
from unbraid.discover._anatomy import Anatomy
from unbraid.discover._block_nodes import BlockNodes
from unbraid.discover._cut_sizes import Cone, Sizes, is_size, read_size
from unbraid.discover.rewrites._concatenations import places
from unbraid.graph import SKIP, Add, Graph, Order, Role, Segment, Step, Stream, needed, runnable
from unbraid.graph.operators import callee
from unbraid.graph.questions import values_read

aten = torch.ops.aten


def cut(capture: Capture, anatomy: Anatomy, stream: fx.Node | None) -> Graph:
    """Cut a graph of operators at the operands and sums of its blocks into streams, segments and additions.

    Every node belongs to the one cut node for which it is computed; a node that serves several becomes a cut itself.
    So each segment is the largest piece with a single result (logic synthesis calls it a fanout-free cone), nothing is
    computed twice, and one pass from the last node to the first finds them all.
    """
    cutter = _Cutter(capture, anatomy, stream)
    while missing := cutter.attempt():
        # A size is read from a tensor that does not cross the cut: let it cross, and cut again.
        cutter.roots |= missing
    return cutter.graph()


class _Cutter:
    def __init__(self, capture: Capture, anatomy: Anatomy, stream: fx.Node | None) -> None:
        self.capture = capture
        self.anatomy = anatomy
        self.flow = anatomy.flow
        self.given = [n for n in capture.graph.nodes if n.op == "placeholder" and n.name not in capture.names]
        self.adds = {block.add: number for number, block in enumerate(anatomy.blocks)}
        self.result: fx.Node = next(n for n in capture.graph.nodes if n.op == "output")
        by_name = {node.name: node for node in capture.graph.nodes}
        self.outputs = [by_name[stream] for stream in capture.signature.streams()]
        forks_and_ends = [b.fork for b in anatomy.blocks] + [
            *anatomy.ends.values(),
            *([] if stream is None else [stream]),
        ]
        operands: list[fx.Node] = []
        for block in anatomy.blocks:
            operands += [node for _, node in block.operands]
        self.roots = {*self.adds, *forks_and_ends, *operands, *self.outputs, *self.flow.sources, *self.given}
        self.cones: dict[fx.Node, Cone] = {}

    def attempt(self) -> set[fx.Node]:
        """Cut at the roots; returns tensors that must be roots too, none if the cut is done."""
        owner = self._owners()
        ends = [end for end, leader in owner.items() if end is leader and end not in self.adds]
        self.cones = {end: Cone([end]) for end in ends}
        for end, leader in owner.items():
            if end in self.roots and leader is not end and leader in self.cones:
                self.cones[leader].ends.append(end)
        for node in self.capture.graph.nodes:
            if node in owner and owner[node] in self.cones and not (is_size(node) and node not in self.roots):
                self.cones[owner[node]].nodes.append(node)
        missing: set[fx.Node] = set()
        for cone in self.cones.values():
            missing |= self._connect(cone)
        return missing - self.roots

    def _owners(self) -> dict[fx.Node, fx.Node]:
        owner: dict[fx.Node, fx.Node] = {}
        for node in reversed(self.capture.graph.nodes):
            if node in (self.result, *self.given) or (is_size(node) and node not in self.roots):
                continue
            leaders = {owner[user] for user in self._readers(node) if user in owner}
            if node in self.roots or (len(leaders) > 1 and node.op != "placeholder"):
                self._lead(node, owner)
            elif len(leaders) == 1 and node.op != "placeholder":
                owner[node] = leaders.pop()
        return owner

    def _readers(self, node: fx.Node) -> Iterator[fx.Node]:
        """The users whose cone needs this node: an addition of a block reads its operands alone."""
        for user in node.users:
            if user not in self.adds:
                yield user

    def _lead(self, node: fx.Node, owner: dict[fx.Node, fx.Node]) -> None:
        """Make a node the end of a cone; an operator with several results ends in all that are read."""
        if isinstance(node.meta.get("val"), list | tuple):
            picks = [user for user in node.users if user in owner]
            for pick in picks:
                self.roots.add(pick)
                owner[pick] = picks[0]
            owner[node] = picks[0]
        else:
            self.roots.add(node)
            owner[node] = node

    def _connect(self, cone: Cone) -> set[fx.Node]:
        """Find what a cone reads; returns the tensors it needs for their sizes and cannot get."""
        inside = set(cone.nodes)
        for end in cone.ends:
            if end.name in self.capture.names:
                cone.params[end] = None
        waiting: list[fx.Node] = []
        for node in cone.nodes:
            for argument in () if node.op == "placeholder" else node.all_input_nodes:
                if argument.name in self.capture.names and argument not in self.roots:
                    cone.params[argument] = None
                elif is_size(argument) and argument not in self.roots:
                    waiting.append(argument)
                elif argument not in inside:
                    cone.inputs[argument] = None
        read = set[fx.Node]().union(*map(values_read, cone.nodes))
        sizes = Sizes(cone, self.given, self.capture.names)
        missing = set[fx.Node]().union(*map(sizes.crossing, waiting))
        cone.size_only = cone.inputs.keys() - read - cone.counted
        return missing

    def graph(self) -> Graph:
        """The cut graph, dead segments left out."""
        streams = {node.name: _stream(node) for node in self.capture.graph.nodes if node in self.roots}
        outputs = tuple(dict.fromkeys(node.name for node in self.outputs))
        steps = needed(tuple(self._steps()), outputs)
        read = set(outputs).union(*map(_touched, steps))
        inputs = tuple(node.name for node in self.given)
        kept = {name: stream for name, stream in streams.items() if name in read or name in inputs}
        return Graph(kept, steps, inputs, self._sources(kept, steps), outputs)

    def _sources(self, streams: dict[str, Stream], steps: tuple[Step, ...]) -> tuple[str, ...]:
        """The sources that reach some fork of a trunk; a float mask, say, only enters branches."""
        wanted = {block.fork.name for block in self.anatomy.blocks}
        begins = {source.name for source in self.flow.sources}
        for step in reversed(steps):
            if isinstance(step, Add):
                wanted.update([step.skip] if step.skip and step.output in wanted else [])
            elif not begins.isdisjoint(step.outputs):
                continue  # what an embedding is looked up with leads to no trunk by itself
            elif step.role != "branch" and not wanted.isdisjoint(step.outputs):
                wanted.update(stream for stream in step.inputs if stream not in step.size_only)
        sources = [s.name for s in self.flow.sources if s.name in streams]
        # A trunk that begins with a learned token reads its data in branches: then these are the sources.
        return tuple(s for s in sources if s in wanted) or tuple(sources)

    def _steps(self) -> Iterator[Step]:
        leaders = {cone.ends[0]: cone for cone in self.cones.values()}
        last = {max(cone.nodes, key=self.flow.order.__getitem__): cone for cone in leaders.values() if cone.nodes}
        for node in self.capture.graph.nodes:
            if node in self.adds:
                yield self._add(self.adds[node])
            elif node in last:
                yield self._segment(last[node])

    def _add(self, number: int) -> Add:
        block = self.anatomy.blocks[number]
        skip = None if block.skip is None else block.skip.name
        branches = tuple(node.name for node in block.branches)
        along, spans = _spans(block)
        return Add(number, block.fork.name, skip, branches, block.add.name, _order(block), along, spans)

    def _segment(self, cone: Cone) -> Segment:
        place = self.anatomy.places.get(cone.ends[0])
        role: Role = "trunk" if place is None else "skip" if place[1] == SKIP else "branch"
        return Segment(
            id=cone.ends[0].name,
            inputs=tuple(node.name for node in cone.inputs),
            outputs=tuple(node.name for node in cone.ends),
            code=self._code(cone),
            params=tuple(self.capture.names[node.name] for node in cone.params),
            role=role,
            block=place and place[0],
            branch=place[1] if place and place[1] != SKIP else None,
            size_only=frozenset(node.name for node in cone.size_only),
        )

    def _code(self, cone: Cone) -> fx.GraphModule:
        graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
        for node in (*cone.inputs, *cone.params):
            copies[node] = graph.placeholder(node.name)
            copies[node].meta = copy.copy(node.meta)

        def copied(node: fx.Node) -> fx.Node:
            if node not in copies:
                copies[node] = read_size(node, graph, copies, copied)
            return copies[node]

        for node in cone.nodes:
            if node not in copies:
                copies[node] = graph.node_copy(node, copied)
        ends = [copies[end] for end in cone.ends]
        graph.output(ends[0] if len(ends) == 1 else tuple(ends))
        return runnable(graph, f"segment_{cone.ends[0].name}")


def _spans(block: BlockNodes) -> tuple[int | None, tuple[tuple[int, int], ...]]:
    """Of a concatenation the dimension, from the last, and where each operand lies; of a sum neither."""
    if callee(block.add) is not aten.cat:
        return None, ()
    along, spans = places(block.add)
    return along, tuple(spans[node] for _, node in block.operands)


def _order(block: BlockNodes) -> Order:
    """How the model's code brackets the sum; empty where it is no sum of these operands alone."""
    numbers = {node: number for number, node in block.operands}
    met: list[int] = []

    def of(node: object) -> Order | None:
        if isinstance(node, fx.Node) and node in numbers and node is not block.add:
            met.append(numbers[node])
            return numbers[node]
        if not isinstance(node, fx.Node) or callee(node) is not aten.add or len(node.args) != 2 or node.kwargs:
            return None
        left, right = of(node.args[0]), of(node.args[1])
        return None if left is None or right is None else (left, right)

    order = of(block.add)
    return order if order is not None and sorted(met) == sorted(numbers.values()) else ()


def _stream(node: fx.Node) -> Stream:
    value = node.meta["val"]
    return (
        Stream(node.name, sizes(value), value.dtype)
        if isinstance(value, Tensor)
        else Stream(node.name, (), torch.int64)
    )


def _touched(step: Step) -> tuple[str, ...]:
    if isinstance(step, Add):
        return (step.output, *(stream for _, stream in step.operands))
    return (*step.inputs, *step.outputs)
