"""Which modules of a model have nothing left to do once branches are gone.

What a module works for is read from the graph: operators that vanish in `form.without` are compared with those left, by
the module that called them. A member of a list can go when it makes the deleted addition and has no work left. What
this proposes the check of `_surgery_attempts` decides on, not the class's name.

A *path* is a module's name as a tuple: ("layers", "0", "attn").
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import TypeAlias

from torch import Tensor, fx, nn

from unbraid.capture.provenance import scope
from unbraid.form import ResidualForm
from unbraid.graph import Segment
from unbraid.graph.questions import shape_only

Path: TypeAlias = tuple[str, ...]

LISTS = (nn.ModuleList, nn.ModuleDict, nn.Sequential)


@dataclass(frozen=True, eq=False)
class Work:
    """Where the operators of a model are called: those that go with the deleted branches, and all others.

    Attributes:
        gone: the modules that call the operators of the deleted branches.
        left: the modules that call any other operator, in order of execution; views of data do not count.
        homes: for each addition that lost all its branches the module that makes it.
        resized: those of these modules in which the skip changes the shape.
    """

    gone: tuple[Path, ...]
    left: tuple[Path, ...]
    homes: tuple[Path, ...]
    resized: tuple[Path, ...]

    def idle(self, path: Path) -> bool:
        """Whether a module worked for the deleted branches and for nothing else."""
        return path in self._around_gone and path not in self._around_left

    def adds(self, path: Path) -> bool:
        """Whether a deleted addition is made inside a module: what it returns is then more than a branch."""
        return any(home[: len(path)] == path for home in self.homes)

    def own(self, path: Path) -> bool:
        """Whether a module has operators left that it calls itself, in no module of its own."""
        return path in self.left

    def first(self, path: Path) -> int | None:
        """When a module first does what is left of its work; None where nothing is left."""
        return next((place for place, home in enumerate(self.left) if home[: len(path)] == path), None)

    @cached_property
    def _around_gone(self) -> frozenset[Path]:
        return _around(self.gone)

    @cached_property
    def _around_left(self) -> frozenset[Path]:
        return _around(self.left)


def work(form: ResidualForm, without: ResidualForm) -> Work:
    """Compare a form with the same form without some branches.

    Args:
        form: the form of the whole model.
        without: the same with branches deleted.
    """
    before = {add.block: add.branches for add in form.adds}
    after = {add.block: add.branches for add in without.adds}
    # Blocks inside a deleted branch are gone altogether: they are no longer among the additions.
    poorer = {block for block in before if before[block] != after.get(block)}
    kept = {segment.id for segment in without.segments}
    mine = {s.id for s in form.segments if s.id not in kept and s.block in poorer}
    bare = [add for add in without.adds if add.block in poorer and not any(add.branches)]
    where = dict.fromkeys(before, ()) | homes(form)
    gone, left = [], []
    for segment in form.segments:
        if segment.id in mine:
            gone += [_home(node) for node in _operators(segment)]
        else:
            left += [
                _home(node) for node in _operators(segment) if not shape_only(node) or _of_parameter(node, segment)
            ]
    return Work(
        gone=tuple(gone),
        left=tuple(left),
        homes=tuple(where[add.block] for add in bare),
        resized=tuple(
            where[add.block] for add in bare if form.streams[add.fork].shape != form.streams[add.output].shape
        ),
    )


def homes(form: ResidualForm) -> dict[int, Path]:
    """For each block the module that makes its addition."""
    nodes = {node.name: node for node in form.origin.graph.nodes} if form.origin is not None else {}
    return {add.block: _home(nodes[add.output]) for add in form.adds if add.output in nodes}


def members(model: nn.Module) -> list[tuple[Path, Path]]:
    """Every member of a ModuleList, ModuleDict or Sequential after its list: the paths of both, outer ones first."""
    lists = [(path_of(name), module) for name, module in model.named_modules() if isinstance(module, LISTS)]
    pairs: list[tuple[Path, Path]] = []
    for path, module in lists:
        pairs += [(path, (*path, key)) for key, _ in module.named_children()]
    return sorted(pairs, key=lambda pair: len(pair[1]))


def path_of(name: str) -> Path:
    """The steps of a module's name."""
    return tuple(part for part in name.split(".") if part)


def _operators(segment: Segment) -> Iterator[fx.Node]:
    """The operators of a segment that make tensors; sizes are read wherever it is handy."""
    if isinstance(segment.code, fx.GraphModule):
        for node in segment.code.graph.nodes:
            values = node.meta.get("val")
            results = values if isinstance(values, list | tuple) else (values,)
            if node.op == "call_function" and any(isinstance(value, Tensor) for value in results):
                yield node


def _of_parameter(node: fx.Node, segment: Segment) -> bool:
    """Whether an operator reads a parameter: the view of one that a module hands out is that module's work."""
    placeholders = [n for n in node.graph.nodes if n.op == "placeholder"][len(segment.inputs) :]
    return not set(placeholders).isdisjoint(node.all_input_nodes)


def _home(node: fx.Node) -> Path:
    """The module that calls an operator; "@1" marks a module's second call."""
    return tuple(part.split("@")[0] for part in scope(node))


def _around(homes: Iterable[Path]) -> frozenset[Path]:
    """The modules that hold any of these, themselves included."""
    return frozenset(chain.from_iterable(map(beginnings, set(homes))))


def beginnings(path: Path) -> list[Path]:
    """A path and the paths of all modules around it, the whole model's first."""
    return [path[:length] for length in range(len(path) + 1)]
