"""What is asked of the form of a network whose answer is known.

The blocks, their kinds and their path counts stand in the case, as data; lengths, lesions and the path of skips alone
come from the network's own marks (`told`). Nothing that is expected here is taken from a form.
"""

import itertools
import linecache
import tempfile
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kinds.known import Known
from kinds.path_sets import by_sets, listed
from kinds.told import Dropped, Marked, Skips, first
from networks import error, normal
from oracles.structure import by_length, evaluated
from unbraid import gradient_spectrum, load, value_spectrum

FORWARD, SUMS, STRUCTURE = 1e-12, 1e-10, 1e-8


def the_reference(case: Known) -> None:
    """The story with the marks is the network, has the marks that the table names, and paths as long as it says."""
    verbs = Marked(case.counted(False))
    leaves, same = case.leaves(), case.leaves()
    marked, plain = case.network.told(verbs, *leaves), first(case.network(*same))
    assert error(marked, plain) <= FORWARD
    expected = torch.autograd.grad(plain[:, 1].sum(), same)
    scalar = marked[:, 1].sum()
    by_lengths = [by_length(verbs.marks, scalar, leaf) for leaf in leaves]
    for total, gradient in zip(by_lengths, expected, strict=True):
        assert error(total.sum(0), gradient) <= SUMS
    assert list(dict.fromkeys(verbs.met)) == [name for name in dict.fromkeys(verbs.met) if name in case.every]
    assert {*verbs.met} == {*case.every}
    _long(by_lengths, case.counts)
    if case.nested:
        verbs, leaves = Marked(case.counted(True)), case.leaves()
        scalar = case.network.told(verbs, *leaves)[:, 1].sum()
        _long([by_length(verbs.marks, scalar, leaf) for leaf in leaves], case.opened)


def _long(by_lengths: Sequence[Tensor], counts: Sequence[int]) -> None:
    """There is a gradient of each length that has paths, and of no other."""
    sizes = [max(float(g.abs().max()) for g in gradients) for gradients in zip(*by_lengths, strict=True)]
    for length, (size, count) in enumerate(zip_longest(sizes, counts, fillvalue=0)):
        assert (size > 1e-9 * max(sizes)) == (count > 0), (
            f"length {length}: {count} paths, and a gradient of {size:.1e}"
        )


def blocks(case: Known) -> None:
    """Every block, of its kind, and no other; what is none has its reason."""
    form = case.form
    tops = [b.skip for b in form.blocks]
    assert len(tops) == len(case.names), f"{tops}, and there are {len(case.names)} top-level blocks"
    inner = [] if case.unsettled else [b for b in form.all_blocks if b.index >= len(tops)]
    assert len(inner) == len(case.nested), f"{len(inner)} nested blocks, and there are {len(case.nested)}"
    assert [len(b.branches) for b in form.blocks] == [*(case.branches or [1] * len(tops))]
    assert [case.every[b.parent[0]] for b in inner] == [*case.nested.values()]
    _fits(tops, case.skips)
    _fits([b.skip for b in inner], case.nested_skips)
    _fits([b.join for b in form.blocks], case.joins)
    _fits([b.join for b in inner], case.nested_joins)
    free = [form.graph.streams[stream].shape[0] for stream in (*form.graph.inputs, form.graph.outputs[0])]
    assert not any(isinstance(size, int) for size in free), f"the batch is fixed: {free}"
    lines = [_line(case, refusal.where) for refusal in form.refusals]
    for piece in case.refused:
        assert any(piece in line for line in lines), f"no refusal of {piece!r}; there are of {lines}"


def _fits(found: Sequence[str], expected: str) -> None:
    words = expected.split() if " " in expected else [expected] * len(found)
    assert len(found) == len(words)
    assert all(a in b.split("|") for a, b in zip(found, words, strict=True)), f"{found}, and it should be {words}"


def _line(case: Known, where: str) -> str:
    """The code at a place in the network's story."""
    name, number = where.rsplit(":", 1)
    file = case.network.story.__code__.co_filename
    return linecache.getline(file, int(number)).strip() if Path(file).name == name else where


def counts(case: Known) -> None:
    """The paths of each length, closed and opened."""
    closed, opened = case.counts, case.opened
    if case.or_counts and case.form.path_counts() == [*case.or_counts]:
        closed, opened = case.or_counts, case.or_opened
    assert case.form.path_counts() == [*closed]
    assert case.unsettled or case.form.path_counts(nested=True) == [*(opened or closed)]


def structure(case: Known) -> None:
    """Length by length against the marks, at every input, closed and opened."""
    for opened in (False, True) if case.nested else (False,):
        for number, source in enumerate(case.form.sources):
            points, expected = case.oracle(number, opened)
            spectrum = gradient_spectrum(case.form, case.inputs, target=1, at=source, nested=opened)
            departed = departure(spectrum.gradients, points, expected)
            assert departed <= STRUCTURE, f"{'opened, ' * opened}at {source}: {departed:.1e}"
            assert list(spectrum.counts) == case.form.path_counts(opened) or len(case.inputs) > 1


def departure(gradients: Tensor, points: Tensor, expected: Tensor) -> float:
    """How far gradients by length are from those at some values of t, relative to the largest."""
    return float((evaluated(gradients, points) - expected).abs().max() / expected.abs().max())


def paths(case: Known) -> None:
    """Single paths, by the set of blocks that they pass, against networks in which the others are cut."""
    found, expected = listed(case), by_sets(case)
    size = max(float(value.abs().max()) for value in expected.values())
    for sets, value in expected.items():
        departed = float((found.get(sets, torch.zeros_like(value)) - value).abs().max())
        assert departed <= STRUCTURE * size, f"through {[case.names[k] for k in sorted(sets)]}: {departed:.1e}"


def values(case: Known) -> None:
    """The form is the network at any batch size; by length the values sum to the target, and the skips' is known."""
    for batch in (1, 2, 5):
        other = tuple(normal(batch, *x.shape[1:], seed=batch + k) for k, x in enumerate(case.inputs))
        with torch.no_grad():
            assert error(first(case.form(*other)), case.run(*other)) <= FORWARD, f"a batch of {batch}"
    found = value_spectrum(case.form, case.inputs, target=1)
    size = max(float(part.abs().max()) for part in (found.from_input, found.from_constants))
    assert float((found.total() - case.run(*case.inputs)[:, 1]).abs().max()) <= SUMS * size
    if case.straight:
        departed = float((found.from_input[0] - skips_alone(case)).abs().max())
        assert departed <= SUMS * size, f"the path that passes skips alone: {departed:.1e}"


def skips_alone(case: Known) -> Tensor:
    """The value of the path that passes no branch, its gates held: [batch]."""
    leaves = case.leaves()
    scalar = case.network.told(Skips(case.counted(False)), *leaves)[:, 1].sum()
    gradients = torch.autograd.grad(scalar, leaves, allow_unused=True)
    along = [(g * x).flatten(1).sum(1) for g, x in zip(gradients, case.inputs, strict=True) if g is not None]
    return torch.stack(along).sum(0)


def lesions(case: Known) -> None:
    """A branch left out is the story without it; a gate of the skip stays as it is computed."""
    for index, name in enumerate(case.every):
        _same(case, index, Dropped(name))
        count = case.branches[index] if case.branches and index < len(case.names) else 1
        for j in range(count if count > 1 else 0):
            _same(case, (index, j), Dropped(name, j))


def _same(case: Known, which, dropped: Dropped) -> None:
    with torch.no_grad():
        found, expected = first(case.form.without(which)(*case.inputs)), case.network.told(dropped, *case.inputs)
    assert error(found, expected) <= FORWARD, f"without {which}, {dropped.name}: {error(found, expected):.1e}"


def saved(case: Known) -> None:
    """Saved and loaded it is the same form, to the bit."""
    with tempfile.TemporaryDirectory() as folder:
        loaded = load(case.form.save(Path(folder) / "form"))
        assert first(loaded(*case.inputs)).equal(first(case.form(*case.inputs)))
        assert first(loaded.without(0)(*case.inputs)).equal(first(case.form.without(0)(*case.inputs)))
        assert loaded.path_counts(nested=True) == case.form.path_counts(nested=True)
        kinds = [[(b.skip, b.join, b.parent, b.name) for b in form.all_blocks] for form in (loaded, case.form)]
        assert kinds[0] == kinds[1]


CHECKS = (the_reference, blocks, counts, structure, paths, values, lesions, saved)


def asked(cases: Iterable[str], quick: Collection[str]) -> list[Any]:
    """Every check of every case; those that trace are slow, but for some cases, and saving is slow for all."""
    chosen = set(quick)
    assert chosen <= {*cases}
    every = itertools.product(cases, CHECKS)
    return [
        _parameter(name, check, check is the_reference or (name in chosen and check is not saved))
        for name, check in every
    ]


def _parameter(name: str, check: Callable[[Known], None], fast: bool) -> Any:
    return pytest.param(name, check, id=f"{name}: {check.__name__}", marks=[] if fast else pytest.mark.slow)
