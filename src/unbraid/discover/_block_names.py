"""How blocks and their branches are called: by the modules of the model that make them.

    x = x + self.attn(x)                                  in a module "layers.0"
    x = x + self.fc2(gelu(self.fc1(x)))

Both sums stand in layers.0, which therefore names neither. The first block is called by the module whose result is
added, "layers.0.attn"; so is the second, by the last of its two: "layers.0.fc2". But a module that holds a block's sum
and what makes its branch, and no other block besides those inside, is the block: "layer1.0" of a ResNet. Where code
works with bare parameters, their names stand for modules; where it has none, an operator's does. What then still
has one name is one module called several times, and its calls end in "@1", "@2", ...
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest

from torch import fx

from unbraid.capture.provenance import Path, common, printable, scope, scopes
from unbraid.discover._block_nodes import BlockNodes
from unbraid.discover._dataflow import Dataflow
from unbraid.graph import BranchIndex
from unbraid.graph.questions import mixing, name_of

__all__ = ["Names"]


@dataclass(frozen=True)
class _Maker:
    """What makes one branch.

    Attributes:
        weights: the innermost module that ran all of its weights.
        last: the modules that ran the last of them, outermost first.
        further: that weight's own path, where it says more.
        instead: an operator, where there is neither module nor weight.
    """

    weights: Path
    last: tuple[Path, ...]
    further: tuple[Path, ...]
    instead: str


@dataclass(frozen=True, eq=False)
class Names:
    """The names of blocks and branches.

    Attributes:
        flow: the data flow of the graph.
        blocks: the blocks.
        parents: for each nested block the block and the branch that hold it.
        regions: the nodes of each (block, operand).
    """

    flow: Dataflow
    blocks: tuple[BlockNodes, ...]
    parents: Mapping[int, BranchIndex]
    regions: Mapping[BranchIndex, Sequence[fx.Node]]

    def all(self) -> list[tuple[str, tuple[str, ...]]]:
        """For each block its name, which no other block has, and those of its branches, which differ."""
        branches = [self._printable_branches(number) for number in range(len(self.blocks))]
        running = sorted(range(len(self.blocks)), key=lambda number: self.flow.order[self.blocks[number].add])
        names = told_apart([self._of_block(number, branches[number]) for number in running])
        own = dict(zip(running, names, strict=True))
        return [(own[number], self._together(own[number], choices)) for number, choices in enumerate(branches)]

    def _printable_branches(self, number: int) -> list[list[str]]:
        """The names that each branch of a block may have, best first."""
        return [list(map(printable, names)) for names in self._of_branches(number)]

    @staticmethod
    def _together(block: str, branches: list[list[str]]) -> tuple[str, ...]:
        """The names of a block's branches; an only one that could have the block's name has it."""
        if len(branches) == 1 and _once(block) in branches[0]:
            return (block,)
        return tuple(told_apart(branches))

    def _of_block(self, number: int, branches: list[list[str]]) -> list[str]:
        """What a block may be called, the shortest first."""
        if self._is_module(number):
            return [printable(".".join(self._around[number]))]
        if len(branches) == 1:
            return branches[0]
        paths = [tuple(choices[0].split(".")) for choices in branches]
        begin = common(paths)
        ends = dict.fromkeys(".".join(path[len(begin) :]) for path in paths)
        return [".".join((*begin, "+".join(filter(None, ends))))]

    def _of_branches(self, number: int) -> list[list[str]]:
        """What each branch of a block may be called, the shortest first."""
        around, makers = self._around[number], self._makers[number]
        whole = len(makers) == 1 and makers[0].weights == around[: len(makers[0].weights)]
        if whole and self._is_module(number):
            return [[".".join(around)]]
        choices = []
        for maker in makers:
            below = [".".join(path) for path in (*maker.last, *maker.further) if len(path) > len(around)]
            choices.append(below or [".".join((*around, maker.instead))])
        return choices

    def _is_module(self, number: int) -> bool:
        """Whether the module around a block holds no other block, besides those inside and its own further calls."""
        around, inside = self._around[number], self._inside(number)
        return bool(around) and all(
            other in inside or home[: len(around)] != around or self._again(number, other)
            for other, home in enumerate(self._homes)
        )

    def _again(self, number: int, other: int) -> bool:
        """Whether another block is the same at another call: made by the same modules, and added in the same one."""
        return (self._homes[number], self._makers[number]) == (self._homes[other], self._makers[other])

    def _inside(self, number: int) -> set[int]:
        """A block and those nested in it, at any depth."""
        inside, waiting = {number}, [number]
        while waiting:
            outer = waiting.pop()
            inner = [block for block, (parent, _) in self.parents.items() if parent == outer]
            inside.update(inner)
            waiting += inner
        return inside

    @cached_property
    def _homes(self) -> list[Path]:
        """For each block the module in which its sum stands."""
        return [scope(block.add) for block in self.blocks]

    @cached_property
    def _around(self) -> list[Path]:
        """For each block the innermost module that ran its sum and what makes its branches."""
        around = []
        for home, makers in zip(self._homes, self._makers, strict=True):
            last = [maker.last[-1] for maker in makers if maker.last]
            around.append(common([home, *last]))
        return around

    @cached_property
    def _makers(self) -> list[tuple[_Maker, ...]]:
        makers = []
        for number, block in enumerate(self.blocks):
            regions = [self.regions[number, j] or [branch] for j, branch in enumerate(block.branches)]
            makers.append(tuple(map(self._maker, regions)))
        return makers

    def _maker(self, nodes: Sequence[fx.Node]) -> _Maker:
        """By the nodes with matrices of weights, not by the norm before them; or by those that mix; or by the last."""
        heavy = [node for node in nodes if self.flow.weighs(node)]
        heavy = heavy or [node for node in nodes if mixing(node)] or [*nodes[-1:]]
        last = heavy[-1]
        weight = self._weight(last)
        modules = tuple(scopes(last))
        more = (weight,) if weight is not None and weight not in modules else ()
        return _Maker(common([scope(node) for node in heavy]), modules, more, name_of(last))

    def _weight(self, node: fx.Node) -> Path | None:
        """The path of the weight that a node reads; of "fc.weight" that of its module, "fc"."""
        waiting = [a for a in node.all_input_nodes if a in self.flow.parametric]
        while waiting:
            weight = waiting.pop(0)
            if weight.op == "placeholder":
                path = tuple(self.flow.state[weight.name].split("."))
                return path[:-1] if path[-1] == "weight" and len(path) > 1 else path
            waiting += [a for a in weight.all_input_nodes if a in self.flow.parametric]
        return None


def _once(name: str) -> str:
    """The name without the mark of a further call."""
    return re.sub(r"@\d+$", "", name)


def told_apart(choices: Sequence[Sequence[str]]) -> list[str]:
    """One name for each: the shortest that will do, or a longer one that tells apart; calls of one are numbered."""
    alike = defaultdict(list)
    for number, names in enumerate(choices):
        alike[names[0]].append(number)
    chosen = [names[0] for names in choices]
    for numbers in alike.values():
        levels = zip_longest(*(choices[number] for number in numbers))
        for level in levels if len(numbers) > 1 else ():
            names = [name or choices[number][-1] for name, number in zip(level, numbers, strict=True)]
            if len(set(names)) == len(names):
                for number, name in zip(numbers, names, strict=True):
                    chosen[number] = name
                break
    return _numbered(chosen)


def _numbered(names: Sequence[str]) -> list[str]:
    """The names, those that several have with the number of the call behind them, from 1: a shared layer, run again."""
    times, taken, called = Counter(names), set(names), Counter[str]()
    numbered = list[str]()
    for name in names:
        if times[name] > 1:
            called[name] += 1
            while f"{name}@{called[name]}" in taken:
                called[name] += 1
            numbered.append(f"{name}@{called[name]}")
        else:
            numbered.append(name)
    return numbered
