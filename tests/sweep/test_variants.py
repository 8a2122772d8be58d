"""Variants run together are each what they are alone, and nothing is computed twice."""

import gc
from collections import Counter
from dataclasses import replace
from itertools import combinations, permutations
from math import comb

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from handmade import EXAMPLES, subsets
from networks import Chain, Residual, error, lively, mlp, normal
from properties.test_form import built, plans
from unbraid import trace
from unbraid.graph import Add, Segment, Stream, reads, rewired
from unbraid.sweep import NONE, Room, dimension, lesioned, merge, run_variants, schedule, used
from unbraid.walk import run


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


def expressions(graph, variants):
    """Every computation on which an output depends, written out as nested tuples: an oracle for what is shared."""
    found, outputs = {}, []
    for steps in variants:
        values = {stream: stream for stream in graph.inputs}
        for step in steps:
            given = tuple(values[stream] for stream in reads(step))
            if isinstance(step, Add):
                values[step.output] = given[0] if len(given) == 1 else ("sum", given)
            else:
                values.update((s, (id(step.code), step.params, given, k)) for k, s in enumerate(step.outputs))
        outputs.append([values[stream] for stream in graph.outputs])
    waiting = [value for values in outputs for value in values]
    while waiting:
        value = waiting.pop()
        if isinstance(value, tuple):
            node = value[:-1] if value[0] != "sum" else value  # several results are one computation
            if node not in found:
                found[node] = len(found)
                waiting += node[-1]
    return found


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("shifted", [False, True], ids=["in place", "steps left out"])
def test_nothing_is_there_twice_and_nothing_in_vain(name, shifted):
    """Also where variants have fewer steps, so that what they share stands at several places."""
    graph = EXAMPLES[name]().graph
    blocks = sorted({add.block for add in graph.adds})
    variants = [without(graph, gone) for gone in subsets(blocks)]
    if shifted:
        variants = [rewired(graph, steps).steps for steps in variants]
    merged = merge(graph, variants)
    listed = np.unique(merged.needs[merged.needs != NONE])
    assert len(listed) == len(expressions(graph, variants))
    for variant, steps in enumerate(variants):
        assert len(used(merged, [variant])) == len(expressions(graph, [steps]))
        ran = [merged.step(number) for number in merged.needs[variant] if number != NONE]
        assert {id(step.code) for step in ran if isinstance(step, Segment)} <= {
            id(step.code) for step in steps if isinstance(step, Segment)
        }


def test_orders_share_what_stands_at_other_places():
    form = chain_of(3)
    variants = [form.reorder(order).graph.steps for order in permutations(range(3))]
    variants += [rewired(form.graph, steps).steps for steps in lesioned(form, subsets(range(3)))]
    merged = merge(form.graph, variants)
    found = np.unique(merged.needs[merged.needs != NONE])
    assert len(found) == len(expressions(form.graph, variants))
    again = merge(form.graph, variants)
    assert all(np.array_equal(getattr(merged, n), getattr(again, n)) for n in ("needs", "reads", "makes", "kinds"))
    for steps, output in zip(
        variants, results(merged, schedule(merged, room(merged, 5)), form.state, form.inputs(normal(2, 6))), strict=True
    ):
        alone = run(rewired(form.graph, steps), form.state, form.inputs(normal(2, 6)))
        assert error(output, alone[form.graph.outputs[0]]) < 1e-12


@pytest.mark.parametrize("which", [slice(1, None), slice(None, -1)], ids=["its first step", "its last step"])
def test_a_variant_that_lacks_what_it_needs(which):
    form = chain_of(2)
    with pytest.raises(ValueError, match="no step before makes"):
        merge(form.graph, [form.graph.steps, form.graph.steps[which]])


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
    ran = Counter(node for group in order.groups for node in group.tolist())
    assert set(ran.values()) <= {1}
    assert set(ran) == {int(n) for n in merged.needs.flatten() if n >= 0}
    assert max(map(len, order.groups)) <= runs
    gone = Counter(value for values in order.last for value in values.tolist())
    assert set(gone.values()) == {1}
    made = {value for node in ran for value in merged.makes[node].tolist()}
    assert set(gone) == made - {NONE} | set(merged.inputs.values())


def chain_of(depth):
    model = lively(Chain(*(Residual(mlp(6)) for _ in range(depth)), nn.Linear(6, 3)))
    return trace(model, normal(3, 6))


def rows_of(form, variants, runs=1000):
    """How often the branch of each block is run."""
    merged = merge(form.graph, variants)
    order = schedule(merged, room(merged, runs))
    steps = [merged.step(number) for group in order.groups for number in group]
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


@pytest.mark.parametrize("runs", [1, 4])
def test_what_nobody_reads_any_more_is_let_go_of(runs):
    form = chain_of(6)
    merged = merge(form.graph, [without(form.graph, gone) for gone in subsets(range(6))])
    order = schedule(merged, room(merged, runs))
    inputs = form.inputs(normal(2, 6))

    def tensors():
        return sum(type(thing) is Tensor for thing in gc.get_objects())

    gc.collect()
    before, extra = tensors(), []
    for number, _ in enumerate(run_variants(merged, order, form.state, inputs)):
        if number in (32, 63):
            extra.append(tensors() - before)
    assert max(extra) <= 7  # the last output, what the last step read, and at half time what the other half begins with


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


def test_a_value_without_examples_is_shared_by_those_alone_that_have_the_same():
    """The mean over the batch after the first block, read by the later ones: it is another where that block is gone."""

    class Level(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = nn.ModuleList(mlp(6) for _ in range(3))

        def forward(self, x):
            x = x + self.f[0](x)
            mean = x.mean(0, keepdim=True)
            for f in self.f[1:]:
                x = x + f(x) * mean
            return x

    form = trace(lively(Level()), normal(3, 6))
    x = normal(4, 6, seed=1)
    sets = subsets(range(3))
    merged = merge(form.graph, lesioned(form, sets))
    order = schedule(merged, room(merged, 8))
    assert max(map(len, order.groups)) > 1
    for which, output in zip(sets, results(merged, order, form.state, form.inputs(x)), strict=True):
        assert error(output, form.without(*which)(x)) < 1e-12


def test_other_readers_of_the_batch_follow():
    """A mask with a row for each example, and a size that is read from another input, grow with the stack."""

    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = nn.ModuleList(mlp(6) for _ in range(3))

        def forward(self, x, mask):
            for f in self.f:
                x = x + (f(x) * mask + torch.zeros(mask.shape[0], 1, dtype=x.dtype))
            return x

    form = trace(lively(Masked()), (normal(3, 6), normal(3, 1)))
    args = normal(4, 6, seed=1), normal(4, 1, seed=2)
    merged = merge(form.graph, lesioned(form, [(k,) for k in range(3)]))
    order = schedule(merged, room(merged, 3))
    assert max(map(len, order.groups)) == 2  # the last two blocks, which two of the three variants run
    for k, output in enumerate(results(merged, order, form.state, form.inputs(args))):
        assert error(output, form.without(k)(*args)) < 1e-12
