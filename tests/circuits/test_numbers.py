"""Edges of networks so small that every number is found with a pencil."""

import math

import pytest
import torch
from torch import nn

import unbraid
from networks import F64, Chain, Residual, error

METHODS = ("exact", "attribution", "frozen")
NAN = math.nan


def diagonal(*factors: float) -> nn.Linear:
    """Multiplication by numbers, as a layer."""
    layer = nn.Linear(len(factors), len(factors), bias=False, dtype=F64)
    layer.weight.data = torch.tensor(factors, dtype=F64).diag()
    return layer


def row(*factors: float) -> nn.Linear:
    layer = nn.Linear(len(factors), 1, bias=False, dtype=F64)
    layer.weight.data = torch.tensor([factors], dtype=F64)
    return layer


class WithHead(nn.Module):
    """Residual blocks, and a layer that reads them."""

    def __init__(self, *branches: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.chain, self.head = Chain(*(Residual(branch) for branch in branches)), head

    def forward(self, x):
        return self.head(self.chain(x))


def study_of(model, x, corrupt=None, **options):
    return unbraid.edges(unbraid.trace(model, (x,)), x, corrupt, target=0, **options)


# h₁ = h + 2h, h₂ = h₁ + 3h₁, y = 5 h₂ of the first coordinate, from 1 to 2 and from 1 to −1: changes of 1 and −2.
#   input → 0: 2·1 in h₁, 4 times that in h₂, so 5·8 = 40     input → 1: 3·1, so 15     input → head: 5·1
#   0 → 1: what 0 writes changes by 2, so 3·2·5 = 30           0 → head: 2·5 = 10
#   1 → head: what 1 writes changes by 3·3 = 9, so 45          (5 + 10 + 45 = 60 = 5·12·1: all of y)
# A write that is counted twice makes 0 → head 20; a block that reads itself gives 0 → 0 a number.
TABLE = [[40.0, 15.0, 5.0], [NAN, 30.0, 10.0], [NAN, NAN, 45.0]]


@pytest.mark.parametrize("method", METHODS)
def test_a_chain_of_two(method):
    model = WithHead(diagonal(2, 1), diagonal(3, 1), head=row(5, 0))
    x, corrupt = torch.tensor([[1.0, 1.0], [1.0, 0.5]], dtype=F64), torch.tensor([[2.0, 1.0], [-1.0, 0.5]], dtype=F64)
    study = study_of(model, x, corrupt, method=method)
    table = torch.tensor(TABLE, dtype=F64)
    expected = torch.stack([table, -2 * table], -1)
    torch.testing.assert_close(study.per_example[:3], expected, rtol=1e-12, atol=1e-12, equal_nan=True)
    torch.testing.assert_close(study.effects[:3], -0.5 * table, rtol=1e-12, atol=1e-12, equal_nan=True)
    torch.testing.assert_close(study.target, torch.full((2,), 60.0, dtype=F64), rtol=1e-12, atol=0)
    assert len(study.writers) == 3
    assert study.readers == (*study.writers[1:], "head")


@pytest.mark.parametrize("method", METHODS)
def test_a_block_does_not_read_itself_nor_what_comes_after(method):
    model = WithHead(*(diagonal(1, 2) for _ in range(4)), head=row(1, 1))
    x = torch.ones(2, 2, dtype=F64)
    study = study_of(model, x, 2 * x, method=method)
    edge = torch.ones(5, 5).triu().bool()
    assert study.effects.shape == (5, 5)
    assert torch.equal(~study.effects.isnan(), edge)
    assert torch.equal(~study.per_example.isnan(), edge[..., None].expand(5, 5, 2))


@pytest.mark.parametrize("method", METHODS)
def test_clean_and_corrupt_exchanged_change_the_sign_where_all_is_linear(method):
    model = WithHead(diagonal(2, 1), diagonal(3, 1), head=row(5, 0))
    x = torch.tensor([[1.0, 1.0]], dtype=F64)
    there, back = (study_of(model, *pair, method=method) for pair in ((x, 3 * x), (3 * x, x)))
    edge = ~there.effects.isnan()
    assert error(back.effects[edge], -there.effects[edge]) < 1e-12
    assert there.effects[edge].min() > 0
    assert back.target.item() == pytest.approx(3 * there.target.item(), rel=1e-12)


@pytest.mark.parametrize("method", ["exact", "attribution"])
def test_the_slope_is_that_of_the_clean_input(method):
    """A block that squares: from 2 to 3 it writes 5 more; the head's square of h = 6 is left for that of 11.

    y = h₁², h₁ = x + x². Replaced at the head: input, (3 + 4)² − 36 = 13, and 2·6·1 = 12 at the clean input;
    the block, (2 + 9)² − 36 = 85, and 2·6·5 = 60. Read by the block: x = 3 gives the same 85, and 2·6·4·1 = 48.
    """

    class Square(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = diagonal(1, 1)

        def forward(self, x):
            return self.layer(x).pow(2)

    head = nn.Sequential(Square(), row(1, 0))
    x, corrupt = torch.tensor([[2.0, 1.0]], dtype=F64), torch.tensor([[3.0, 1.0]], dtype=F64)
    numbers = {"exact": [[85.0, 13.0], [NAN, 85.0]], "attribution": [[48.0, 12.0], [NAN, 60.0]]}[method]
    study = study_of(WithHead(Square(), head=head), x, corrupt, method=method)
    expected = torch.tensor(numbers, dtype=F64)
    torch.testing.assert_close(study.effects[:2], expected, rtol=1e-12, atol=1e-12, equal_nan=True)


def branching():
    """In coordinates: the input is read from 0 and 1, block 0 writes 2 and 3, block 1 reads 3 and writes 4.

    y = 2.5 x₁ + 2 c₂ + c₄, c₂ = c₃ = x₀, c₄ = c₃. Where the input falls from 1 to 0 in both coordinates, edges lose
    input → 0: 3, input → head: 2.5, 0 → head: 2, 0 → 1 and 1 → head: 1 each.
    """

    def reads(source: int, *targets: int) -> nn.Linear:
        layer = nn.Linear(5, 5, bias=False, dtype=F64)
        layer.weight.data.zero_()
        for place in targets:
            layer.weight.data[place, source] = 1
        return layer

    model = WithHead(reads(0, 2, 3), reads(3, 4), head=row(0, 2.5, 2, 0, 1))
    x = torch.tensor([[1.0, 1.0, 0, 0, 0]], dtype=F64)
    return study_of(model, x, torch.zeros_like(x), method="exact")


def test_a_circuit_has_the_strongest_edges_without_dead_ends():
    """Alone, input → 0 leads nowhere, and is left out until what reads block 0 comes in."""
    study = branching()
    first, second = study.writers[1:3]
    into, past, out = ("input", first), ("input", "head"), (first, "head")
    assert study.circuit(2).edges == (past,)
    assert study.circuit(3).edges == (into, past, out)
    whole = study.circuit(5).edges
    assert whole[:3] == (into, past, out)
    assert set(whole[3:]) == {(first, second), (second, "head")}


def test_a_share_takes_the_strongest_edges_first():
    """Of 9.5 in all, the three strongest are 7.5."""
    study = branching()
    assert study.circuit(share=0.78).edges == study.circuit(3).edges
    assert study.circuit(share=1.0).edges == study.circuit(5).edges
