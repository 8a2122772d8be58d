"""Networks whose circuits are known, as their weights were set by hand: who reads what whom wrote.

Each block reads some coordinates of the stream and writes others; an edge is there if the reader's coordinates are
among the writer's and what the reader writes leads, over such edges, to the output. All other effects are exactly zero.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from networks import F64, Chain, Residual, normal
from patching import Program, chain_program

Edge = tuple[int | str, int | str]  # of "input" or a block, to a block or "head"


class Unit(nn.Module):
    """One hidden unit: writes · ReLU(Σ reads · h + bias); the weights of all other coordinates are zero."""

    def __init__(self, width: int, reads: Mapping[int, float], writes: Mapping[int, float], bias: float = 0.0) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(width, 1, dtype=F64), nn.Linear(1, width, bias=False, dtype=F64)
        self.into.weight.data = torch.tensor([[reads.get(k, 0.0) for k in range(width)]], dtype=F64)
        self.into.bias.data = torch.tensor([bias], dtype=F64)
        self.out.weight.data = torch.tensor([[writes.get(k, 0.0)] for k in range(width)], dtype=F64)

    def forward(self, h: Tensor) -> Tensor:
        return self.out(self.into(h).relu())


class Head(nn.Module):
    """A head of attention with one matrix for each of its jobs; a position looks at itself and those before."""

    def __init__(self, queries: Tensor, keys: Tensor, moves: Tensor) -> None:
        super().__init__()
        self.queries, self.keys, self.moves = (nn.Parameter(w) for w in (queries, keys, moves))

    def forward(self, h: Tensor) -> Tensor:
        scores = (h @ self.queries) @ (h @ self.keys).mT
        later = torch.ones(h.shape[1], h.shape[1], dtype=torch.bool).triu(1)
        return scores.masked_fill(later, -torch.inf).softmax(-1) @ (h @ self.moves)


class Wired(nn.Module):
    """Residual blocks and a head that reads some coordinates."""

    def __init__(self, branches: list[nn.Module], head: nn.Module) -> None:
        super().__init__()
        self.chain, self.head = Chain(*(Residual(branch) for branch in branches)), head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.chain(x))

    def program(self) -> Program:
        branches = [block.branch for block in self.chain.blocks]
        return chain_program(branches, [nn.Identity() for _ in branches], self.head)


@dataclass(frozen=True)
class Known:
    """A network, two inputs, what to explain, and the edges that there are."""

    model: Wired
    clean: Tensor
    corrupt: Tensor
    target: Callable[[Tensor], Tensor]
    edges: frozenset[Edge]


def reading(width: int, *coordinates: int) -> nn.Linear:
    """A head that adds some coordinates up."""
    layer = nn.Linear(width, 1, dtype=F64)
    layer.weight.data = torch.tensor([[1.0 if k in coordinates else 0.0 for k in range(width)]], dtype=F64)
    layer.bias.data.zero_()
    return layer


def of_units(units: list[Unit], head: nn.Linear, edges: set[Edge]) -> Known:
    """Two features in coordinates 0 and 1, positive so that every ReLU is open; all other coordinates are free."""
    width = head.in_features
    inputs = torch.zeros(2, 3, width, dtype=F64)
    inputs[..., :2] = 1 + normal(2, 3, 2, seed=7).abs()
    return Known(Wired(list(units), head), inputs[0], inputs[1], lambda output: output[:, 0], frozenset(edges))


def relay() -> Known:
    """Block 0 writes feature A, block 2 reads it; block 1 writes feature B, which nobody reads."""
    units = [Unit(5, {0: 1}, {2: 1.5}), Unit(5, {1: 1}, {4: 3}), Unit(5, {2: 1}, {3: 0.5}, bias=0.1)]
    return of_units(units, reading(5, 3), {("input", 0), (0, 2), (2, "head")})


def sum_of_two() -> Known:
    """Block 2 reads what blocks 0 and 1 wrote; block 3 reads block 2 and is not read."""
    units = [
        Unit(6, {0: 1}, {2: 1}),
        Unit(6, {1: 2}, {3: 1}),
        Unit(6, {2: 1, 3: 0.5}, {4: 1}, bias=-0.2),
        Unit(6, {4: 1}, {5: 1}),
    ]
    return of_units(units, reading(6, 4), {("input", 0), ("input", 1), (0, 2), (1, 2), (2, "head")})


def chain_of_three() -> Known:
    """Blocks 0, 2 and 4, with a decoy after each: of the input, of block 0, and of everything."""
    units = [
        Unit(8, {0: 1}, {2: 1}),
        Unit(8, {0: 2, 1: 2}, {5: 1}),
        Unit(8, {2: 1}, {3: 2}),
        Unit(8, {2: 3}, {6: 1}),
        Unit(8, {3: 1}, {4: 1}, bias=0.3),
        Unit(8, dict.fromkeys(range(7), 1.0), {7: 4}),
    ]
    return of_units(units, reading(8, 4), {("input", 0), (0, 2), (2, 4), (4, "head")})


def correction() -> Known:
    """Block 1 takes back 0.4 of what block 0 wrote: the head reads both."""
    units = [Unit(3, {0: 1}, {2: 2}), Unit(3, {2: 1}, {2: -0.4})]
    return of_units(units, reading(3, 2), {("input", 0), (0, 1), (0, "head"), (1, "head")})


TOKENS, LENGTH = 4, 6
TOKEN, PLACE, BEFORE, OUT, SCRATCH = 0, 4, 10, 14, 18  # where each kind of coordinate begins
WIDE = 19


def moved(size: int, source: int, to: int, factor: float = 1.0, shift: int = 0) -> Tensor:
    """A matrix that takes coordinate source + k to coordinate to + k + shift."""
    matrix = torch.zeros(WIDE, WIDE, dtype=F64)
    for k in range(size - shift):
        matrix[source + k, to + k + shift] = factor
    return matrix


def one_hot(tokens: Tensor) -> Tensor:
    """Tokens and places as coordinates, all others empty."""
    h = torch.zeros(*tokens.shape, WIDE, dtype=F64)
    h[..., TOKEN : TOKEN + TOKENS] = nn.functional.one_hot(tokens, TOKENS)
    h[..., PLACE : PLACE + LENGTH] = torch.eye(LENGTH, dtype=F64)
    return h


def induction() -> Known:
    """Block 0 notes at each place the token before; block 2 finds where its own token was, one before, and copies.

    Block 1 writes where nobody reads, block 3 reads block 2 and writes there, too.
    """
    previous = Head(moved(LENGTH, PLACE, PLACE, 6), moved(LENGTH, PLACE, PLACE, shift=1), moved(TOKENS, TOKEN, BEFORE))
    copies = Head(moved(TOKENS, TOKEN, BEFORE, 4), moved(TOKENS, BEFORE, BEFORE), moved(TOKENS, TOKEN, OUT))
    branches = [
        previous,
        Unit(WIDE, {TOKEN: 1}, {SCRATCH: 1}, bias=1),
        copies,
        Unit(WIDE, {OUT: 1}, {SCRATCH: 1}, bias=1),
    ]
    head = nn.Linear(WIDE, TOKENS, bias=False, dtype=F64)
    head.weight.data = moved(TOKENS, OUT, 0)[:, :TOKENS].mT.contiguous()
    clean = torch.tensor([[2, 3, 1, 0, 2, 3], [1, 0, 2, 3, 1, 0]])  # the last token was followed by 1, and by 2
    corrupt = torch.tensor([[1, 2, 0, 3, 0, 2], [3, 1, 3, 0, 2, 1]])
    answers = torch.tensor([1, 2])
    edges = {("input", 0), ("input", 2), (0, 2), (2, "head")}
    return Known(
        Wired(branches, head),
        one_hot(clean),
        one_hot(corrupt),
        lambda logits: logits[torch.arange(2), -1, answers],
        frozenset(edges),
    )


KNOWN = {
    "relay": relay,
    "sum of two": sum_of_two,
    "chain of three": chain_of_three,
    "correction": correction,
    "induction": induction,
}


def auroc(scores: Tensor, truth: Tensor) -> float:
    """How often a true edge scores above one that is none; ties count half."""
    above, below = scores[truth][:, None], scores[~truth][None, :]
    return ((above > below).double() + 0.5 * (above == below).double()).mean().item()
