"""Where the tensors of a run come from, and where they go: what tells which additions a form must speak of.

An addition need not be counted or refused where

- nothing comes of it: no output is computed from its sum (a pooled output that the caller leaves);
- its operands are *held*: all but one come of whole numbers, as a mask or an angle of a position does, or all are
  looked up by them, as embeddings of tokens and of positions are;
- it is *part* of another sum, which alone reads it: sums of sums are one join, and a form speaks of it at the last.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._pytree import tree_leaves

# What a tensor comes of: a stream of numbers, what the caller's own whole numbers look up in learned tables, or whole
# numbers alone (the time of a diffusion model is one, whatever network reads it; positions counted from ids are).
_STREAM, _LOOKED_UP, _WHOLE = 2, 1, 0
_LOOKUPS = frozenset({"embedding", "_embedding_bag", "index_select", "index", "gather"})
_MIXES = frozenset({"mm", "bmm", "addmm", "baddbmm", "matmul", "linear", "convolution", "_addmm_activation"})
_HANDS_ON = frozenset(
    "view _unsafe_view reshape expand permute transpose t squeeze unsqueeze slice select split split_with_sizes alias "
    "clone _to_copy mul div detach dropout native_dropout contiguous index index_select flatten unbind".split()
)


@dataclass(frozen=True, order=True)
class Place:
    """An expression in the model's own source.

    Attributes:
        file: from its package on: "timm/layers/mlp.py".
        function: the function that it stands in: "Mlp.forward".
        text: the expression, in one line.
        line: its number, for people: versions move it.
    """

    file: str
    function: str
    text: str
    line: int

    @property
    def where(self) -> str:
        """As a form writes it: "mlp.py:31"."""
        return f"{self.file.rsplit('/', 1)[-1]}:{self.line}"


@dataclass(frozen=True)
class Ran:
    """An operator that ran and read data.

    Attributes:
        name: of the operator.
        reads: the storages of data that it read.
        writes: those that it wrote.
        place: where it adds tensors of data; None where it does not.
        times: how many additions it makes.
        held: whether its operands come of whole numbers, see above.
    """

    name: str
    reads: frozenset[StorageWeakRef]
    writes: frozenset[StorageWeakRef]
    place: Place | None
    times: int
    held: bool


class Origins:
    """What each tensor of a run comes of."""

    def __init__(self) -> None:
        self._from: dict[StorageWeakRef, int] = {}
        self._learned: set[StorageWeakRef] = set()
        self._own: set[StorageWeakRef] = set()  # whole numbers that are the caller's own, moved or hashed

    def begin(self, inputs: Any) -> None:
        """The inputs: streams where they are floats."""
        for leaf in tree_leaves(inputs):
            if isinstance(leaf, Tensor):
                self._from.update(dict.fromkeys(storages(leaf), _STREAM if _float(leaf) else _WHOLE))
                self._own.update(storages(leaf) if _counts(leaf) else ())

    def meet(self, named: dict[str, Any]) -> None:
        """Note the parameters that any operator reads: their transposes are no parameters any more."""
        parameters = [leaf for leaf in tree_leaves(list(named.values())) if isinstance(leaf, nn.Parameter)]
        self._learned.update(storages(parameters))

    def hand_on(self, name: str, named: dict[str, Any], read: Any, written: Any) -> None:
        """What an operator writes comes of what it reads."""
        others = set(storages(list(named.values()))) - set(storages(read))
        learned = not self._learned.isdisjoint(others)
        level = self.level(read)
        own = any(ref in self._own for ref in storages(read))
        if learned and name in _LOOKUPS and own:
            level = max(level, _LOOKED_UP)
        elif learned and name in _MIXES and level == _LOOKED_UP:
            level = _STREAM
        for ref in storages(written):
            self._from[ref] = max(level, self._from.get(ref, _WHOLE))
        if own:
            self._own.update(storages([leaf for leaf in tree_leaves(written) if _counts(leaf)]))

    def level(self, value: Any) -> int:
        """What tensors come of: the most of it."""
        floats = [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor) and _float(leaf)]
        return max((self._from.get(ref, _WHOLE) for ref in storages(floats)), default=_WHOLE)

    def held(self, operands: Sequence[Any]) -> bool:
        """Whether all operands of a sum but one come of whole numbers, or none is a stream."""
        levels = [self.level(operand) for operand in operands]
        return bool(levels) and (max(levels) < _STREAM or sum(level > _WHOLE for level in levels) <= 1)


def to_be_told(log: Sequence[Ran], outputs: Any) -> Counter[Place]:
    """The additions that a form must count or refuse, and how often each ran."""
    told: Counter[Place] = Counter()
    for ran in _live(log, outputs):
        if ran.place is not None and not ran.held:
            told[ran.place] += ran.times
    return told


def parts(log: Sequence[Ran], outputs: Any) -> dict[str, set[str]]:
    """The lines whose sums other sums alone read, moved or scaled on the way at most, with the lines of these."""
    larger: defaultdict[str, set[str]] = defaultdict(set)
    read_otherwise: set[str] = set()
    carried: dict[StorageWeakRef, set[str]] = {}
    for ran in log:
        lines = set[str]().union(*(carried.get(ref, ()) for ref in ran.reads))
        handed_on = ran.place is None and ran.name in _HANDS_ON
        if ran.place is not None:
            for line in lines:
                larger[line].add(ran.place.where)
        elif not handed_on:
            read_otherwise |= lines
        own = lines if handed_on else {ran.place.where} if ran.place is not None else set()
        carried.update(dict.fromkeys(ran.writes, own))
    read_otherwise.update(*(carried.get(ref, ()) for ref in storages(outputs)))
    return {line: into - {line} for line, into in larger.items() if line not in read_otherwise}


def _live(log: Sequence[Ran], outputs: Any) -> Iterator[Ran]:
    """The operators of which an output is computed, last first."""
    live = set(storages(outputs))
    for ran in reversed(log):
        if not live.isdisjoint(ran.writes):
            live |= ran.reads
            yield ran


def storages(value: Any) -> Iterator[StorageWeakRef]:
    """The storages of all tensors in a nesting."""
    for leaf in _tensors(value):
        yield StorageWeakRef(leaf.untyped_storage())


def _tensors(value: Any) -> Iterable[Tensor]:
    return (leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor) and str(leaf.layout) == "torch.strided")


def _counts(leaf: Any) -> bool:
    """Whether these are whole numbers: of what a comparison gives, positions say, none are the caller's own."""
    return isinstance(leaf, Tensor) and not _float(leaf) and leaf.dtype != torch.bool


def _float(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()
