"""The graph is checked when it is made, never changed, and knows what data reach."""

from dataclasses import FrozenInstanceError, replace

import pytest
import torch

from handmade import chain, cross_attention, graph, two_outputs
from networks import F64
from unbraid.graph import Add, Graph, Segment, Stream, makes, needed, reads, rewired, subgraph


def tanh(number):
    return Segment(f"f{number}", (f"h{number}",), (f"f{number}",), torch.tanh, role="branch", block=number)


def streams(*names):
    return {name: Stream(name, dtype=F64) for name in names}


def test_a_stream_read_before_it_is_made():
    with pytest.raises(ValueError, match=r"Graph: segment 'f0' reads \['h0'\], which no earlier step makes\."):
        Graph(streams("x", "h0", "f0"), (tanh(0),), ("x",), ("x",), ("f0",))


def test_an_addition_that_reads_too_early():
    steps = (Add(0, "h0", "h0", ("f0",), "y"), tanh(0))
    with pytest.raises(ValueError, match=r"the addition of block 0 reads \['f0'\], which no earlier step makes"):
        Graph(streams("h0", "f0", "y"), steps, ("h0",), ("h0",), ("y",))


def test_a_stream_made_twice():
    with pytest.raises(ValueError, match=r"Graph: segment 'f0' makes \['f0'\], which an earlier step has made\."):
        Graph(streams("h0", "f0"), (tanh(0), tanh(0)), ("h0",), ("h0",), ("f0",))


def test_an_input_made_again():
    steps = (tanh(0), Add(0, "h0", "h0", ("f0",), "h0"))
    with pytest.raises(ValueError, match=r"the addition of block 0 makes \['h0'\]"):
        Graph(streams("h0", "f0"), steps, ("h0",), ("h0",), ("h0",))


def test_outputs_and_sources_that_nobody_makes():
    with pytest.raises(ValueError, match=r"Graph: \['s', 'y'\] are sources or outputs, but no step makes them\."):
        Graph(streams("h0", "f0"), (tanh(0),), ("h0",), ("s",), ("f0", "y"))


def test_a_stream_without_a_description():
    with pytest.raises(ValueError, match=r"Graph: \['f0'\] have no Stream that describes them\."):
        Graph(streams("h0"), (tanh(0),), ("h0",), ("h0",), ("f0",))


def test_the_graph_is_immutable():
    made = chain(1).graph
    for thing, attribute in ((made, "steps"), (made.steps[0], "code"), (made.adds[0], "skip"), (Stream("x"), "id")):
        with pytest.raises(FrozenInstanceError):
            setattr(thing, attribute, None)


def test_operands_count_as_masks_do():
    """0 for the skip, j for the j-th branch; what is missing keeps the numbers of the rest."""
    assert Add(0, "x", "s", ("a", "b"), "y").operands == ((-1, "s"), (0, "a"), (1, "b"))
    assert Add(0, "x", None, ("a",), "y").operands == ((0, "a"),)
    assert Add(0, "x", "s", (None, "b"), "y").operands == ((-1, "s"), (1, "b"))


def test_segments_and_additions_in_order():
    made = chain(2).graph
    assert [s.id for s in made.segments] == ["f0", "f1", "y"]
    assert [a.block for a in made.adds] == [0, 1]
    assert [reads(s) for s in made.steps[:2]] == [("h0",), ("h0", "f0")]
    assert [makes(s) for s in made.steps[:2]] == [("f0",), ("h1",)]


def test_data_reach_what_is_computed_from_a_source():
    made = cross_attention().graph
    assert made.carried == made.streams.keys() - {"mask"}


def test_integers_carry_no_gradient():
    assert "index" not in two_outputs().graph.carried


def test_values_are_let_go_after_their_last_reader():
    made = chain(2).graph
    assert made.last_reader == {"h0": 1, "f0": 1, "h1": 3, "f1": 3, "h2": 4}


def test_what_is_needed():
    made = chain(3).graph
    assert [makes(s)[0] for s in needed(made.steps, ("h1",))] == ["f0", "h1"]
    assert needed(made.steps, ()) == ()


def test_rewiring_drops_dead_code():
    """Block 0's branch deleted: its segment goes with it; the sources that remain stay."""
    made = chain(2).graph
    steps = tuple(replace(s, branches=(None,)) if isinstance(s, Add) and s.block == 0 else s for s in made.steps)
    smaller = rewired(made, steps)
    assert [s.id for s in smaller.segments] == ["f1", "y"]
    assert smaller.sources == made.sources
    assert [s.id for s in made.segments] == ["f0", "f1", "y"]


def test_a_part_of_a_graph():
    made = chain(3).graph
    part = subgraph(made, ("h3",), given=("h1",))
    assert [makes(s)[0] for s in part.steps] == ["f1", "h2", "f2", "h3"]
    assert part.outputs == ("h3",)
    assert "h1" in part.sources


def test_one_empty_graph():
    made = graph((), ("x",), ("x",))
    assert made.carried == {"x"}
    assert made.segments == made.adds == ()
