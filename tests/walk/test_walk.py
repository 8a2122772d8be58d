"""One walk, five algebras, on graphs built by hand: each against autograd or brute force over the choices."""

from collections import Counter
from dataclasses import replace
from itertools import product
from math import comb

import pytest
import torch

from handmade import EXAMPLES, Plain, bare, chain, nested, parallel, plain, scalar_chain
from networks import error, normal
from unbraid.graph import Add
from unbraid.walk import Cotangents, Counts, Lengths, Masks, Polynomials, Tape, path_counts, record, run, walk

SUM = 1e-10


@pytest.fixture(params=EXAMPLES, scope="module")
def example(request):
    return EXAMPLES[request.param]()


def cotangent_of(example):
    return normal(*example.output().shape, seed=99)


def spectrum(example, *, max_length=None, lengths=None):
    """The coefficients at every source."""
    tape = record(example.graph, example.state, example.inputs)
    algebra = Polynomials(example.graph, tape, lengths or Lengths(example.weights), max_length)
    seeds = {example.graph.outputs[0]: algebra.seed(cotangent_of(example))}
    found = walk(example.graph, algebra, seeds, example.graph.sources)
    count = example.longest() + 1 if max_length is None else max_length + 1
    return {s: algebra.coefficients(found.get(s), example.inputs[s], count) for s in example.graph.sources}


def all_paths(example):
    """For each source the choices and the gradient of each path, as the walk finds them."""
    tape = record(example.graph, example.state, example.inputs)
    blocks = sorted(example.weights)
    algebra = Masks(example.graph, tape, {block: column for column, block in enumerate(blocks)})
    seeds = {example.graph.outputs[0]: algebra.seed(cotangent_of(example))}
    found = walk(example.graph, algebra, seeds, example.graph.sources)
    return {
        s: [
            (frozenset((blocks[c], j) for c, j in enumerate(mask) if j >= -1), value)
            for mask, value in zip(found[s].masks.tolist(), found[s].stack, strict=True)
        ]
        for s in found
    }


def test_run_is_the_network(example):
    values = run(example.graph, example.state, example.inputs)
    assert values.keys() == set(example.graph.outputs)
    assert error(values[example.graph.outputs[0]], example.output()) < 1e-12


def test_run_keeps_what_is_asked_for(example):
    kept = [step.output for step in example.graph.adds]
    values = run(example.graph, example.state, example.inputs, keep=kept)
    assert values.keys() == {*example.graph.outputs, *kept}


def test_a_run_changes_no_input(example):
    before = {name: value.clone() for name, value in example.inputs.items()}
    run(example.graph, example.state, example.inputs)
    record(example.graph, example.state, example.inputs)
    assert all(torch.equal(example.inputs[name], value) for name, value in before.items())
    assert not any(value.requires_grad for value in example.inputs.values())


def test_a_tape_holds_every_stream(example):
    tape = record(example.graph, example.state, example.inputs)
    assert tape.values.keys() == example.graph.streams.keys()
    assert error(tape.values[example.graph.outputs[0]], example.output()) < 1e-12


def test_cotangents_are_the_gradient(example):
    tape = record(example.graph, example.state, example.inputs)
    seed = cotangent_of(example)
    found = walk(
        example.graph, Cotangents(example.graph, tape), {example.graph.outputs[0]: seed}, example.graph.sources
    )
    for source in example.graph.sources:
        assert error(found[source], example.gradient(source, seed, Plain())) < SUM


def test_polynomials_are_the_paths_by_length(example):
    """Equation 11.6, gathered by length: each coefficient equals the sum over the paths of that length."""
    seed = cotangent_of(example)
    for source, found in spectrum(example).items():
        expected = example.by_length(source, seed)
        assert error(found, expected) < SUM
        for a, b in zip(found, expected, strict=True):
            assert error(a, b) < SUM


def test_polynomials_sum_to_the_gradient(example):
    seed = cotangent_of(example)
    for source, found in spectrum(example).items():
        assert error(found.sum(0), example.gradient(source, seed, Plain())) < SUM


def test_max_length_lets_go_of_longer_paths_only(example):
    whole = spectrum(example)
    for longest in range(example.longest() + 1):
        for source, found in spectrum(example, max_length=longest).items():
            assert error(found, whole[source][: longest + 1]) < SUM


def test_masks_give_every_path_once(example):
    for source, paths in all_paths(example).items():
        choices = [choice for choice, _ in paths]
        assert len(set(choices)) == len(choices)
        assert set(choices) == example.trails(source)


def test_masks_give_the_gradient_along_each_path(example):
    seed = cotangent_of(example)
    for source, paths in all_paths(example).items():
        expected = example.paths(source, seed)
        largest = max(value.abs().max() for value in expected.values())
        for choice, value in paths:
            assert (value - expected[choice]).abs().max() / largest < SUM


def test_counts_are_the_paths_by_length(example):
    trails = frozenset().union(*(example.trails(source) for source in example.graph.sources))
    by_length = Counter(map(example.length, trails))
    expected = [by_length[m] for m in range(max(by_length) + 1)]
    assert path_counts(example.graph, Lengths(example.weights), example.graph.outputs[0]) == expected


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, [1]), (1, [1, 1]), (3, [1, 3, 3, 1]), (4, [1, 4, 6, 4, 1]), (5, [1, 5, 10, 10, 5, 1])],
)
def test_a_chain_has_binomially_many_paths(count, expected):
    """The book's 1, 3, 3, 1 and figure 11.4b's 16 paths through four blocks."""
    example = chain(count)
    assert path_counts(example.graph, Lengths(example.weights), "y") == expected


def test_counts_are_exact_beyond_floats():
    """C(80, 40) = 107507208733336176461620, which no float64 holds."""
    example = chain(80)
    counts = path_counts(example.graph, Lengths(example.weights), "y")
    assert counts == [comb(80, m) for m in range(81)]
    assert counts[40] == 107507208733336176461620


def test_two_parallel_branches_make_three_choices():
    """(1 + t)(1 + 2t)(1 + t)."""
    example = parallel()
    assert path_counts(example.graph, Lengths(example.weights), "y") == [1, 4, 5, 2]


def test_a_nested_block_is_opened_by_its_weights():
    """Closed: (1 + t)². Opened: (1 + (1 + t))(1 + t): the outer branch adds nothing, the inner block one."""
    closed, opened = nested(counted=False), nested(counted=True)
    assert path_counts(closed.graph, Lengths(closed.weights), "y") == [1, 2, 1]
    assert path_counts(opened.graph, Lengths(opened.weights), "y") == [2, 3, 1]


def test_a_plain_chain_is_one_path():
    example = plain(3)
    assert path_counts(example.graph, Lengths(example.weights), "h3") == [0, 0, 0, 1]


def test_the_chain_by_products_of_jacobians():
    """A second oracle for the chain: ∏ (I or J_k), the Jacobians as full matrices."""
    example = scalar_chain(4)
    h, slopes = example.inputs["h0"], []
    for k in range(4):
        a = example.state[f"a{k}"]
        slopes.append(a * torch.cos(a * h))
        h = h + torch.sin(a * h)
    paths = dict(all_paths(example)["h0"])
    for mask in product((-1, 0), repeat=4):
        along = torch.stack(
            [slope if j == 0 else torch.ones_like(slope) for slope, j in zip(slopes, mask, strict=True)]
        )
        choice = frozenset(enumerate(mask))
        expected = cotangent_of(example) * along.prod()
        assert error(paths[choice], expected) < SUM


def test_the_vector_chain_by_products_of_jacobians():
    example = chain(3)
    x, factors = example.inputs["h0"][:1], []
    for k in range(3):

        def f(h, k=k):
            return torch.tanh(h @ example.state[f"w{k}"])

        factors.append(torch.func.jacrev(f)(x).reshape(3, 3))
        x = x + f(x)
    head = torch.func.jacrev(lambda h: torch.tanh(h @ example.state["head"]))(x).reshape(3, 3)
    seed = cotangent_of(example)[0]
    for choice, value in all_paths(example)["h0"]:
        row = seed @ head
        for k in reversed(range(3)):
            row = row @ factors[k] if (k, 0) in choice else row
        assert error(value[0], row) < SUM


@pytest.mark.parametrize("count", [1, 3, 5])
def test_a_chain_costs_half_a_square_of_branch_products(count, monkeypatch):
    """Live degrees alone are carried: K(K+1)/2 branch products, the rows that go through Tape.pull."""
    rows = Counter()
    original = Tape.pull

    def counting(self, segment, stacks, *rest):
        rows[segment.role] += max(len(stack) for stack in stacks if stack is not None)
        return original(self, segment, stacks, *rest)

    monkeypatch.setattr(Tape, "pull", counting)
    spectrum(chain(count))
    assert rows == {"branch": count * (count + 1) // 2, "trunk": 1}


def test_a_short_spectrum_costs_less(monkeypatch):
    """With max_length = 1 no block pulls more than one coefficient: K products."""
    rows = []
    original = Tape.pull

    def counting(self, segment, stacks, *rest):
        rows.append(len(stacks[0]))
        return original(self, segment, stacks, *rest)

    monkeypatch.setattr(Tape, "pull", counting)
    spectrum(chain(5), max_length=1)
    assert sum(rows) == 1 + 5


def test_paths_longer_than_wanted_end_even_where_no_segment_lies_between():
    example = bare()
    assert error(spectrum(example, max_length=0)["x"], spectrum(example)["x"][:1]) < SUM


def test_values_are_wanted_inside_the_graph():
    """At a branch's output the gradient is that of everything after it (the left side of Equation 11.6)."""
    example = chain(3)
    tape = record(example.graph, example.state, example.inputs)
    seed = cotangent_of(example)
    found = walk(example.graph, Cotangents(example.graph, tape), {"y": seed}, ["f0", "h1", "h0"])
    inner = tape.values["h1"].clone().requires_grad_()
    later = inner
    for k in (1, 2):
        later = later + torch.tanh(later @ example.state[f"w{k}"])
    (expected,) = torch.autograd.grad(torch.tanh(later @ example.state["head"]), inner, seed)
    assert error(found["f0"], expected) < SUM
    assert error(found["h1"], expected) < SUM


def test_two_seeds_add_up():
    example = chain(2)
    tape = record(example.graph, example.state, example.inputs)
    seed, other = normal(2, 3, seed=5), normal(2, 3, seed=6)
    found = walk(example.graph, Cotangents(example.graph, tape), {"y": seed, "h1": other}, ["h0"])

    x = example.inputs["h0"].clone().requires_grad_()
    h1 = x + torch.tanh(x @ example.state["w0"])
    h2 = h1 + torch.tanh(h1 @ example.state["w1"])
    y = torch.tanh(h2 @ example.state["head"])
    (expected,) = torch.autograd.grad([y, h1], x, [seed, other])
    assert error(found["h0"], expected) < SUM


def test_nothing_passes_a_source():
    """Before the source lies what makes it, an embedding say: the walk ends there."""
    example = chain(2)
    inner = replace(example.graph, sources=("h1",))
    tape = record(inner, example.state, example.inputs)
    found = walk(inner, Cotangents(inner, tape), {"y": cotangent_of(example)}, ["h0", "h1"])
    assert found.keys() == {"h1"}
    assert path_counts(inner, Lengths(example.weights), "y") == [1, 1]


def test_low_precision_streams_keep_their_type():
    """A branch in float32 within a float64 trunk: the cotangent enters in the branch's own type."""
    example = chain(2)
    narrow = {s: replace(t, dtype=torch.float32) if s == "f1" else t for s, t in example.graph.streams.items()}

    def half(h, weight):
        return torch.tanh(h @ weight).float()

    steps = tuple(replace(s, code=half) if getattr(s, "id", None) == "f1" else s for s in example.graph.steps)
    mixed = replace(example, graph=replace(example.graph, streams=narrow, steps=steps))
    found = spectrum(mixed)["h0"]
    assert found.dtype == torch.float64
    x = example.inputs["h0"].clone().requires_grad_()
    h1 = x + torch.tanh(x @ example.state["w0"])
    y = torch.tanh((h1 + half(h1, example.state["w1"])) @ example.state["head"])
    (expected,) = torch.autograd.grad(y, x, cotangent_of(example))
    assert error(found.sum(0), expected) < SUM


# What breaks it. Each fault is made on purpose, and a check above must see it.


def departs(example):
    """How far the coefficients are from brute force, and their sum from the gradient."""
    seed = cotangent_of(example)
    (source,) = example.graph.sources
    found = spectrum(example)[source]
    gradient = example.gradient(source, seed, Plain())
    return error(found, example.by_length(source, seed)), error(found.sum(0), gradient)


def test_a_lost_shift_is_seen(monkeypatch):
    """One block forgets its t: the sum is still the gradient, so only the paths by length can tell."""
    original = Lengths.of
    monkeypatch.setattr(Lengths, "of", lambda self, add, operand: 0 if add.block == 1 else original(self, add, operand))
    by_length, total = departs(chain(3))
    assert by_length > 1e-2
    assert total < SUM
    assert path_counts(chain(3).graph, Lengths(chain(3).weights), "y") == [2, 4, 2]


def test_a_shift_too_many_is_seen(monkeypatch):
    original = Lengths.of
    monkeypatch.setattr(
        Lengths, "of", lambda self, add, operand: 1 if (add.block, operand) == (1, -1) else original(self, add, operand)
    )
    assert departs(chain(3))[0] > 1e-2


def test_a_dropped_branch_is_seen():
    example = chain(3)
    steps = tuple(
        replace(s, branches=(None,)) if isinstance(s, Add) and s.block == 1 else s for s in example.graph.steps
    )
    broken = replace(example, graph=replace(example.graph, steps=steps))
    assert error(run(broken.graph, broken.state, broken.inputs)["y"], broken.output()) > 1e-2
    by_length, total = departs(broken)
    assert by_length > 1e-2
    assert total > 1e-2


def test_a_branch_lost_on_the_way_back_alone_is_seen(monkeypatch):
    """The forward run is right; the walk forgets what comes back from one branch."""
    original = Tape.pull

    def forgetful(self, segment, stacks, *rest):
        return (None,) * len(segment.inputs) if segment.id == "f1" else original(self, segment, stacks, *rest)

    monkeypatch.setattr(Tape, "pull", forgetful)
    by_length, total = departs(chain(3))
    assert by_length > 1e-2
    assert total > 1e-2


def test_a_wrong_sum_is_seen(monkeypatch):
    """Where skip and branch meet again, only the later one is kept."""
    monkeypatch.setattr(Polynomials, "plus", lambda self, a, b: b)
    assert min(departs(chain(3))) > 1e-2


def test_a_path_counted_twice_is_seen(monkeypatch):
    """Two routes through a shared norm are one path: with lists in place of unions the counts are wrong."""

    def listed(self, a, b):
        return {**a, **{(*origin, "again") if origin in a else origin: paths for origin, paths in b.items()}}

    example = chain(3)
    monkeypatch.setattr(Counts, "plus", lambda self, a, b: a)
    assert path_counts(example.graph, Lengths(example.weights), "y") != [1, 3, 3, 1]
    monkeypatch.setattr(Counts, "plus", listed)
    example = EXAMPLES["nested, uncounted"]()
    assert path_counts(example.graph, Lengths(example.weights), "y") != [1, 2, 1]


def test_a_forgotten_choice_is_seen(monkeypatch):
    original = Masks.enter

    def forgetful(self, add, operand, value):
        made = original(self, add, operand, value)
        return replace(made, masks=value.masks) if add.block == 1 else made

    monkeypatch.setattr(Masks, "enter", forgetful)
    example = chain(3)
    assert {choice for choice, _ in all_paths(example)["h0"]} != example.trails("h0")
