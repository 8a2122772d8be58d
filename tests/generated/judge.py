"""One generated network against everything that is known about it without unbraid."""

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from generated.network import Choosing, Dropping, Marking, Network, Teller, build, choices, sums, told
from generated.plan import Plan
from networks import F64, error
from oracles.structure import at_points, evaluated
from unbraid import all_paths, gradient_spectrum, trace, unravel, value_spectrum
from unbraid.errors import InexactError
from unbraid.form import ResidualForm

# form(x) against model(x), and sums against the whole, relative in the largest norm: DESIGN's table of exactness.
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
            departed = error(case.form(x), case.run(x))
        assert departed <= case.forward, f"form against model at a batch of {batch}: {departed:.1e}"


def terms(case: Case) -> None:
    """The stream that the head reads is their sum; it is the last sum, or what the trunk makes of it."""
    ends = Ends()
    case.run(case.x, ends)
    found = unravel(case.form, case.x)
    assert found.error <= case.sum, f"{found.error:.1e}"
    assert len(found.values) >= 1 + len(case.form.blocks), f"{len(found.values)} terms"
    assert min(error(found.total(), end) for end in ends.seen) <= case.sum, "the terms do not sum to the stream"


class Ends(Teller):
    """Notes the last sum, and what follows it."""

    def sum(self, block, skip, branches):
        total = super().sum(block, skip, branches)
        self.seen = [total.detach().clone(), block.after(total.clone()).detach()]
        return total


def gradient(case: Case) -> None:
    """Sums over lengths are the gradient of the model's own autograd, and of a copy in float64."""
    leaf = case.x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(case.run(leaf)[:, 1].sum(), leaf)
    spectrum = gradient_spectrum(case.form, case.x, target=1)
    departed = error(spectrum.total(), expected)
    assert departed <= case.sum, f"the spectrum's sum against autograd: {departed:.1e}"
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
        marking = Marking(counted, opened)
        leaf = case.x.to(F64).requires_grad_()
        scalar = case.run(leaf, marking, F64)[:, 1].sum()
        # A path passes one branch of a sum at most: more points than sums would see no more.
        points, expected = at_points(marking.marks, scalar, leaf, len(counted))
        found = gradient_spectrum(case.form, case.x, target=1, nested=opened).gradients
        assert len(found) <= len(points), f"{len(found)} lengths"
        departed = float((evaluated(found, points) - expected).abs().max() / (found.abs().max() or 1.0))  # dead units
        bar = case.sum
        assert departed <= bar, f"lengths{' of opened blocks' if opened else ''} against the marks: {departed:.1e}"


def paths(case: Case) -> None:
    """Brute force: one backward pass for each choice of operands; per length the same values come out."""
    by_value = value_spectrum(case.form, case.x, target=1)
    target = case.run(case.x)[:, 1].detach()
    size = max(part.abs().max() for part in (by_value.from_input, by_value.from_constants, target))
    departed = float((by_value.total() - target).abs().max() / size)
    assert departed <= case.sum, f"values by length against the target: {departed:.1e}"
    every = choices(case.plan)
    if len(every) > MOST_PATHS or case.x.dtype is torch.bfloat16:
        return
    expected, size = [], 0.0
    for choice in every:
        leaf = case.x.to(F64).requires_grad_()
        scalar = case.run(leaf, Choosing(choice), F64)[:, 1].sum()
        (g,) = torch.autograd.grad(scalar, leaf, allow_unused=True) if scalar.requires_grad else (None,)
        along = torch.zeros_like(leaf) if g is None else g * leaf.detach()
        expected.append((sum(1 for j in choice.values() if j), float(along.sum())))
        size = max(size, float(along.abs().sum()))  # what the numbers that cancel amount to
    listed = all_paths(case.form, case.x, target=1, linearize="jacobian")
    found = list(zip(listed.lengths.tolist(), listed.values.sum(1).tolist(), strict=True))
    assert len(found) == len(expected), f"{len(found)} paths of {len(expected)}"
    for (a, v), (b, w) in zip(sorted(found), sorted(expected), strict=True):
        assert a == b
        assert abs(v - w) <= case.sum * size, f"a path of length {a}: {v:.6g} of {w:.6g}"


def lesions(case: Case) -> None:
    """A branch left out is the network whose generator leaves it out; which one is the form's own numbering."""
    every = sums(case.plan)
    tops = [k for k, (_, _, top) in enumerate(every) if top]
    for index, number in enumerate(tops):
        expected = case.run(case.x, Dropping(number)).detach()
        departed = error(case.form.without(index)(case.x), expected)
        assert departed <= case.forward, f"without block {index}: {departed:.1e}"
    for index, number in enumerate(tops):
        count = every[number][1]
        if count > 1:
            singles = [case.run(case.x, Dropping(number, j)).detach() for j in range(count)]
            _matched([case.form.without((index, j))(case.x) for j in range(count)], singles, case.forward, "branches")
    nested = [b.index for b in case.form.all_blocks if b.index not in {t.index for t in case.form.blocks}]
    inner = [case.run(case.x, Dropping(k)).detach() for k, (_, _, top) in enumerate(every) if not top]
    _matched([case.form.without(index)(case.x) for index in nested], inner, case.forward, "nested blocks")


def _matched(found: list[Tensor], expected: list[Tensor], bar: float, what: str) -> None:
    """Each of the one list is one of the other."""
    left = list(expected)
    for value in found:
        near = [k for k, other in enumerate(left) if error(value, other) <= bar]
        assert near, f"{what} left out one by one: one is none of the generator's"
        left.pop(near[0])
    assert not left, f"{what} left out one by one: {len(left)} of the generator's are missing"


def saved(case: Case) -> None:
    """Saved and loaded, the numbers are the same to the bit."""
    with tempfile.TemporaryDirectory() as folder:
        loaded = ResidualForm.load(case.form.save(Path(folder) / "form"))
        assert loaded(case.x).equal(case.form(case.x)), "the loaded form gives other numbers"
        assert loaded.without(0)(case.x).equal(case.form.without(0)(case.x)), "the loaded form's lesion differs"


CHECKS: tuple[Callable[[Case], None], ...] = (counts, values, terms, gradient, structure, paths, lesions, saved)


def judge(plan: Plan) -> None:
    """Build, trace, and check a plan's network."""
    Case(plan).judge()
