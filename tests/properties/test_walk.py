"""The walk on graphs of any shape: segments and additions hung together at random."""

from collections import Counter

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from handmade import Example, Plain, graph
from networks import error, normal
from unbraid.graph import Add, Segment
from unbraid.walk import Cotangents, Lengths, Masks, Polynomials, path_counts, record, run, walk

WIDTH = 2


def one(*inputs):
    return torch.tanh(sum((k + 1) * x for k, x in enumerate(inputs)).flip(-1))


def two(*inputs):
    made = one(*inputs)
    return made, torch.sin(made * inputs[0])


@st.composite
def plans(draw):
    """Any order of segments with one or two results and of additions with or without a skip, counted or not.

    Plain data: beartype, which checks what unbraid builds, draws from `random`, and a strategy must not.
    """
    streams, steps, weights = ["x0", "x1"][: draw(st.integers(1, 2))], [], {}
    inputs = tuple(streams)
    for number in range(draw(st.integers(1, 9))):
        pick = st.sampled_from(streams[-4:])
        if draw(st.booleans()):
            read = tuple(dict.fromkeys(draw(st.lists(pick, min_size=1, max_size=2))))
            made = (f"s{number}", f"t{number}")[: draw(st.integers(1, 2))]
            steps.append((None, read, made))
        else:
            branches = tuple(draw(st.lists(pick, min_size=1, max_size=2)))
            made = (f"a{number}",)
            steps.append((number, (draw(st.one_of(st.none(), pick)), *branches), made))
            if draw(st.integers(0, 3)):
                weights[number] = tuple(draw(st.integers(0, 1)) for _ in branches)
        streams += made
    steps.append((None, tuple(dict.fromkeys(streams[-2:])), ("y",)))
    return steps, inputs, weights


def built(plan):
    steps, inputs, weights = plan
    made = [
        Segment(outputs[0], read, outputs, (one, two)[len(outputs) - 1])
        if block is None
        else Add(block, read[1], read[0], read[1:], outputs[0])
        for block, read, outputs in steps
    ]

    def story(net, x, state):
        values = dict(x)
        for block, read, outputs in steps:
            operands = [None if stream is None else values[stream] for stream in read]
            if block is not None:
                values[outputs[0]] = net.add(block, *operands)
            elif len(outputs) == 1:
                values[outputs[0]] = net.apply(one, *operands)
            else:
                values.update(zip(outputs, net.apply(two, *operands, outputs=2), strict=True))
        return values["y"]

    x = {name: normal(1, WIDTH, seed=seed) for seed, name in enumerate(inputs)}
    return Example(graph(made, inputs, ("y",)), {}, x, story, weights)


SEED = normal(1, WIDTH, seed=99)


@settings(max_examples=100, deadline=None)
@given(plans(), st.integers(0, 3))
def test_every_algebra_agrees_with_brute_force(plan, longest):
    example = built(plan)
    made = example.graph
    tape = record(made, {}, example.inputs)
    assert error(run(made, {}, example.inputs)["y"], example.output()) < 1e-12

    gradients = walk(made, Cotangents(made, tape), {"y": SEED}, made.sources)
    polynomials = Polynomials(made, tape, Lengths(example.weights))
    spectra = walk(made, polynomials, {"y": polynomials.seed(SEED)}, made.sources)
    short = Polynomials(made, tape, Lengths(example.weights), longest)
    truncated = walk(made, short, {"y": short.seed(SEED)}, made.sources)
    columns = {block: column for column, block in enumerate(sorted(example.weights))}
    masks = Masks(made, tape, columns)
    stacks = walk(made, masks, {"y": masks.seed(SEED)}, made.sources)

    every = set()
    for source in made.sources:
        trails, like = example.trails(source), example.inputs[source]
        every |= trails
        if source not in gradients:
            assert not trails
            continue
        expected = example.paths(source, SEED)
        size = max(1.0, *(value.abs().max().item() for value in expected.values()))
        gradient = example.gradient(source, SEED, Plain())
        assert (gradients[source] - gradient).abs().max() < 1e-10 * size

        count = max(map(example.length, trails)) + 1
        by_length = torch.zeros(count, *like.shape, dtype=like.dtype)
        for trail, value in expected.items():
            by_length[example.length(trail)] += value
        found = polynomials.coefficients(spectra[source], like, count)
        assert (found - by_length).abs().max() < 1e-10 * size
        found = short.coefficients(truncated.get(source), like, longest + 1)
        assert (found[:count] - by_length[: longest + 1]).abs().max() < 1e-10 * size

        inverse = {column: block for block, column in columns.items()}
        paths = [
            frozenset((inverse[c], j) for c, j in enumerate(mask) if j >= -1) for mask in stacks[source].masks.tolist()
        ]
        assert len(set(paths)) == len(paths)
        assert set(paths) == trails
        for trail, value in zip(paths, stacks[source].stack, strict=True):
            assert (value - expected[trail]).abs().max() < 1e-10 * size

    tally = Counter(map(example.length, every))
    expected_counts = [tally[m] for m in range(max(tally, default=-1) + 1)]
    assert path_counts(made, Lengths(example.weights), "y") == expected_counts
