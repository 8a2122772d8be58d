"""Every residual connection of a graph, by its data flow alone.

A *join* is a sum, flattened (`_flattened_sums`), or a concatenation (`rewrites._concatenations`). Each of its operands
is followed up the way that carries it (`_routes`): by movements alone (identity), by what is affine as well
(projection), or by products with data (gate, mix). It is a candidate for the skip where it meets a tensor, the *fork*,
from which other operands are computed (`_candidates`). Candidates are tried from the strongest to the weakest, and of
equals the one with the nearest fork first, so that what hangs together closely is a block of its own:

    x + (y + f(y)) = (x + f(y)) + y, y = g(x):     a block over y, inside the branch of a block over x

The first with which a branch is left makes a group (`_groups`), and the group a block (`rewrites._regroup`). What is
constant goes with a branch, as a bias does. The rest stays in the join, in which the block is now one operand, and so
on.

A block's node must hold the plain sum of its operands: where the model has no such node, the sum is written anew.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from torch import fx

from unbraid.capture.provenance import where
from unbraid.discover._block_nodes import BlockNodes
from unbraid.discover._branch_rules import APART, Judge
from unbraid.discover._candidates import is_like, tensor_of
from unbraid.discover._dataflow import Dataflow
from unbraid.discover._element_maps import Constant, no_constant
from unbraid.discover._flattened_sums import Join, Term, joins
from unbraid.discover._groups import Grouper
from unbraid.discover._nesting import nesting
from unbraid.discover._post_dominators import PostDominators
from unbraid.discover._recurrence import RECURRENT, recurrences
from unbraid.discover._routes import way_up, ways_up
from unbraid.discover._trunk_reached import trunk_way
from unbraid.discover.kinds import ALL
from unbraid.discover.rewrites._broadcast import spread_out
from unbraid.discover.rewrites._concatenations import as_one, concatenated, is_concatenation
from unbraid.discover.rewrites._fused import unfuse
from unbraid.discover.rewrites._gates import distribute, hold_gates
from unbraid.discover.rewrites._growing import grow
from unbraid.discover.rewrites._moves_aside import move_aside
from unbraid.discover.rewrites._partial_writes import Written
from unbraid.discover.rewrites._regroup import Group, Regrouping
from unbraid.discover.rewrites._stacks import lift_stacks
from unbraid.discover.rewrites._weighted_stacks import weigh
from unbraid.discover.rewrites._written_beside import write_beside
from unbraid.errors import Refusal
from unbraid.graph.questions import Carrier, is_float

OFFSET = "an offset or a reading: it begins or ends inside another block's branch, and is no trunk's sum"


@dataclass(frozen=True)
class SearchResult:
    """All residual blocks in order of execution, and why the other additions are none.

    Attributes:
        blocks: the blocks.
        refusals: the other additions of data, each with the reason.
        flow: the data flow of the graph with the sums that were written anew.
    """

    blocks: tuple[BlockNodes, ...]
    refusals: tuple[Refusal, ...]
    flow: Dataflow


def find(flow: Dataflow, constant: Constant = no_constant, skips: Collection[str] = ALL) -> SearchResult:
    """Find the blocks; sums that no node holds are written into the graph.

    Args:
        flow: the data flow of the graph.
        constant: the value of a placeholder that holds a constant, by its name; None for others.
        skips: the kinds of skip connections to look for.
    """
    if unfuse(flow):
        flow = Dataflow(flow.graph, flow.state, flow.learned)
    spread_out(flow)
    if move_aside(flow, constant):
        flow = _tidied(flow)
    if Written(flow, constant).run():
        flow = _tidied(flow)
    for rewrite, kinds in _REWRITES:
        if not kinds.isdisjoint(skips) and rewrite(flow):
            flow = _tidied(flow)
    finder = _Finder(flow, Judge(flow, constant), skips)
    sums = {join.head: join for join in joins(flow.graph)}
    for node in list(flow.graph.nodes):
        if node in sums and node in flow.carries:
            finder.visit(sums[node])
        elif "concatenation" in skips and is_concatenation(node) and node in flow.carries:
            finder.visit_concatenation(node)
    finder.visit_again()
    chains = [] if "recurrent" in skips else finder.recurrences()
    refusals, carried_on = finder.told(chains), {*chain.from_iterable(chains)}
    blocks = [block for block in finder.blocks.values() if block.add not in carried_on]
    blocks = [hold_gates(flow, block) if block.kind in ("gate", "mix") else block for block in blocks]
    flow = _tidied(flow)
    through = PostDominators(flow.graph)
    while offsets := nesting(flow, blocks, through).offsets:
        refusals += [Refusal(line, OFFSET) for line in _lines(finder, [blocks[number].add for number in offsets])]
        blocks = [block for number, block in enumerate(blocks) if number not in offsets]
    return SearchResult(tuple(blocks), tuple(refusals), flow)


# In this order, each where one of its kinds is looked for: a stack that grows is no weighted sum.
_REWRITES: tuple[tuple[Callable[[Dataflow], bool], frozenset[str]], ...] = (
    (distribute, frozenset({"gate"})),
    (write_beside, frozenset({"concatenation", "gate"})),
    (grow, frozenset({"concatenation"})),
    (weigh, frozenset({"gate", "projection"})),
    (lift_stacks, frozenset({"concatenation"})),
)


def _lines(finder: "_Finder", sums: Iterable[fx.Node]) -> Iterator[str]:
    """The additions of the model that make up some sums."""
    return chain.from_iterable(finder.lines[total] for total in sums)


def _tidied(flow: Dataflow) -> Dataflow:
    """The data flow of the graph without what nobody reads."""
    flow.graph.eliminate_dead_code(is_impure_node=lambda node: node.op in {"placeholder", "output"})
    return Dataflow(flow.graph, flow.state, flow.learned)


class _Finder:
    """Looks through the joins of a graph.

    Attributes:
        blocks: the blocks found, by their sums.
        lines: the additions of the model that make up each of these sums, as lines of its code.
        refused: the additions that are none, with the reason.
        forks: the tensor from which the operands of each sum come, block or none; known once all sums were visited.
    """

    def __init__(self, flow: Dataflow, judge: Judge, skips: Collection[str]) -> None:
        self.flow = flow
        self.judge = judge
        self.grouper = Grouper(flow, judge, skips)
        self.blocks = judge.blocks
        self.lines: dict[fx.Node, list[str]] = {}
        self.forks: dict[fx.Node, fx.Node] = {}
        self._apart: dict[Join, list[tuple[fx.Node, str]]] = {}
        self.refused: list[tuple[fx.Node, str]] = []

    def recurrences(self) -> list[list[fx.Node]]:
        """The sums that are steps of each recurrence: blocks, or sums that are none, as an affine scan's."""
        refused = {node: self.flow.data(node) for node, _ in self.refused}
        first = {node: min(data, key=self.flow.order.__getitem__) for node, data in refused.items() if data}
        blocks = {total: block.fork for total, block in self.blocks.items()}
        self.forks = first | blocks
        # One statement may add several parts of a tensor: a scan has three steps at least.
        scans = [chained for chained in recurrences(self.flow, first) if max(Counter(map(where, chained)).values()) > 2]
        # The first steps may be none, as they add to zeros.
        begun = [chained for chained in recurrences(self.flow, self.forks) if self._repeats_a_block(chained)]
        return recurrences(self.flow, blocks) + scans + begun

    def _repeats_a_block(self, chained: Sequence[fx.Node]) -> bool:
        """Whether some of a chain's sums are blocks, and the line of one of them adds others of it, too."""
        lines = Counter(map(where, chained))
        return any(total in self.blocks and lines[where(total)] > 1 for total in chained)

    def told(self, chains: Sequence[Sequence[fx.Node]]) -> list[Refusal]:
        """The refusals: of what a recurrence does at each of its steps one for each line, however many steps it has."""
        order, told, steps = self.flow.order, list[Refusal](), dict[fx.Node, int]()
        reasons: list[dict[str, list[str]]] = [{} for _ in chains]
        for number, chained in enumerate(chains):
            blocks = [total for total in chained if total in self.blocks]
            reasons[number] |= {line: [RECURRENT] for line in _lines(self, blocks)}
            begins, ends = order[self.forks[chained[0]]], order[chained[-1]]
            among = [n for n, _ in self.refused if begins <= order[n] <= ends] if blocks else chained
            steps |= dict.fromkeys(among, number)
        recurrent = {line for lines in reasons for line in lines}
        for node, reason in self.refused:
            if node in steps:
                reasons[steps[node]].setdefault(where(node), []).append(reason)
            elif where(node) not in recurrent:
                told.append(Refusal(where(node), reason))
        said = {line: Counter(why).most_common(1)[0][0] for lines in reasons for line, why in lines.items()}
        said |= dict.fromkeys(recurrent, RECURRENT)  # a first step may be another than the rest
        return [*told, *(Refusal(line, why) for line, why in said.items())]

    def visit(self, join: Join) -> None:
        closed = set[fx.Node]()
        for inner, terms in join.inner:
            if inner not in closed and self._stands_alone(inner, terms, join.terms, closed):
                self.visit(Join(inner, closed))
                closed.add(inner)
        self._regroup(Join(join.head, closed) if closed else join)

    def visit_concatenation(self, node: fx.Node) -> None:
        """Take a concatenation apart into blocks and what lies beside them."""
        total: fx.Node | None = None
        while total is not node:
            tensors = [tensor for tensor in concatenated(node)[0] if tensor in self.flow.carries and is_float(tensor)]
            terms = [Term(tensor, 1.0, frozenset((place,))) for place, tensor in enumerate(tensors)]
            group = self.grouper.of_concatenation(node, terms) if len(terms) > 1 else ""
            if not isinstance(group, Group):
                self.refused += [(node, group)] if group else []
                return
            skip, branches = tensor_of(group.skip), tuple(map(tensor_of, group.branches))
            total = as_one(self.flow, node, [skip, *branches])
            self.blocks[total] = BlockNodes(group.fork, total, skip, branches, group.kind, "concatenation")
            self.lines[total] = [where(node)]

    def visit_again(self) -> None:
        """Look once more at the sums of parts that have nothing in common, where blocks begin at these sums.

        A coupling of halves is none; but a network whose trunks are the halves of one tensor begins with such a sum.
        """
        for join in self._apart:
            if any(block.fork is join.head for block in self.blocks.values()):
                self.refused = [refused for refused in self.refused if refused not in self._apart[join]]
                self._regroup(join, apart=True)

    def _regroup(self, join: Join, *, apart: bool = False) -> None:
        """Take a join apart into blocks and what is left."""
        regrouping = Regrouping(self.flow, join)
        while True:
            group = self.grouper.of_sum(join, regrouping.terms, apart=apart)
            if not isinstance(group, Group):
                break
            lines = [where(node) for node in regrouping.meetings(group.operands)]
            block = regrouping.block(group)
            self.blocks[block.add], self.lines[block.add] = block, lines
        regrouping.finish()
        refused = [(node, group) for node in regrouping.meetings(regrouping.with_data)]
        self.refused += refused
        if group == APART and not apart:
            self._apart[join] = refused

    def _stands_alone(
        self, inner: fx.Node, terms: Sequence[Term], all_terms: Sequence[Term], closed: Collection[fx.Node]
    ) -> bool:
        """Whether a sum inside another is a block by itself, and what is added to it the state of another trunk."""
        places = frozenset[int]().union(*(term.places for term in terms))
        others = [
            t for t in all_terms if t.places.isdisjoint(places) and t.node in self.flow.carries and is_like(t, inner)
        ]
        own_tensors = [term for term in terms if term.node in self.flow.carries]
        moving = [t for t in others if trunk_way(self.flow, self.blocks, tensor_of(t), Carrier.SCALED).carried]
        # x + (t·f − t·x) holds x once more, gated: one join.
        again = any(self.judge.gated(tensor_of(t), tensor_of(t), tensor_of(own)) for t in moving for own in own_tensors)
        if not moving or again:
            return False
        inside = Join(inner, closed)
        group = self.grouper.of_sum(inside, inside.terms)
        if not isinstance(group, Group):
            return False
        # M(x)·x + y + D·x carries x twice, and by D the stronger: of a whole join the strongest operand is the skip.
        carried = {step.node for way in ways_up(self.flow, tensor_of(group.skip), held=True) for step in way}
        apart = [t for t in moving if carried.isdisjoint(s.node for s in way_up(self.flow, tensor_of(t), held=True))]
        return any(self.judge.merges(group.fork, tensor_of(t), group.kind) for t in apart)
