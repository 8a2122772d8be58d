"""Edges of chains h_k = P_k(S_k(h) + f_k(h)) against patches of the same chain in plain Python."""

from functools import cache

import pytest
import torch
from torch import nn

import unbraid
from networks import Does, lively, mlp, normal
from patching import (
    EFFECTS,
    assert_effects,
    attributed_effects,
    chain_program,
    exact_effects,
    means,
    zeros,
)

WIDTH, DEPTH, BATCH = 5, 4, 3
AFTER = {"identity": nn.Identity, "relu": nn.ReLU, "layer norm": lambda: nn.LayerNorm(WIDTH)}
TARGET = 1


class After(nn.Module):
    """P(S(x) + f(x))."""

    def __init__(self, skip: nn.Module, branch: nn.Module, after: nn.Module) -> None:
        super().__init__()
        self.skip, self.branch, self.after = skip, branch, after

    def forward(self, x):
        return self.after(self.skip(x) + self.branch(x))


@cache
def network(after: str, projections: bool = False, branch=mlp, head=lambda n, outputs: mlp(n, outputs=outputs)):
    """A chain as a model, and the same modules as a program."""
    blocks = [
        After(nn.Linear(WIDTH, WIDTH) if projections and k == 2 else nn.Identity(), branch(WIDTH), AFTER[after]())
        for k in range(DEPTH)
    ]
    model = lively(nn.Sequential(*blocks, head(WIDTH, 3)), seed=1)
    parts = [[block.branch for block in blocks], [block.after for block in blocks]]
    return model, chain_program(*parts, model[-1], [block.skip for block in blocks])


def clean_and_corrupt():
    return normal(BATCH, WIDTH, seed=2), normal(BATCH, WIDTH, seed=3)


def target(output):
    return output[:, TARGET]


@cache
def form_of(model):
    return unbraid.trace(model, (normal(BATCH, WIDTH),))


def study_of(model, x, corrupt=None, **options):
    return unbraid.edges(form_of(model), x, corrupt, **options)


@pytest.mark.parametrize("after", AFTER)
@pytest.mark.parametrize("projections", [False, True])
def test_the_program_is_the_model(after, projections):
    """Else the oracle judges something else; and with nothing replaced, no reader sees a difference."""
    model, program = network(after, projections)
    x, _ = clean_and_corrupt()
    assert torch.equal(program(x), model(x))
    same = exact_effects(program, x, program.written(x), target)
    assert same[~same.isnan()].abs().max() == 0
    assert same.isnan().sum() == BATCH * DEPTH * (DEPTH + 1) // 2


@pytest.mark.parametrize("after", AFTER)
def test_the_attributed_oracle_is_the_slope_of_the_exact_one(after):
    """Central differences of patches that go a small part of the way."""
    _, program = network(after)
    x, corrupt = clean_and_corrupt()
    clean, other = program.written(x), program.written(corrupt)

    def part(t):
        return exact_effects(program, x, [a + t * (b - a) for a, b in zip(clean, other, strict=True)], target)

    slope = (part(1e-5) - part(-1e-5)) / 2e-5
    expected = attributed_effects(program, x, other, target)
    torch.testing.assert_close(slope, expected, rtol=1e-6, atol=1e-7, equal_nan=True)


@pytest.mark.parametrize("method", EFFECTS)
@pytest.mark.parametrize(
    ("after", "projections"), [("identity", False), ("relu", False), ("layer norm", False), ("relu", True)]
)
def test_effects_are_those_of_patches(after, projections, method):
    model, program = network(after, projections)
    x, corrupt = clean_and_corrupt()
    study = study_of(model, x, corrupt, target=TARGET, method=method)
    assert_effects(study, EFFECTS[method](program, x, program.written(corrupt), target))
    torch.testing.assert_close(study.target, target(model(x)), rtol=1e-12, atol=0)


@pytest.mark.parametrize("method", EFFECTS)
@pytest.mark.parametrize(
    ("after", "fill"), [("identity", "zero"), ("relu", "zero"), ("layer norm", "zero"), ("relu", "mean")]
)
def test_effects_of_a_fill_are_those_of_patches(after, fill, method):
    """Of the input, what is filled is what the trunk begins with; what the trunk adds itself stays."""
    model, program = network(after)
    x, _ = clean_and_corrupt()
    instead = {"zero": zeros, "mean": means}[fill](program.written(x))
    assert_effects(
        study_of(model, x, target=TARGET, method=method, fill=fill), EFFECTS[method](program, x, instead, target)
    )


@pytest.mark.parametrize("method", EFFECTS)
def test_clean_and_corrupt_are_not_exchanged(method):
    """Exchanged, the effects are those of the other direction, and those are others."""
    model, program = network("relu")
    x, corrupt = clean_and_corrupt()
    there = EFFECTS[method](program, x, program.written(corrupt), target)
    back = EFFECTS[method](program, corrupt, program.written(x), target)
    edge = ~there.isnan()
    assert (there[edge] + back[edge]).abs().max() > 1e-2
    assert (there[edge] - back[edge]).abs().max() > 1e-2
    assert_effects(study_of(model, x, corrupt, target=TARGET, method=method), there)
    assert_effects(study_of(model, corrupt, x, target=TARGET, method=method), back)


def read_gradients(program, x):
    """∂target/∂(what each reader reads), and what it reads: by a stream of zeros that is added for one reader only."""
    written = program.written(x)
    streams, slopes = [], []
    for reader in range(len(written)):
        stream = program.state_at(written, reader).detach().requires_grad_()
        if reader == DEPTH:
            value = program.head(stream)
        else:
            h = program.write(reader, program.state_at(written, reader), program.branches[reader](stream))
            for k in range(reader + 1, DEPTH):
                h = program.write(k, h, program.branches[k](h))
            value = program.head(h)
        streams.append(stream.detach())
        slopes.append(torch.autograd.grad(target(value).sum(), stream)[0])
    return streams, slopes


def change_of_reading(program, x, instead):
    """⟨change of all that a reader reads, the target's gradient there⟩ where all is replaced: [readers, batch]."""
    streams, slopes = read_gradients(program, x)
    others = [program.state_at(instead, reader) for reader in range(DEPTH + 1)]
    return torch.stack([((b - a) * g).sum(1) for a, b, g in zip(streams, others, slopes, strict=True)]).detach()


@pytest.mark.parametrize("projections", [False, True])
def test_the_attributed_oracle_sums_where_the_trunk_is_linear(projections):
    _, program = network("identity", projections)
    x, corrupt = clean_and_corrupt()
    sums = attributed_effects(program, x, program.written(corrupt), target).nansum(0)
    torch.testing.assert_close(sums, change_of_reading(program, x, program.written(corrupt)), rtol=1e-10, atol=1e-12)


def test_edges_of_a_reader_sum_and_the_sum_is_measured():
    model, program = network("identity")
    x, corrupt = clean_and_corrupt()
    study = study_of(model, x, corrupt, target=TARGET)
    sums = study.per_example.nansum(0)
    torch.testing.assert_close(sums, change_of_reading(program, x, program.written(corrupt)), rtol=1e-10, atol=1e-12)
    assert 0 <= study.error < 1e-10
    assert study.interaction.shape == (DEPTH + 1,)
    assert study.interaction.abs().max() < 1e-10


def with_the_last_norm_in_the_head(program, after):
    """The head begins with the last sum: P_K and a head's own first norm cannot be told apart."""
    return chain_program(program.branches, [*after[:-1], nn.Identity()], lambda h: program.head(after[-1](h)))


@pytest.mark.parametrize("after", ["relu", "layer norm"])
def test_what_does_not_sum_is_an_interaction(after):
    """The first reader reads the input alone; the others' remainders are those of a curved trunk, and no error."""
    model, program = network(after)
    program = with_the_last_norm_in_the_head(program, [block.after for block in model[:-1]])
    x, corrupt = clean_and_corrupt()
    study = study_of(model, x, corrupt, target=TARGET)
    remainder = (change_of_reading(program, x, program.written(corrupt)) - study.per_example.nansum(0)).mean(1)
    assert remainder[1:].abs().min() > 1e-5
    assert remainder[0].abs() < 1e-12
    torch.testing.assert_close(study.interaction, remainder, rtol=1e-9, atol=1e-12)
    assert study.error < 1e-10


def relu_mlp(width):
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))


class HeldNorm(nn.Module):
    """Layer norm whose scale is held at its value, as the frozen linearisation holds it."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, h):
        centred = h - h.mean(-1, keepdim=True)
        scale = (centred.pow(2).mean(-1, keepdim=True) + self.norm.eps).rsqrt().detach()
        return centred * scale * self.norm.weight + self.norm.bias


@pytest.mark.parametrize("after", AFTER)
def test_frozen_effects_of_zeros_sum_to_all_that_is_read(after):
    """Branches are of ReLUs: their frozen gradient is their gradient. Constants carry what the writers do not."""
    model, program = network(after, branch=relu_mlp, head=nn.Linear)
    held = [HeldNorm(block.after) if after == "layer norm" else block.after for block in model[:-1]]
    program = with_the_last_norm_in_the_head(chain_program(program.branches, held, model[-1]), held)
    x, _ = clean_and_corrupt()
    nothing = zeros(program.written(x))
    expected = attributed_effects(program, x, nothing, target)
    study = study_of(model, x, target=TARGET, method="frozen", fill="zero")
    edge = ~expected.isnan()
    actual = study.per_example[: DEPTH + 1]
    assert torch.equal(~actual.isnan(), edge)
    torch.testing.assert_close(actual[edge], expected[edge], rtol=1e-10, atol=1e-12)
    whole = change_of_reading(program, x, nothing)
    torch.testing.assert_close(study.per_example.nansum(0), whole, rtol=1e-10, atol=1e-12)
    assert (study.writers[-1] == "constants") == (after == "layer norm")
    assert study.error < 1e-10


@cache
def cubic():
    blocks = [After(nn.Identity(), nn.Linear(WIDTH, WIDTH), nn.Identity()) for _ in range(2)]
    head = Does(lambda net, h: net.f(h).pow(3), f=nn.Linear(WIDTH, 3))
    return lively(nn.Sequential(*blocks, head), seed=1)


def gap(steps):
    """By how much the head's integrated edges miss the whole change, where all streams move along straight lines."""
    model = cubic()
    x, corrupt = clean_and_corrupt()
    study = study_of(model, x, corrupt, target=TARGET, steps=steps)
    whole = target(model(corrupt)) - target(model(x))
    return ((study.per_example[:, -1].nansum(0) - whole).abs().max() / whole.abs().max()).item()


def test_steps_average_along_the_line():
    """Whatever the rule of quadrature, four times the points miss at most 0.4 times as much."""
    one, few, many = gap(1), gap(4), gap(16)
    assert one > 0.1
    assert few < one / 2
    assert many < max(0.4 * few, 1e-9)
