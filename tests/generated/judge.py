"""One generated network against everything that is known about it without unbraid."""

import copy
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from generated.network import Choosing, Dropping, Marking, Network, Teller, build, choices, sums, told
from generated.plan import Plan
from networks import F64, error
from oracles.rounding import spread
from oracles.structure import at_points, evaluated
from unbraid import all_paths, gradient_spectrum, trace, unravel, value_spectrum
from unbraid.errors import InexactError
from unbraid.form import ResidualForm, load

# form(x) against model(x), and sums against the whole, relative in the largest norm: DESIGN's table of exactness. A few
# roundings in bfloat16 come to 2e-2, and where units saturate float32 keeps few digits of a gradient: so below float64
# what the reference itself does when it rounds counts, where that is larger.
BARS = {torch.float64: (1e-12, 1e-10), torch.float32: (1e-5, 1e-4), torch.bfloat16: (2e-2, 5e-2)}
MOST_PATHS = 64


class Case:
    """A plan's network, its form, and the checks, in the order in which they should fail."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.network, self.x = build(plan)
        self.forward, self.sum = BARS[self.x.dtype]
        self.state = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.modules = {name: dict(vars(module)) for name, module in self.network.named_modules()}
        self.form: ResidualForm = trace(self.network, self.x)

    def judge(self) -> None:
        """Raises AssertionError at the first check that fails."""
        for check in CHECKS:
            # Terms may cancel so far that bfloat16 cannot hold their sum: then it must say so, and never pass.
            try:
                check(self)
            except InexactError:
                if self.x.dtype is not torch.bfloat16:
                    raise
            except AssertionError as fault:
                raise AssertionError(f"{check.__name__}: {fault}") from None
        self.untouched()

    def run(self, x: Tensor, teller: Teller | None = None, dtype: torch.dtype | None = None) -> Tensor:
        """What the network gives; a copy runs, so that its statistics stay as they are."""
        network = self.copy(dtype)
        if teller is None:
            return network(x)
        with told(network, teller):
            return network(x)

    def close(self, a: Tensor, b: Tensor, bar: float, run: Callable[[torch.dtype], Tensor], size: float = 0.0) -> bool:
        """Whether two tensors differ by rounding alone, relative to the second, or to a part that is larger.

        Args:
            a: what is judged.
            b: what it should be.
            bar: the largest error.
            run: what gives the second tensor, in another type.
            size: the largest number of the parts that sum to it.
        """
        departed = float((a - b).detach().abs().max())
        size = max(size, float(b.detach().abs().max())) or 1.0
        if departed <= bar * size or self.x.dtype is F64:
            return departed <= bar * size
        return departed <= 2 * spread(lambda: run(F64), self.x.dtype)

    def gradient(self, dtype: torch.dtype | None = None) -> Tensor:
        """The gradient of the second score, by the network's own autograd."""
        leaf = self.x.to(dtype or self.x.dtype).clone().requires_grad_()
        (gradient,) = torch.autograd.grad(self.run(leaf, dtype=dtype)[:, 1].sum(), leaf)
        return gradient

    def copy(self, dtype: torch.dtype | None = None) -> Network:
        return copy.deepcopy(self.network).to(dtype or self.x.dtype)

    def untouched(self) -> None:
        state = self.network.state_dict()
        assert list(state) == list(self.state), "the state dict has other names"
        assert all(torch.equal(state[name], value) for name, value in self.state.items()), (
            "parameters or buffers changed"
        )
        now = {name: dict(vars(module)) for name, module in self.network.named_modules()}
        changed = [name for name in self.modules if now[name].keys() != self.modules[name].keys()]
        assert not changed, f"attributes came or went: {changed}"


def counts(case: Case) -> None:
    """Every sum of the plan, and no other."""
    found = [(len(block.branches), _inside(block)) for block in case.form.blocks]
    expected = [block.found for block in case.plan.order]
    assert found == expected, f"(branches, blocks inside) of each block: {found}, and the plan has {expected}"


def _inside(block) -> int:
    return sum(1 + _inside(inner) for inner in block.nested)


def values(case: Case) -> None:
    """The form is the model, at this batch size and others."""
    for batch in {case.plan.batch, 2, 5}:
        x = torch.cat([case.x * (1 - 0.1 * k) for k in range(batch)])[:batch]
        with torch.no_grad():
            here, there = case.form(x), case.run(x)
        same = case.close(here, there, case.forward, lambda dtype, x=x: case.run(x.to(dtype), dtype=dtype))
        assert same, f"form against model at a batch of {batch}: {error(here, there):.1e}"


def terms(case: Case) -> None:
    """The stream that the head reads is their sum; it is the last sum, or what the trunk makes of it."""
    found = unravel(case.form, case.x)
    assert found.error <= case.sum, f"{found.error:.1e}"
    assert len(found.values) >= 1 + len(case.form.blocks), f"{len(found.values)} terms"
    size = float(found.values.abs().max())

    def end(which: int, dtype: torch.dtype | None = None) -> Tensor:
        ends = Ends()
        case.run(case.x.to(dtype or case.x.dtype), ends, dtype)
        return ends.seen[which]

    same = [case.close(found.total(), end(k), case.sum, partial(end, k), size) for k in (0, 1)]
    assert any(same), "the terms do not sum to the stream"


class Ends(Teller):
    """Notes the last sum, and what follows it."""

    def sum(self, block, skip, branches):
        total = super().sum(block, skip, branches)
        self.seen = [total.detach().clone(), block.after(total.clone()).detach()]
        return total


def gradient(case: Case) -> None:
    """Sums over lengths are the gradient of the model's own autograd, and of a copy in float64."""
    expected = case.gradient()
    spectrum = gradient_spectrum(case.form, case.x, target=1)
    size = float(spectrum.gradients.abs().max())
    same = case.close(spectrum.total(), expected, case.sum, case.gradient, size)
    assert same, f"the spectrum's sum against autograd: {error(spectrum.total(), expected):.1e}"
    counted = [1]
    for block in case.plan.order:
        counted = [a + len(block.branches) * b for a, b in zip([*counted, 0], [0, *counted], strict=True)]
    assert list(spectrum.counts) == counted == case.form.path_counts(), f"{spectrum.counts} paths by length"


def structure(case: Case) -> None:
    """Length by length against marks on the generator's own branches, closed and opened."""
    if case.x.dtype is torch.bfloat16:
        return
    every = sums(case.plan)
    for opened in (False, True) if any(not top for _, _, top in every) else (False,):
        counted = {k for k, (_, _, top) in enumerate(every) if top or opened}
        found = gradient_spectrum(case.form, case.x, target=1, nested=opened).gradients
        points, expected = _marked(case, counted, opened)
        # A path passes one branch of a sum at most: more points than sums would see no more.
        assert len(found) <= len(points), f"{len(found)} lengths"
        at_the_points = evaluated(found, points)
        size = float(found.abs().max())
        same = case.close(
            at_the_points, expected, case.sum, lambda dtype, c=counted, o=opened: _marked(case, c, o)[1], size
        )
        departed = float((at_the_points - expected).abs().max() / (size or 1.0))  # dead units
        assert same, f"lengths{' of opened blocks' if opened else ''} against the marks: {departed:.1e}"


def _marked(case: Case, counted: set[int], opened: bool) -> tuple[Tensor, Tensor]:
    """The gradient with the generator's own branches scaled by t on the way back, at one point more than there are."""
    marking = Marking(counted, opened)
    leaf = case.x.to(F64).requires_grad_()
    scalar = case.run(leaf, marking, F64)[:, 1].sum()
    return at_points(marking.marks, scalar, leaf, len(counted))


def paths(case: Case) -> None:
    """Brute force: one backward pass for each choice of operands; per length the same values come out."""
    by_value = value_spectrum(case.form, case.x, target=1)
    target = case.run(case.x)[:, 1].detach()
    size = max(float(part.abs().max()) for part in (by_value.from_input, by_value.from_constants))

    def score(dtype: torch.dtype) -> Tensor:
        return case.run(case.x.to(dtype), dtype=dtype)[:, 1]

    same = case.close(by_value.total(), target, case.sum, score, size)
    assert same, f"values by length against the target: {error(by_value.total(), target):.1e}"
    every = choices(case.plan)
    if len(every) > MOST_PATHS or case.x.dtype is torch.bfloat16:
        return
    size = 0.0  # what the numbers that cancel amount to
    expected = []
    for choice in every:
        along = _along(case, choice)
        expected.append((sum(1 for j in choice.values() if j), float(along.sum()), choice))
        size = max(size, float(along.abs().sum()))
    listed = all_paths(case.form, case.x, target=1, linearize="jacobian")
    found = list(zip(listed.lengths.tolist(), listed.values.sum(1).tolist(), strict=True))
    assert len(found) == len(expected), f"{len(found)} paths of {len(expected)}"
    for (a, v), (b, w, choice) in zip(sorted(found), sorted(expected, key=lambda path: path[:2]), strict=True):
        assert a == b
        one = [torch.tensor(value, dtype=F64) for value in (v, w)]
        same = case.close(*one, case.sum, lambda dtype, c=choice: _along(case, c).sum(), size)
        assert same, f"a path of length {a}: {v:.6g} of {w:.6g}"


def _along(case: Case, choice: dict[int, int]) -> Tensor:
    """What the input brings along one path: its gradient through the chosen operands alone, times the input."""
    leaf = case.x.to(F64).requires_grad_()
    scalar = case.run(leaf, Choosing(choice), F64)[:, 1].sum()
    (g,) = torch.autograd.grad(scalar, leaf, allow_unused=True) if scalar.requires_grad else (None,)
    return torch.zeros_like(leaf) if g is None else g * leaf.detach()


def lesions(case: Case) -> None:
    """A branch left out is the network whose generator leaves it out; which one is the form's own numbering."""
    every = sums(case.plan)
    tops = [k for k, (_, _, top) in enumerate(every) if top]
    for index, number in enumerate(tops):
        _matched(case, [index], [(number, None)], f"block {index}")
    for index, number in enumerate(tops):
        count = every[number][1]
        if count > 1:
            _matched(case, [(index, j) for j in range(count)], [(number, j) for j in range(count)], "branches")
    nested = [b.index for b in case.form.all_blocks if b.index not in {t.index for t in case.form.blocks}]
    _matched(case, nested, [(k, None) for k, (_, _, top) in enumerate(every) if not top], "nested blocks")


def _matched(case: Case, found: Sequence[Any], expected: list[tuple[int, int | None]], what: str) -> None:
    """Each lesion of the form is one of the generator's."""

    def dropped(which: tuple[int, int | None], dtype: torch.dtype) -> Tensor:
        return case.run(case.x.to(dtype), Dropping(*which), dtype).detach()

    left = {which: dropped(which, case.x.dtype) for which in expected}
    for lesion in found:
        value = case.form.without(lesion)(case.x)
        near = [which for which in left if case.close(value, left[which], case.forward, partial(dropped, which))]
        assert near, f"{what} left out one by one: one is none of the generator's"
        left.pop(near[0])
    assert not left, f"{what} left out one by one: {len(left)} of the generator's are missing"


def saved(case: Case) -> None:
    """Saved and loaded, the numbers are the same to the bit."""
    with tempfile.TemporaryDirectory() as folder:
        loaded = load(case.form.save(Path(folder) / "form"))
        assert loaded(case.x).equal(case.form(case.x)), "the loaded form gives other numbers"
        assert loaded.without(0)(case.x).equal(case.form.without(0)(case.x)), "the loaded form's lesion differs"


CHECKS: tuple[Callable[[Case], None], ...] = (counts, values, terms, gradient, structure, paths, lesions, saved)


def judge(plan: Plan) -> None:
    """Build, trace, and check a plan's network."""
    try:
        case = Case(plan)
    except InexactError:
        # A sum that is written anew is rounded otherwise than the model's own, which 8 bits may not bear; it says so.
        if plan.dtype != "bfloat16":
            raise
        return
    case.judge()
