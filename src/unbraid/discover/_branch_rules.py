"""What makes an operand a branch over a fork, and what is none, with the reason.

An operand that is subtracted needs a matrix of parameters. Without this rule the maxima that a soft-max takes off and
PoolFormer's pooling without its input are branches; of a learned map the sign is a matter of its parameters.
"""

from collections.abc import Collection

import torch
from torch import fx

from unbraid.discover._block_nodes import BlockNodes
from unbraid.discover._dataflow import Dataflow, same_shape
from unbraid.discover._element_maps import Constant, Elements, unmoved
from unbraid.discover._flattened_sums import read_once
from unbraid.discover._noise import is_noise
from unbraid.discover._routes import way_up
from unbraid.discover._summands import summands
from unbraid.discover._trunk_reached import leaves_by, only_first_begins_at, reads_trunk, trunk_way
from unbraid.discover.kinds import Skip
from unbraid.graph.operators import callee
from unbraid.graph.questions import Carrier, carrier, jointly_affine, mixing, values_read

aten = torch.ops.aten

NO_DATA = "one operand carries no data"
POINTWISE = "the other operand is a pointwise function of the first, without parameters"
COPY = "the other operand is the first, moved or scaled: there is no branch"
AFFINE = "both operands are affine, or maxima, in the tensor that they share: there is no branch"
APART = "the operands are computed from disjoint parts of the tensor that they share"
NOISE = "the other operand is noise, drawn with mean zero and scaled"
MERGED = "the other operand is a trunk of its own, which begins before the fork: two trunks are merged"
ELSEWHERE = "the other operand is the trunk itself, at another depth"
TAKEN_OFF = "the other operand is subtracted, and has no matrix of parameters"


class Judge:
    """Judges operands over their forks.

    Args:
        flow: the data flow of the graph.
        constant: the value of a placeholder that holds a constant, by its name; None for others.

    Attributes:
        blocks: the blocks found so far, by their sums.
    """

    def __init__(self, flow: Dataflow, constant: Constant) -> None:
        self.flow = flow
        self.constant = constant
        self.blocks: dict[fx.Node, BlockNodes] = {}
        self._elements: dict[fx.Node, Elements] = {}
        self._known_apart: dict[tuple[fx.Node, fx.Node, fx.Node], bool] = {}

    def elements(self, fork: fx.Node) -> Elements:
        if fork not in self._elements:
            self._elements = {fork: Elements(self.flow, fork, self.constant)}  # the last one alone: they are large
        return self._elements[fork]

    def objection(
        self, fork: fx.Node, skip: fx.Node, branch: fx.Node, kind: Skip, *, held: bool, added: bool
    ) -> str | None:
        """Why an operand is no branch beside a skip over their fork; None if it is one.

        Args:
            fork: what both are computed from.
            skip: the operand that carries it.
            branch: the other operand.
            kind: what the skip is.
            held: whether a norm's scale counts as held, so that the norm is affine.
            added: whether the branch is added, not subtracted.
        """
        region = self.flow.region(fork, branch)
        if branch not in self.flow.carries:
            return NO_DATA
        # Beside the fork itself, and beside a gate, a linear branch counts, as in x + conv(x) or t·W x + (1 − t)·x.
        if kind in ("projection", "mix") and self.affine(fork, region, held=held):
            return AFFINE
        if kind != "identity" and not self._reads(fork, branch):
            return AFFINE
        own = {fork, *region}  # a learned fork is none of the branch's parameters
        if not any(mixing(node) or self._has_parameters(node, own) for node in region):
            return POINTWISE
        if kind != "projection" and self._carries_all(fork, branch):
            return COPY
        if not added and not any(self.flow.weighs(node) for node in region):
            return TAKEN_OFF
        if is_noise(branch):
            return NOISE
        if objection := self._trunk(fork, skip, region, branch, kind):
            return objection
        return APART if self._apart(fork, skip, branch) else None

    def message(self, skip: fx.Node, branch: fx.Node, *, added: bool) -> bool:
        """Whether an operand is a branch that comes from other trunks alone, beside the state of a trunk.

        It is computed from the sums of blocks, none of them the skip's own, and is no state of a trunk itself.
        """
        if branch not in self.flow.carries:
            return False
        region, begins, stack = {branch}, set[fx.Node](), [branch]
        while stack:
            node = stack.pop()
            if node in self.blocks:
                begins.add(node)
                continue
            fresh = [read for read in values_read(node) if read in self.flow.reached and read not in region]
            region.update(fresh)
            stack += fresh
        if not begins or branch in begins or unmoved(skip) in begins:
            return False
        if not any(mixing(node) or self._has_parameters(node, ()) for node in region - begins):
            return False
        if not added and not any(self.flow.weighs(node) for node in region - begins):
            return False
        way = trunk_way(self.flow, self.blocks, branch, Carrier.SCALED)
        return not way.blocks and not is_noise(branch)

    def affine(self, fork: fx.Node, region: list[fx.Node], *, held: bool) -> bool:
        """Whether all that lies between a fork and an operand is affine, or a maximum.

        What else data decide is held where it scales element by element. A matrix that they decide is not, attention's
        pattern say, unless all that happens is one product with it, of two maps of one tensor: a score.
        """
        inside, products = {fork, *region}, 0
        for node in region:
            data = self.flow.data(node)
            below = [read for read in data if read in inside]
            if not jointly_affine(node, below, held=held):
                return False
            beside = [read for read in data if read not in inside]
            if beside and not jointly_affine(node, data, held=held):
                products += 1
                if mixing(node) and not all(self._alike(fork, read) for read in beside):
                    return False
        return products < 2 or not any(mixing(node) and self._has_others(node, inside) for node in region)

    def _has_others(self, node: fx.Node, inside: set[fx.Node]) -> bool:
        return any(read not in inside for read in self.flow.data(node))

    def _alike(self, fork: fx.Node, node: fx.Node) -> bool:
        """Whether two tensors are affine in a third, as queries and keys are."""
        return not self._carried(fork).isdisjoint(self._carried(node))

    def _carried(self, node: fx.Node) -> set[fx.Node]:
        """What a tensor is affine in; pooled queries are concatenated from a class token and the rest."""
        carried, stack = set[fx.Node](), [node]
        while stack:
            way = [step.node for step in way_up(self.flow, stack.pop(), held=True)]
            carried.update(way)
            if callee(way[-1]) in (aten.cat, aten.stack):
                stack += [part for part in self.flow.data(way[-1]) if part not in carried]
        return carried

    def copies(self, fork: fx.Node, skip: fx.Node, node: fx.Node) -> float:
        """How many times an operand holds the skip in sums of its own: g(x) − x holds x −1 times."""
        elements = self.elements(fork)
        times, total = {unmoved(node): 1.0}, 0.0
        while times:  # from the last node to the first, so that each is met with all its copies at once
            node = max(times, key=self.flow.order.__getitem__)
            factor = times.pop(node)
            if elements.same(node, skip):
                total += factor
            elif self.flow.order[node] > self.flow.order[fork]:
                for below, number in summands(node):
                    if isinstance(below, fx.Node):
                        below = unmoved(below)
                        times[below] = times.get(below, 0.0) + factor * number
        return total

    def scaled(self, fork: fx.Node, skip: fx.Node, node: fx.Node) -> bool:
        """Whether an operand is the skip, element by element times numbers or parameters."""
        while not self.elements(fork).same(node, skip):
            data = self.flow.data(node)
            if node.op != "call_function" or callee(node) not in (aten.mul, aten.div, aten.neg) or len(data) != 1:
                return False
            if carrier(node, data) is not Carrier.SCALED or not same_shape(node, data[0]):
                return False
            node = data[0]
        return True

    def gated(self, fork: fx.Node, base: fx.Node, node: fx.Node) -> bool:
        """Whether an operand is the fork's elements, as another has them, times what may depend on the data.

        Args:
            fork: the tensor that both carry.
            base: the fork's elements as the skip has them, without its gates.
            node: the operand.
        """
        stack, lowest = [node], self.flow.order[fork]
        while stack:
            node = stack.pop()
            if self.elements(fork).same(node, base):
                return True
            if node.op == "call_function" and callee(node) in (aten.mul, aten.div, aten.neg):
                able = self.flow.data(node)[: 1 if callee(node) is aten.div else None]
                stack += [read for read in able if same_shape(read, node) and self.flow.order[read] >= lowest]
        return False

    def _carries_all(self, fork: fx.Node, branch: fx.Node) -> bool:
        """Whether a way of movements, numbers, parameters and norms alone leads from an operand to the fork."""
        while branch is not fork:
            data = self.flow.data(branch)
            passed = carrier(branch, data)
            if passed is None or passed is Carrier.MIXING or len(data) != 1:
                return False
            branch = data[0]
        return True

    def _apart(self, fork: fx.Node, skip: fx.Node, branch: fx.Node) -> bool:
        if (fork, skip, branch) not in self._known_apart:
            self._known_apart[fork, skip, branch] = self.elements(fork).apart(skip, branch)
        return self._known_apart[fork, skip, branch]

    def _trunk(self, fork: fx.Node, skip: fx.Node, region: list[fx.Node], branch: fx.Node, kind: Skip) -> str | None:
        """What is wrong where an operand is a trunk, or an affine map of one: its way up passes the skips of blocks.

        A trunk that ends beside what the fork reaches is another one. One that leads to the fork is that of the skip,
        at another depth: beside the fork itself it is the skip over whole blocks, if they serve this sum alone.
        """
        weakest = Carrier.SCALED if kind == "identity" else Carrier.MIXING
        way = trunk_way(self.flow, self.blocks, branch, weakest, fork)
        if way.end is not fork and way.carried and way.end not in region:
            return MERGED
        if way.end is fork and way.blocks and kind == "identity" and unmoved(skip) is unmoved(fork):
            inside = all(leaves_by(self.flow, total, branch) for total in way.blocks)
            # x + (x + f(x)) reads x at another depth once more: with one block alone there is no rest to skip. Nor is
            # 2·h + f(h), which was collected from such a sum, the end of one.
            collected = branch in self.blocks and self.blocks[branch].kind == "projection"
            inside = inside and way.blocks != (branch,) and not collected
            if inside and read_once(branch) and only_first_begins_at(self.blocks, way.blocks, fork):
                return None
        # Beside a projection a block's sum is a state of the trunk, though an embedding lies between it and the fork.
        mixed = kind == "projection" and unmoved(branch) in self.blocks
        itself = (way.end is fork and way.blocks) or reads_trunk(self.flow, self.blocks, branch, fork, mixed)
        return ELSEWHERE if itself else None

    def merges(self, fork: fx.Node, node: fx.Node, kind: Skip) -> bool:
        """Whether a tensor is the state of a trunk that began before a fork, or beside it."""
        way = trunk_way(self.flow, self.blocks, node, Carrier.SCALED if kind == "identity" else Carrier.MIXING, fork)
        return way.carried and way.end is not fork and way.end not in self.flow.region(fork, node)

    def _reads(self, fork: fx.Node, branch: fx.Node) -> bool:
        """Whether an operand depends on a fork by more than a choice, such as which expert's bias is added."""
        lowest, seen, stack = self.flow.order[fork], {branch}, [branch]
        while stack:
            for read in self.flow.data(stack.pop()):
                if read is fork:
                    return True
                if read not in seen and self.flow.order[read] > lowest:
                    seen.add(read)
                    stack.append(read)
        return False

    def _has_parameters(self, node: fx.Node, own: Collection[fx.Node]) -> bool:
        """Whether a node reads parameters that are not computed from the fork."""
        return any(read in self.flow.parametric and read not in own for read in node.all_input_nodes)
