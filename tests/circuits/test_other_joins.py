"""Edges where blocks are joined in other ways: trunks that read each other, branches side by side, concatenations."""

import pytest
import torch
from torch import nn

import unbraid
from networks import error, lively, mlp, normal
from patching import EFFECTS, TOLERANCE, Program, assert_effects, exact_effects, zeros

BATCH = 3


def target(output):
    return output[:, 0] - output[:, 2]


class Reversible(nn.Module):
    """a ← a + F(b); b ← b + G(a)."""

    def __init__(self) -> None:
        super().__init__()
        self.F = nn.ModuleList(mlp(3) for _ in range(2))
        self.G = nn.ModuleList(mlp(3) for _ in range(2))
        self.head = mlp(6, outputs=3)

    def forward(self, x):
        a, b = x.chunk(2, -1)
        for f, g in zip(self.F, self.G, strict=True):
            a = a + f(b)
            b = b + g(a)
        return self.head(torch.cat([a, b], -1))

    def program(self):
        return Program(
            start=lambda x: (x[:, :3], x[:, 3:]),
            branches=(self.F[0], self.G[0], self.F[1], self.G[1]),
            read=lambda k, ab: ab[1] if k % 2 == 0 else ab[0],
            write=lambda k, ab, value: (ab[0] + value, ab[1]) if k % 2 == 0 else (ab[0], ab[1] + value),
            head=lambda ab: self.head(torch.cat(ab, -1)),
        )


class SideBySide(nn.Module):
    """h ← h + f(h) + g(h)."""

    def __init__(self) -> None:
        super().__init__()
        self.f, self.g = mlp(4), mlp(4)

    def forward(self, x):
        return x + self.f(x) + self.g(x)


class Parallel(nn.Module):
    """Three such blocks and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks, self.head = nn.ModuleList(SideBySide() for _ in range(3)), mlp(4, outputs=3)

    def forward(self, h):
        for block in self.blocks:
            h = block(h)
        return self.head(h)

    def program(self):
        """Block by block: the two branches of a block read and write as one."""
        return Program(
            start=lambda x: x,
            branches=[lambda h, block=block: block.f(h) + block.g(h) for block in self.blocks],
            read=lambda k, h: h,
            write=lambda k, h, value: h + value,
            head=self.head,
        )

    def program_by_branch(self):
        """The state: what the block began with, and what its first branch has made of it."""
        branches = []
        for block in self.blocks:
            branches += [block.f, block.g]
        return Program(
            start=lambda x: (x, None),
            branches=branches,
            read=lambda k, state: state[0],
            write=lambda k, state, value: (state[0], state[0] + value) if k % 2 == 0 else (state[1] + value, None),
            head=lambda state: self.head(state[0]),
            blocks=(0, 0, 1, 1, 2, 2),
        )


class Dense(nn.Module):
    """h ← cat[h, f(h)]."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList(mlp(4 + 2 * k, outputs=2) for k in range(3))
        self.head = mlp(10, outputs=3)

    def forward(self, h):
        for branch in self.branches:
            h = torch.cat([h, branch(h)], 1)
        return self.head(h)

    def program(self):
        return Program(
            start=lambda x: x,
            branches=self.branches,
            read=lambda k, h: h,
            write=lambda k, h, value: torch.cat([h, value], 1),
            head=self.head,
        )


WIDTHS = {Reversible: 6, Parallel: 4, Dense: 4}


def model_of(kind):
    model = lively(kind(), seed=1)
    x, corrupt = normal(BATCH, WIDTHS[kind], seed=2), normal(BATCH, WIDTHS[kind], seed=3)
    return model, x, corrupt


def study_of(model, x, corrupt=None, **options):
    form = unbraid.trace(model, (x,))
    return form, unbraid.edges(form, x, corrupt, target=target, **options)


@pytest.mark.parametrize("kind", WIDTHS)
def test_the_program_is_the_model(kind):
    model, x, corrupt = model_of(kind)
    programs = [model.program()] + ([model.program_by_branch()] if kind is Parallel else [])
    for program in programs:
        assert error(program(x), model(x)) < 1e-14
        same = exact_effects(program, x, program.written(x), target)
        assert same.nansum().abs() < 1e-12
        last = len(program.branches)
        assert error(program.patched(x, program.written(corrupt), last), model(corrupt)) < 1e-14


@pytest.mark.parametrize("method", EFFECTS)
@pytest.mark.parametrize("filled", [False, True])
def test_edges_of_a_reversible_network(filled, method):
    """F reads b, so its edges are the input's and G's; of what F wrote before, nothing is in it."""
    model, x, corrupt = model_of(Reversible)
    program = model.program()
    written = program.written(x)
    expected = EFFECTS[method](program, x, zeros(written) if filled else program.written(corrupt), target)
    _, study = study_of(model, x, None if filled else corrupt, method=method, fill="zero" if filled else None)
    assert study.writers[:5] == ("input", *study.readers[:-1])
    actual, edge = study.per_example[:5], ~expected.isnan()
    assert error(actual.nan_to_num()[edge], expected[edge]) < TOLERANCE
    assert actual[~edge].isnan().all()
    for writer, reader in ((1, 2), (2, 3)):  # F.0 writes to a, which F.1 does not read; nor does G.1 read G.0's b
        assert expected[writer, reader].abs().max() == 0
    assert (expected[edge] != 0).sum() == BATCH * (edge[..., 0].sum() - 2)


@pytest.mark.parametrize("method", EFFECTS)
def test_edges_of_branches_side_by_side(method):
    """Both branches of a block write, and both read, as one."""
    model, x, corrupt = model_of(Parallel)
    program = model.program()
    form, study = study_of(model, x, corrupt, method=method)
    assert study.writers[1:4] == tuple(block.name for block in form.blocks)
    assert_effects(study, EFFECTS[method](program, x, program.written(corrupt), target))


@pytest.mark.parametrize("method", EFFECTS)
def test_edges_of_single_branches(method):
    """Branches of one block do not read each other."""
    model, x, corrupt = model_of(Parallel)
    program = model.program_by_branch()
    form, study = study_of(model, x, corrupt, method=method, by="branch")
    names = [name for block in form.blocks for name in block.branches]
    assert study.writers[:7] == ("input", *names)
    assert study.readers == (*names, "head")
    assert_effects(study, EFFECTS[method](program, x, program.written(corrupt), target))


@pytest.mark.parametrize("method", EFFECTS)
@pytest.mark.parametrize("filled", [False, True])
def test_edges_of_concatenations(filled, method):
    """A writer fills its own coordinates."""
    model, x, corrupt = model_of(Dense)
    program = model.program()
    instead = zeros(program.written(x)) if filled else program.written(corrupt)
    _, study = study_of(model, x, None if filled else corrupt, method=method, fill="zero" if filled else None)
    assert_effects(study, EFFECTS[method](program, x, instead, target))
