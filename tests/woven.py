"""Random residual networks told as plain code, each with its paths by brute force.

A network's forward is a story: `add(branches..., skip)` where it adds, `act` and `norm` where it is not linear. What
these verbs mean decides what comes out: the network, or the gradient through chosen operands alone, with the
non-linear factors differentiated or held. None of it knows unbraid.
"""

from itertools import product

import torch
from torch import Tensor, nn

from networks import F64, normal

CLASSES, WIDTH = 3, 4
ACTS = {"tanh": torch.tanh, "relu": torch.relu, "gelu": torch.nn.functional.gelu, "sigmoid": torch.sigmoid}
SLOPES = {"tanh": 1.0, "relu": 0.0, "gelu": 0.5, "sigmoid": 0.25}  # at zero


class Verbs:
    """The network as it is."""

    def act(self, name, z):
        return ACTS[name](z)

    def norm(self, z):
        return z / (z.square().mean(-1, keepdim=True) + 0.1).sqrt()

    def add(self, block, *operands):
        return sum(operands[1:], start=operands[0])


class Held(Verbs):
    """Non-linear factors held at their values: φ(0) + gate·z, a norm's scale; written here once more."""

    def act(self, name, z):
        zero = ACTS[name](torch.zeros((), dtype=z.dtype))
        small = z.abs() < torch.finfo(z.dtype).eps ** 0.5
        gate = torch.where(small, SLOPES[name], (ACTS[name](z) - zero) / torch.where(small, 1.0, z))
        return zero + z * gate.detach()

    def norm(self, z):
        return z * (z.square().mean(-1, keepdim=True) + 0.1).rsqrt().detach()


def gated(base: type[Verbs], choice: dict[int, int], counted, leaves=None) -> Verbs:
    """The same values, but a gradient passes each counted addition through the chosen operand alone."""

    class Gated(base):
        def add(self, block, *operands):
            if block in counted:
                operands = [o if choice.get(block) == j else o.detach() for j, o in enumerate(operands, start=-1)]
            total = super().add(block, *operands)
            return total + leaves[block] if leaves and block in leaves else total

    return Gated()


class Woven(nn.Module):
    """Blocks of several kinds, one after the other: plain data (kind, act, order, scale, after) say which.

    Additions are numbered in order of execution. A nested block's inner addition comes before its outer one.
    """

    def __init__(self, plan, seed: int = 0) -> None:
        super().__init__()
        self.plan = tuple(plan)
        own = {"simple": (1, 0), "parallel": (2, 0), "projected": (1, 1), "nested": (1, 2)}
        count = 0
        for kind, _, order, *_ in self.plan:
            branches, others = own[kind]
            count += branches * order.split().count("linear") + others
        self.matrices = nn.ParameterList(
            nn.Parameter(normal(WIDTH, WIDTH, seed=seed + 7 * k + 1) * 0.7) for k in range(count)
        )
        self.biases = nn.ParameterList(nn.Parameter(normal(WIDTH, seed=seed + 7 * k + 2) * 0.5) for k in range(count))
        self.head = nn.Parameter(normal(WIDTH, CLASSES, seed=seed + 3))
        self.bias = nn.Parameter(normal(CLASSES, seed=seed + 4))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.story(Verbs(), x)

    def story(self, net: Verbs, x: Tensor) -> Tensor:
        number = matrix = 0

        def linear(z):
            nonlocal matrix
            matrix += 1
            return nn.functional.linear(z, self.matrices[matrix - 1], self.biases[matrix - 1])

        h = x
        for kind, act, order, scale, after in self.plan:

            def branch(z, act=act, order=order, scale=scale):
                for word in order.split():
                    z = linear(z) if word == "linear" else net.act(act, z) if word == "act" else net.norm(z)
                return scale * z

            if kind == "parallel":
                n = net.norm(h)
                h = net.add(number, h, branch(n), branch(n))
            elif kind == "projected":
                h = net.add(number, linear(h), branch(h))
            elif kind == "nested":
                v = net.act(act, linear(h))
                v = net.add(number, v, branch(v))
                number += 1
                h = net.add(number, h, linear(v))
            else:
                h = net.add(number, h, branch(h))
            number += 1
            h = net.act(after, h) if after in ACTS else net.norm(h) if after == "norm" else h
        return h @ self.head + self.bias

    def operands(self) -> list[int]:
        """How many operands each addition has, in order of execution."""
        found = []
        for kind, *_ in self.plan:
            found += {"simple": [2], "parallel": [3], "projected": [2], "nested": [2, 2]}[kind]
        return found

    def inner(self) -> dict[int, int]:
        """The additions inside branches, each with the addition that ends its branch."""
        found, number = {}, 0
        for kind, *_ in self.plan:
            if kind == "nested":
                found[number] = number + 1
                number += 1
            number += 1
        return found

    def choices(self, nested: bool):
        """Every path as {addition: operand}, −1 the skip: a skip around a nested block does not meet what is inside."""
        inner = self.inner()
        counted = [k for k in range(len(self.operands())) if nested or k not in inner]
        outer = {v: k for k, v in inner.items()} if nested else {}
        seen = set()
        for picks in product(*(range(-1, self.operands()[k] - 1) for k in counted)):
            choice = dict(zip(counted, picks, strict=True))
            for end, k in outer.items():
                if choice[end] == -1:
                    choice.pop(k)
            key = tuple(sorted(choice.items()))
            if key not in seen:
                seen.add(key)
                yield choice

    def length(self, choice, nested: bool) -> int:
        outer = set(self.inner().values()) if nested else set()
        return sum(1 for k, j in choice.items() if j >= 0 and k not in outer)

    def paths(self, x: Tensor, cotangent: Tensor, base: type[Verbs], nested: bool = False, at: int | None = None):
        """(choice, gradient) of every path, one backward pass each; `at`: from the branch output of one addition."""
        counted = [k for k in range(len(self.operands())) if nested or k not in self.inner()]
        for choice in self.choices(nested):
            leaf = x.clone().requires_grad_()
            leaves = {} if at is None else {at: torch.zeros(len(x), WIDTH, dtype=F64, requires_grad=True)}
            # What is not chosen is cut, so that the passes of all choices together hold each path once.
            output = self.story(gated(base, choice, counted, leaves), leaf)
            wanted = leaf if at is None else leaves[at]
            (gradient,) = torch.autograd.grad(output, wanted, cotangent, allow_unused=True)
            yield choice, torch.zeros_like(wanted) if gradient is None else gradient
