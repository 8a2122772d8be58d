from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import product

from torch import fx

from unbraid.errors import Refusal
from unbraid.form._block import Skip
from unbraid.form._crossing import crossing
from unbraid.form._dataflow import Dataflow, same_shape
from unbraid.form._found import Found
from unbraid.form._place import where
from unbraid.graph import affine, disjoint, is_float, jointly_affine, mixing, name_of, shape_only


@dataclass(frozen=True)
class Finding:
    """All residual blocks in order of execution, and why the other additions are none."""

    blocks: tuple[Found, ...]
    refusals: tuple[Refusal, ...]


def find(flow: Dataflow) -> Finding:
    """Every residual addition of a graph, by its data flow alone.

    The rule: an addition of two tensors of one shape, of which one, the skip, reaches the fork by shape-only operations
    (identity) or, failing that, by affine ones and maxima (projection), and the other, a branch, is computed from the
    same fork and does something: mixes positions or features, or has parameters.
    """
    finder = _Finder(flow)
    for node in flow.graph.nodes:
        if name_of(node) == "add" and is_float(node):
            finder.visit(node)
    for add in crossing(flow, finder.blocks.values()):
        del finder.blocks[add]
        finder.refusals[add] = Refusal(where(add), "its skip and branch cross those of a block that begins earlier")
    return Finding(tuple(finder.blocks.values()), tuple(finder.refusals.values()))


class _Finder:
    def __init__(self, flow: Dataflow) -> None:
        self.flow = flow
        self.blocks: dict[fx.Node, Found] = {}
        self.sums: dict[fx.Node, tuple[fx.Node, fx.Node]] = {}
        self.refusals: dict[fx.Node, Refusal] = {}

    def visit(self, add: fx.Node) -> None:
        a, b = add.args[:2]
        if not isinstance(a, fx.Node) or not isinstance(b, fx.Node) or add not in self.flow.carries:
            return
        self.sums[add] = (a, b)
        if not (is_float(a) and is_float(b)):
            return
        if not same_shape(a, b):
            if a in self.flow.carries and b in self.flow.carries:
                self.refusals[add] = Refusal(
                    where(add), "its operands have different sizes: one is spread over the other"
                )
            return
        found = self._joined(add, a, b) or self._joined(add, b, a) or self._block(add, a, b)
        if isinstance(found, Found):
            self.blocks[add] = found
        elif a in self.flow.carries and b in self.flow.carries:
            self.refusals[add] = Refusal(where(add), found)

    def _joined(self, add: fx.Node, inner: fx.Node, other: fx.Node) -> Found | None:
        """(skip + f_1) + f_2 over one fork: one block with one branch more."""
        block = self.blocks.get(inner)
        if block is None or len(inner.users) > 1 or self._idle(block.fork, other, block.kind):
            return None
        del self.blocks[inner]
        return replace(block, add=add, branches=(*block.branches, *self._parts(block.fork, other, block.kind)))

    def _block(self, add: fx.Node, a: fx.Node, b: fx.Node) -> Found | str:
        for skip, branch in ((a, b), (b, a)):
            fork = self._fork(skip, branch, self._by_shape)
            if fork is not None:
                return self._checked(add, fork, skip, branch, "identity")
        reason = (
            "neither operand reaches, by shape-only or affine operations, a tensor from which the other is computed"
        )
        # A norm is next to affine: a skip may pass one, and yet beside a scaled skip it makes a branch of a pooling.
        for held, (skip, branch) in product((True, False), ((a, b), (b, a))):
            fork = self._fork(skip, branch, partial(self._by_affine, held=held))
            if fork is not None:
                found = self._checked(add, fork, skip, branch, "projection", held=held)
                if isinstance(found, Found):
                    return found
                reason = found
        return reason

    def _checked(
        self, add: fx.Node, fork: fx.Node, skip: fx.Node, branch: fx.Node, kind: Skip, *, held: bool = True
    ) -> Found | str:
        if reason := self._idle(fork, branch, kind, held=held):
            return reason
        if self._apart(fork, skip, branch):
            return "the operands are computed from disjoint parts of the tensor that they share"
        return Found(fork, add, skip, self._parts(fork, branch, kind), kind)

    def _idle(self, fork: fx.Node, branch: fx.Node, kind: Skip, *, held: bool = True) -> str | None:
        """Why what is added is no branch over this fork; None if it is one."""
        region = self.flow.region(fork, branch)
        if not region:
            return "the operands are not computed from one tensor"
        if branch not in self.flow.carries:
            return "one operand carries no data"
        if kind == "identity":
            if any(mixing(node) or self._has_parameters(node) for node in region):
                return None
            return "the other operand is a pointwise function of the first, without parameters"
        inside = {fork, *region}
        if all(jointly_affine(n, [d for d in self.flow.data(n) if d in inside], held=held) for n in region):
            return "both operands are affine, or maxima, in the tensor that they share: there is no branch"
        return None

    def _apart(self, fork: fx.Node, skip: fx.Node, branch: fx.Node) -> bool:
        """Whether skip and branch read different elements of the fork: a recurrence, say, or a coupling of halves."""
        begins, below = skip, {*self.flow.region(fork, branch)}
        while fork not in begins.all_input_nodes and begins is not fork:
            begins = next(n for n in begins.all_input_nodes if fork in self.flow.above(n, fork))
        readers = [node for node in fork.users if node in below]
        return begins is not fork and all(disjoint(begins, reader) for reader in readers)

    def _has_parameters(self, node: fx.Node) -> bool:
        return not self.flow.parametric.isdisjoint(node.all_input_nodes)

    def _parts(self, fork: fx.Node, branch: fx.Node, kind: Skip) -> tuple[fx.Node, ...]:
        """A branch that is itself a sum over the same fork, and no block of its own, is several branches."""
        if branch not in self.sums or branch in self.blocks or len(branch.users) > 1:
            return (branch,)
        parts = self.sums[branch]
        if any(self._idle(fork, part, kind) for part in parts):
            return (branch,)
        self.refusals.pop(branch, None)  # it is part of a block after all
        return tuple(leaf for part in parts for leaf in self._parts(fork, part, kind))

    def _fork(self, skip: fx.Node, branch: fx.Node, passed: Callable[[fx.Node], fx.Node | None]) -> fx.Node | None:
        """The first node, walking up the skip, from which the branch is computed too."""
        way, node = [skip], passed(skip)
        while node is not None:
            way.append(node)
            node = passed(node)
        above = self.flow.above(branch, way[-1]) - {branch}
        return next((node for node in way if node in above), None)

    def _by_shape(self, node: fx.Node) -> fx.Node | None:
        below = node.args[0] if node.op == "call_function" and shape_only(node) else None
        return below if isinstance(below, fx.Node) else None

    def _by_affine(self, node: fx.Node, *, held: bool) -> fx.Node | None:
        data = self.flow.data(node)
        return data[0] if node.op == "call_function" and len(data) == 1 and affine(node, data, held=held) else None
