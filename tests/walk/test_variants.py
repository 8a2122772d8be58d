"""Variants run together are each what they are alone, and nothing is computed twice."""

from collections import Counter
from dataclasses import replace
from itertools import combinations
from math import comb

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from handmade import EXAMPLES, subsets
from networks import Chain, Residual, error, lively, mlp, normal
from properties.test_form import built, plans
from unbraid import trace
from unbraid.form import lesioned
from unbraid.graph import Add, Segment, Stream, rewired
from unbraid.walk import Room, dimension, merge, run, run_variants, schedule


def room(merged, runs, live=None):
    places = merged.needs.shape[1]
    return Room([runs] * places, [live or runs] * places)


def results(merged, order, state, inputs):
    """The first output of each variant; every variant exactly once."""
    found = {}
    for number, outputs in run_variants(merged, order, state, inputs):
        assert number not in found
        found[number] = outputs[merged.graph.outputs[0]]
    assert len(found) == len(merged.needs)
    return [found[number] for number in range(len(found))]


def without(graph, gone):
    """The steps with all branches of some blocks left out, written here once more."""
    return tuple(
        replace(step, branches=(None,) * len(step.branches))
        if isinstance(step, Add) and step.block in gone and step.skip is not None
        else step
        for step in graph.steps
    )


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("rows", [1, 2, 100])
def test_handmade_graphs(name, rows):
    example = EXAMPLES[name]()
    blocks = sorted({add.block for add in example.graph.adds})
    variants = [without(example.graph, gone) for gone in subsets(blocks)]
    merged = merge(example.graph, variants)
    found = results(merged, schedule(merged, room(merged, rows)), example.state, example.inputs)
    for steps, output in zip(variants, found, strict=True):
        alone = run(rewired(example.graph, steps), example.state, example.inputs)
        assert output.equal(alone[example.graph.outputs[0]])


@st.composite
def sweeps(draw):
    drawn = draw(plans())
    blocks = sum(map(len, drawn)) + (len(drawn) > 1)
    some = st.sets(st.integers(0, blocks - 1), max_size=3)
    return drawn, draw(st.lists(some, min_size=1, max_size=12)), draw(st.integers(1, 5)), draw(st.integers(1, 5))


@settings(max_examples=10, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(sweeps())
def test_any_network_any_sets_any_room(drawn):
    plan, sets, runs, live = drawn
    model, inputs = built(plan)
    form = trace(model, inputs)
    variants = lesioned(form, map(sorted, sets))
    merged = merge(form.graph, variants)
    order = schedule(merged, room(merged, runs, live))
    other = tuple(normal(4, x.shape[1], seed=7) for x in inputs)
    found = results(merged, order, form.state, form.inputs(other))
    for which, output in zip(sets, found, strict=True):
        assert error(output, form.without(*which)(*other)) < 1e-12

    # Every node is run once, in groups that fit, and every value is let go of once.
    ran = Counter(node for group in order.groups for node in group)
    assert set(ran.values()) <= {1}
    assert set(ran) == {int(n) for n in merged.needs.flatten() if n >= 0}
    assert max(map(len, order.groups)) <= runs
    gone = Counter(value for values in order.last for value in values)
    assert set(gone.values()) == {1}
    made = {value for node in ran for value in merged.nodes[node].makes}
    assert set(gone) == made | set(merged.inputs.values())


def chain_of(depth):
    model = lively(Chain(*(Residual(mlp(6)) for _ in range(depth)), nn.Linear(6, 3)))
    return trace(model, normal(3, 6))


def rows_of(form, variants, runs=1000):
    """How often the branch of each block is run."""
    merged = merge(form.graph, variants)
    order = schedule(merged, room(merged, runs))
    steps = [merged.nodes[number].step for group in order.groups for number in group]
    counts = Counter(step.block for step in steps if isinstance(step, Segment) and step.role == "branch")
    return [counts[block.index] for block in form.blocks], len(order.groups)


def test_single_deletions_cost_half_and_pairs_a_third():
    form, depth = chain_of(8), 8
    singles = lesioned(form, [(), *((k,) for k in range(depth))])
    pairs = lesioned(form, combinations(range(depth), 2))
    assert rows_of(form, singles)[0] == [k + 1 for k in range(depth)]
    # Block k meets the whole model, the k models without one earlier block, and those without two. The last two blocks
    # have fewer to serve: a pair that is complete without them has lost one of them.
    assert rows_of(form, pairs)[0][:-2] == [1 + k + comb(k, 2) for k in range(depth - 2)]
    assert rows_of(form, pairs)[0][-1] == comb(depth - 1, 2)


def test_a_small_room_computes_nothing_twice():
    form, depth = chain_of(6), 6
    variants = lesioned(form, subsets(range(depth)))
    wide, few = rows_of(form, variants)
    narrow, many = rows_of(form, variants, runs=3)
    assert wide == narrow == [2**k for k in range(depth)]
    assert many > few


def test_a_variant_is_handed_out_before_the_others_are_run():
    form, ran = chain_of(4), []

    def watched(step):
        def code(*values):
            ran.append(step.id)
            return step.code(*values)

        return replace(step, code=code) if isinstance(step, Segment) else step

    graph = replace(form.graph, steps=tuple(map(watched, form.graph.steps)))
    merged = merge(graph, [without(graph, {0}), without(graph, {3})])
    order = schedule(merged, room(merged, 1))
    seen = [len(ran) for _ in run_variants(merged, order, form.state, form.inputs(normal(2, 6)))]
    assert len(set(ran)) == 5
    assert len(ran) == seen[1] == (3 + 1) + (3 + 1)  # blocks 1 to 3 and the head; blocks 0 to 2 and the head
    assert seen[0] == 1 + 3 + 1  # the first of the second's blocks has run by then, the rest has not


# Which dimension counts the examples.


@pytest.mark.parametrize(
    ("shape", "along"),
    [
        (("batch", 6), 0),
        ((5, "batch", 6), 1),
        (("4*batch", 7), 0),
        ((3, 6), None),
        (("n1", 6), None),
        (("batch", "batch"), None),
        (("batches", 2), None),
        ((), None),
    ],
)
def test_the_dimension_of_the_examples(shape, along):
    assert dimension(Stream("x", shape)) == along


class Sums(nn.Module):
    """Sequence first: [positions, batch, width] between its blocks, and a mask that all examples share."""

    def __init__(self):
        super().__init__()
        self.f = nn.ModuleList(mlp(6) for _ in range(3))
        self.mask = nn.Parameter(torch.ones(5, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        h = x.transpose(0, 1)
        for f in self.f:
            h = h + f(h.cumsum(0) * self.mask)
        return h.transpose(0, 1)


def test_examples_may_lie_along_any_dimension():
    form = trace(lively(Sums()), normal(3, 5, 6))
    x = normal(4, 5, 6, seed=1)
    merged = merge(form.graph, lesioned(form, [(k,) for k in range(3)]))
    assert 1 in merged.dimensions
    order = schedule(merged, room(merged, 3))
    assert max(map(len, order.groups)) == 3
    for k, output in enumerate(results(merged, order, form.state, form.inputs(x))):
        assert error(output, form.without(k)(x)) < 1e-12


def test_a_segment_whose_result_has_no_examples_is_not_stacked():
    """A block that adds the mean over the batch: its branch has no row for an example."""

    class Crowd(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = mlp(6)

        def forward(self, x):
            return x + self.f(x.mean(0, keepdim=True)).expand_as(x)

    form = trace(lively(Chain(*(Crowd() for _ in range(3)))), normal(3, 6))
    x = normal(4, 6, seed=1)
    merged = merge(form.graph, lesioned(form, [(k,) for k in range(3)]))
    for k, output in enumerate(results(merged, schedule(merged, room(merged, 1)), form.state, form.inputs(x))):
        assert error(output, form.without(k)(x)) < 1e-12


def test_other_readers_of_the_batch_follow():
    """A mask with a row for each example, and a size that is read from another input, grow with the stack."""

    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = nn.ModuleList(mlp(6) for _ in range(3))

        def forward(self, x, mask):
            for f in self.f:
                x = x + f(x) * mask + torch.zeros(mask.shape[0], 1, dtype=x.dtype)
            return x

    form = trace(lively(Masked()), (normal(3, 6), normal(3, 1)))
    args = normal(4, 6, seed=1), normal(4, 1, seed=2)
    merged = merge(form.graph, lesioned(form, [(k,) for k in range(3)]))
    order = schedule(merged, room(merged, 3))
    assert max(map(len, order.groups)) == 3
    for k, output in enumerate(results(merged, order, form.state, form.inputs(args))):
        assert error(output, form.without(k)(*args)) < 1e-12
