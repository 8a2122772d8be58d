"""What each algebra of the walk does by itself: types of numbers, chunks, rows told apart. Mutants showed the holes."""

from dataclasses import replace

import pytest
import torch

from handmade import parallel
from networks import normal
from unbraid.graph import Add
from unbraid.walk import Chosen, Lengths, Masks, Polynomials, Tape, ThroughBlocks, record, walk
from unbraid.walk._path_stacks import distinct

NARROW = {-1: torch.float64, 0: torch.float32, 1: torch.bfloat16}


@pytest.fixture(scope="module")
def example():
    return parallel()


def algebras(example, graph, tape, chunk=None):
    columns = {block: column for column, block in enumerate(sorted(example.weights))}
    masks = torch.zeros((1, len(columns)), dtype=torch.int16)
    lengths = Lengths(example.weights)
    return {
        "polynomials": Polynomials(graph, tape, lengths, chunk=chunk),
        "masks": Masks(graph, tape, columns),
        "marks": ThroughBlocks(graph, tape, lengths, chunk=chunk),
        "chosen": Chosen(graph, tape, columns, masks, chunk=chunk),
    }


@pytest.mark.parametrize("name", ["polynomials", "masks", "marks", "chosen"])
@pytest.mark.parametrize("operand", NARROW)
def test_what_enters_an_operand_has_its_type(example, name, operand):
    add = next(step for step in example.graph.steps if isinstance(step, Add) and len(step.branches) == 2)
    streams = dict(example.graph.streams)
    for number, stream in add.operands:
        streams[stream] = replace(streams[stream], dtype=NARROW[number])
    graph = replace(example.graph, streams=streams)
    algebra = algebras(example, graph, record(example.graph, example.state, example.inputs))[name]
    entered = algebra.enter(add, operand, algebra.seed(normal(*example.output().shape)))
    assert entered.stack.dtype == NARROW[operand]


@pytest.mark.parametrize("name", ["polynomials", "marks", "chosen"])
def test_a_chunk_is_handed_on(example, name, monkeypatch):
    tape, asked, pull = record(example.graph, example.state, example.inputs), set(), Tape.pull

    def watched(self, segment, stacks, chunk=None):
        asked.add(chunk)
        return pull(self, segment, stacks, chunk)

    monkeypatch.setattr(Tape, "pull", watched)
    algebra = algebras(example, example.graph, tape, chunk=2)[name]
    seed = {example.graph.outputs[0]: algebra.seed(normal(*example.output().shape))}
    walk(example.graph, algebra, seed, example.graph.sources)
    assert asked == {2}


def test_where_nothing_arrives_are_zeros_of_the_sources_type(example):
    algebra = algebras(example, example.graph, record(example.graph, example.state, example.inputs))["polynomials"]
    zeros = algebra.coefficients(None, torch.ones(3, dtype=torch.bfloat16), 4)
    assert (zeros.dtype, zeros.shape, zeros.abs().sum()) == (torch.bfloat16, (4, 3), 0)


@pytest.mark.parametrize("columns", [1, 20, 39, 40, 41, 64])
def test_rows_of_choices_are_told_apart_exactly(columns):
    """Rows are compared as numbers while 63 bits hold them: around that length, and with rows almost alike."""
    drawn = torch.randint(-2, 1, (30, columns), generator=torch.Generator().manual_seed(columns), dtype=torch.int16)
    changed = drawn.clone()
    changed[:, -1] = torch.where(drawn[:, -1] == 0, -1, 0)
    # Two rows whose numbers in base 3 are 2^64 apart, which 64 bits cannot tell.
    far, apart = torch.full((2, columns), -2, dtype=torch.int16), 2**64
    for place in range(columns):
        far[1, columns - 1 - place] = apart % 3 - 2
        apart //= 3
    masks = torch.cat([drawn, changed, drawn, far])
    rows, place = distinct(masks)
    expected, where = torch.unique(masks, dim=0, return_inverse=True)
    assert torch.equal(rows, expected)
    assert torch.equal(place, where)
    assert torch.equal(rows[place], masks)


def test_no_rows_and_no_columns_are_rows_too():
    for shape in ((0, 3), (4, 0)):
        rows, place = distinct(torch.zeros(shape, dtype=torch.int16))
        assert rows[place].shape == shape
