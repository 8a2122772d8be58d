"""A set of edges, each of which lies on a way from the input to the head."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unbraid.discover.wiring import CONSTANTS, HEAD, INPUT

Edge = tuple[str, str]


@dataclass(frozen=True)
class Circuit:
    """A set of edges of a model.

    Attributes:
        edges: (writer, reader) by name, the strongest first.
        of: how many edges the model has.
        by: whether writers and readers are blocks, branches or attention heads.
        nested: whether blocks inside branches write and read in the place of those around them.
    """

    edges: tuple[Edge, ...]
    of: int
    by: str = "block"
    nested: bool = False

    def __len__(self) -> int:
        return len(self.edges)

    def __contains__(self, edge: object) -> bool:
        return edge in self.edges

    @property
    def share(self) -> float:
        """The share of the model's edges that are in it."""
        return len(self) / self.of

    def __str__(self) -> str:
        lines = [f"{writer} → {reader}" for writer, reader in self.edges]
        return "\n".join([f"{len(self)} of {self.of} edges", *lines])


def strongest(
    writers: Sequence[str], readers: Sequence[str], effects: Tensor, n: int | None, share: float | None
) -> tuple[tuple[Edge, ...], int]:
    """The edges of the largest |effect|, without dead ends, and how many there are; see `EdgeStudy.circuit`."""
    if (n is None) == (share is None):
        raise ValueError("circuit: give a number of edges, circuit(20), or a share of all effects, circuit(share=0.9).")
    there = [(i, j) for i, j in (~effects.isnan()).nonzero().tolist() if writers[i] != CONSTANTS]
    sizes = torch.stack([effects[i, j].abs() for i, j in there])
    order = sizes.argsort(descending=True, stable=True).tolist()
    if share is not None:
        if not 0 < share <= 1:
            raise ValueError(f"circuit: share lies above 0 and is at most 1; {share} came.")
        reached = sizes[order].cumsum(0) >= share * sizes.sum() * (1 - 1e-12)
        n = int(reached.int().argmax()) + 1
    assert n is not None, "one of both is given"
    if not 1 <= n <= len(there):
        raise ValueError(f"circuit: there are {len(there)} edges, of which 1 to {len(there)} can be taken; {n} came.")
    edges = [(writers[i], readers[j]) for i, j in (there[place] for place in order[:n])]
    given = [INPUT, *(writer for writer in writers if writer not in readers)]
    return tuple(without_dead_ends(edges, given)), len(there)


def without_dead_ends(edges: Iterable[Edge], given: Iterable[str] = (INPUT,)) -> list[Edge]:
    """The edges that lie on a way from the input, or another writer that reads nothing, to the head."""
    given = set(given)
    edges = list(edges)
    while True:
        fed = given | {reader for _, reader in edges}
        heard = {HEAD} | {writer for writer, _ in edges}
        left = [(writer, reader) for writer, reader in edges if writer in fed and reader in heard]
        if len(left) == len(edges):
            return left
        edges = left
