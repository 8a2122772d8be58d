"""The table of exactness over random networks: topology and spelling, element type, batch size, train and eval."""

import copy
from contextlib import nullcontext, suppress
from dataclasses import dataclass

import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import nn

from networks import error, lively, normal
from unbraid import all_paths, gradient_spectrum, trace, unravel, value_spectrum
from unbraid.errors import InexactError

WIDTH = 4
# form(x) against model(x), and sums of terms, spectra and paths against the whole, relative in the largest norm.
BARS = {torch.float64: (1e-12, 1e-10), torch.float32: (1e-5, 1e-4), torch.bfloat16: (2e-2, 5e-2)}


@dataclass(frozen=True)
class Plan:
    """One block: how its addition is spelled, whether it uses the branch before it once more, what is inside."""

    spelling: str
    shared: bool
    nested: bool
    norm: bool
    after: str


PLANS = st.lists(
    st.builds(
        Plan,
        st.sampled_from(
            ("x + f(x)", "f(x) + x", "x += f(x)", "x[:, :2] += f(x)[:, :2]", "x + f(x) + g(x)", "S x + f(x)")
        ),
        st.booleans(),
        st.booleans(),
        st.booleans(),
        st.sampled_from(("nothing", "tanh", "relu_")),
    ),
    min_size=1,
    max_size=4,
)


class Branch(nn.Module):
    def __init__(self, plan, scale):
        super().__init__()
        self.first, self.inner, self.last = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.norm = nn.BatchNorm1d(WIDTH) if plan.norm else nn.Identity()
        self.nested, self.scale = plan.nested, scale

    def forward(self, x):
        h = torch.tanh(self.first(self.norm(x)))
        if self.nested:
            h = h + torch.tanh(self.inner(h))
        return self.scale * self.last(h)


class Network(nn.Module):
    """Blocks one after the other, on one trunk or on two that meet in a sum inside a branch."""

    def __init__(self, plans, trunks):
        super().__init__()
        self.plans = plans
        self.stems = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(trunks))
        self.branches, self.others = nn.ModuleList(), nn.ModuleList()
        for plan in plans:
            again = plan.shared and len(self.branches) > 0
            self.branches.append(self.branches[-1] if again else Branch(plan, 0.5))
            self.others.append(nn.Linear(WIDTH, WIDTH))
        self.key = nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x):
        ends = [self.trunk(stem(x)) for stem in self.stems]
        h = ends[-1]
        if len(ends) > 1:
            h = h + torch.tanh(self.key(h) * ends[0])
        return self.head(h)

    def trunk(self, x):
        for plan, f, g in zip(self.plans, self.branches, self.others, strict=True):
            x = self.block(plan, f, g, x)
            x = {"nothing": lambda h: h, "tanh": torch.tanh, "relu_": lambda h: torch.relu_(h + 0.5)}[plan.after](x)
        return x

    def block(self, plan, f, g, x):
        if plan.spelling == "f(x) + x":
            return f(x) + x
        if plan.spelling == "x += f(x)":
            change = f(x)
            x = x.clone()
            x += change
            return x
        if plan.spelling == "x[:, :2] += f(x)[:, :2]":
            change = f(x)
            x = x.clone()
            x[:, :2] += change[:, :2]
            return x
        if plan.spelling == "x + f(x) + g(x)":
            return x + f(x) + 0.5 * torch.sin(g(x))
        if plan.spelling == "S x + f(x)":
            return g(x) + f(x)
        return x + f(x)


@settings(
    max_examples=12,
    derandomize=True,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),  # a plan is small enough to be read as it is
)
@given(PLANS, st.integers(1, 2), st.sampled_from(list(BARS)), st.booleans(), st.integers(4, 8))
def test_the_table_of_exactness(plans, trunks, dtype, training, batch):
    model = lively(Network(plans, trunks), seed=len(plans) + 5 * batch, dtype=dtype).train(training)
    x = normal(batch, WIDTH, seed=batch, dtype=dtype)
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    form = trace(model, x)
    forward, sums = BARS[dtype]

    for other in (x, normal(batch + 3, WIDTH, seed=7, dtype=dtype)):
        with torch.no_grad():
            whole = output(model, other)
        assert error(form(other), whole) <= forward

    target = output(model, x)[:, 1]
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(output(model, leaf)[:, 1].sum(), leaf)

    # Terms may cancel so far that bfloat16 cannot hold their sum to the bar: then it must say so, and never pass.
    with suppress(InexactError) if dtype is torch.bfloat16 else nullcontext():
        terms = unravel(form, x)
        assert terms.error <= sums
        assert error(terms.total(), sum(terms.values)) <= sums
    with suppress(InexactError) if dtype is torch.bfloat16 else nullcontext():
        spectrum = gradient_spectrum(form, x, target=1)
        assert error(spectrum.total(), gradient) <= sums
        assert spectrum.counts == tuple(form.path_counts())
    with suppress(InexactError) if dtype is torch.bfloat16 else nullcontext():
        assert error(value_spectrum(form, x, target=1).total(), target) <= sums
    with suppress(InexactError) if dtype is torch.bfloat16 else nullcontext():
        paths = all_paths(form, x, target=1)
        assert error(paths.values.sum(0) + paths.constants, target) <= sums
        # Of a product the frozen model holds one factor, and the paths through it end there.
        every = all_paths(form, x, target=1, linearize="jacobian")
        assert len(paths.masks) <= len(every.masks) == sum(form.path_counts())

    # Nothing of the model was changed, running statistics least of all.
    assert all(torch.equal(value, buffers[name]) for name, value in model.named_buffers())


def output(model, x):
    """What the model gives; its statistics stay as they are."""
    return copy.deepcopy(model)(x)
