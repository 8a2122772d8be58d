"""Random residual networks: the form is the model, its spectrum is the gradient, its deletions are the model's."""

from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain

import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from networks import error, lively, mlp, normal
from unbraid.form import trace
from unbraid.walk import Polynomials, walk


@dataclass(frozen=True)
class Plan:
    """One block to build: what trace must find out by itself."""

    width: int
    outputs: int
    branches: int
    inner: int
    parallel: bool
    after: str

    @property
    def skip(self) -> str:
        return "identity" if self.width == self.outputs else "projection"

    @property
    def found(self) -> tuple[str, int, int]:
        return self.skip, self.branches, self.inner


@st.composite
def trunks(draw, most):
    """One to `most` blocks, each as wide as the one before it is at its end."""
    width, blocks = draw(st.integers(2, 6)), []
    for _ in range(draw(st.integers(1, most))):
        outputs = draw(st.integers(2, 6)) if draw(st.integers(0, 3)) == 0 else width
        branches = draw(st.sampled_from((1, 1, 2, 3)))
        inner = draw(st.sampled_from((0, 0, 1, 2)))
        # A norm over two features gives ±1 whatever it reads: its gradient is what rounding leaves of zero.
        norm = ("norm",) if outputs > 2 else ()
        after = draw(st.sampled_from(("nothing", "nothing", "relu", "tanh", *norm)))
        blocks.append(Plan(width, outputs, branches, inner, draw(st.booleans()), after))
        width = outputs
    return blocks


@st.composite
def plans(draw):
    """A single trunk of up to eight blocks, or two of up to four that meet in one further block."""
    return [draw(trunks(8))] if draw(st.integers(0, 2)) else [draw(trunks(4)), draw(trunks(4))]


class Inner(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.f = mlp(width)

    def forward(self, x):
        return self.f(x) + x


class Block(nn.Module):
    """after(skip(x) + Σ_j f_j(x)), the sum taken from the left, or the branches first."""

    def __init__(self, plan):
        super().__init__()
        self.parallel = plan.parallel
        self.skip = nn.Identity() if plan.skip == "identity" else nn.Linear(plan.width, plan.outputs)
        self.branches = nn.ModuleList(mlp(plan.width, 4, plan.outputs) for _ in range(plan.branches - 1))
        inside = [Inner(4) for _ in range(plan.inner)]
        self.branches.append(nn.Sequential(nn.Linear(plan.width, 4), nn.Tanh(), *inside, nn.Linear(4, plan.outputs)))
        self.after = {
            "nothing": nn.Identity(),
            "relu": nn.ReLU(),
            "norm": nn.LayerNorm(plan.outputs),
            "tanh": nn.Tanh(),
        }[plan.after]

    def forward(self, x: Tensor) -> Tensor:
        terms = [branch(x) for branch in self.branches]
        if not self.parallel:
            terms.insert(0, self.skip(x))
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return self.after(total + self.skip(x) if self.parallel else total)


class Meeting(nn.Module):
    """One trunk reads another in a branch: b + tanh(Q b · K a)."""

    def __init__(self, a, b):
        super().__init__()
        self.query, self.key = nn.Linear(b, b), nn.Linear(a, b)

    def forward(self, pair):
        a, b = pair
        return torch.tanh(self.query(b) * self.key(a))


class Network(nn.Module):
    def __init__(self, drawn):
        super().__init__()
        self.trunks = nn.ModuleList(nn.ModuleList(Block(plan) for plan in trunk) for trunk in drawn)
        width = drawn[-1][-1].outputs
        self.meeting = Meeting(drawn[0][-1].outputs, width) if drawn[1:] else None
        self.head = nn.Linear(width, 3)

    def branches(self) -> list[list[nn.Module]]:
        """The branch modules of each block, in order of execution."""
        blocks = [list(block.branches) for trunk in self.trunks for block in trunk]
        return [*blocks, [self.meeting]] if self.meeting else blocks

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        ends = []
        for trunk, h in zip(self.trunks, (x,) if y is None else (x, y), strict=True):
            for block in trunk:
                h = block(h)
            ends.append(h)
        end = ends[-1]
        if self.meeting:
            end = end + self.meeting((ends[0], end))
        return self.head(end)


def built(drawn):
    model = lively(Network(drawn), seed=len(drawn[0]), scale=0.7)
    inputs = tuple(normal(3, trunk[0].width, seed=seed) for seed, trunk in enumerate(drawn))
    return model, inputs


@contextmanager
def hooked(modules, hook):
    """The original model with something done to the results of some modules."""
    handles = [module.register_forward_hook(lambda m, i, output: hook(output)) for module in modules]
    yield
    for handle in handles:
        handle.remove()


def gradients(model, inputs, seed):
    leaves = [x.clone().requires_grad_() for x in inputs]
    return torch.autograd.grad(model(*leaves), leaves, seed)


# A plan is small enough to be read as it is, and to shrink one costs minutes.
@settings(max_examples=10, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(plans(), st.floats(-1.5, 1.5))
def test_any_residual_network(drawn, t):
    model, inputs = built(drawn)
    form = trace(model, inputs)
    blocks = model.branches()

    # What was put in is found, and nothing else.
    expected = [plan.found for trunk in drawn for plan in trunk]
    expected += [("identity", 1, 0)] if drawn[1:] else []
    assert [(b.skip, len(b.branches), len(b.nested)) for b in form.blocks] == expected
    assert form.sources == ("x", "y")[: len(drawn)]

    # form(x) is model(x) at any batch size.
    for batch in (1, 2, 5):
        other = tuple(normal(batch, x.shape[1], seed=batch) for x in inputs)
        assert error(form(*other), model(*other)) < 1e-12

    # Equation 11.6: the sum over lengths is the gradient; with weights t^m it is that of the model whose branches let
    # t times the gradient through, which hooks on the model's own modules bring about.
    seed = normal(3, 3, seed=99)
    tape = form.tape(inputs)
    polynomials = Polynomials(form.graph, tape, form.lengths())
    found = walk(form.graph, polynomials, {form.output: polynomials.seed(seed)}, form.sources)
    true = gradients(model, inputs, seed)
    with hooked(chain(*blocks), lambda out: out.detach() + t * (out - out.detach())):
        weighted = gradients(model, inputs, seed)
    for source, gradient, at_t, like in zip(form.sources, true, weighted, inputs, strict=True):
        stack = polynomials.coefficients(found[source], like, len(blocks) + 1)
        assert error(stack.sum(0), gradient) < 1e-10
        powers = torch.tensor([t**m for m in range(len(stack))], dtype=stack.dtype)
        size = (stack.abs() * powers.abs()[:, None, None]).sum(0).max()
        assert (torch.einsum("m,mbw->bw", powers, stack) - at_t).abs().max() <= 1e-10 * size

    # The number of paths of one trunk is ∏ (1 + n_k t).
    if not drawn[1:]:
        counts = [1]
        for modules in blocks:
            counts = [a + len(modules) * b for a, b in zip([*counts, 0], [0, *counts], strict=True)]
        assert form.path_counts() == counts

    # Deletions.
    for k, modules in enumerate(blocks):
        with hooked(modules, lambda out: out * 0):
            assert error(form.without(k)(*inputs), model(*inputs)) < 1e-12
    last = len(blocks) - 1
    assert form.without(0).without(last)(*inputs).equal(form.without(last).without(0)(*inputs))
    assert form.without(0, last)(*inputs).equal(form.without(0).without(last)(*inputs))
    assert form.without()(*inputs).equal(form(*inputs))
