"""The steps of a branch, each a module that keeps the size: none of them is, or holds, a residual block."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class Norm(nn.Module):
    """A layer norm, spelled out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, z: Tensor) -> Tensor:
        return self.gain * z * torch.rsqrt(z.square().mean(-1, keepdim=True) + 0.1)


class Gate(nn.Module):
    """z·σ(W z), the gate computed with gradients, without, or detached."""

    def __init__(self, width: int, how: str) -> None:
        super().__init__()
        self.of, self.how = nn.Linear(width, width), how

    def forward(self, z: Tensor) -> Tensor:
        if self.how == "no_grad":
            with torch.no_grad():
                gate = torch.sigmoid(self.of(z))
            return z * gate
        gate = torch.sigmoid(self.of(z))
        return z * (gate.detach() if self.how == "detached" else gate)


class Product(nn.Module):
    """tanh(U z) · (V z)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.u, self.v = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, z: Tensor) -> Tensor:
        return torch.tanh(self.u(z)) * self.v(z)


class Attention(nn.Module):
    """One head over the positions, spelled out or torch's own."""

    def __init__(self, width: int, fused: bool) -> None:
        super().__init__()
        self.qkv, self.fused = nn.Linear(width, 3 * width), fused

    def forward(self, z: Tensor) -> Tensor:
        q, k, v = self.qkv(z).chunk(3, -1)
        if self.fused:
            return F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        return torch.softmax(q @ k.transpose(-1, -2) / 2, -1) @ v


class Experts(nn.Module):
    """A sum of two linear maps: no block, as neither is a skip."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.u, self.v = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, z: Tensor) -> Tensor:
        return torch.tanh(self.u(z) + self.v(z))


class Bias(nn.Module):
    """A learned tensor that is added, expanded in one of several ways: it carries no data."""

    def __init__(self, width: int, how: str) -> None:
        super().__init__()
        self.bias, self.how = nn.Parameter(torch.ones(1, width)), how

    def forward(self, z: Tensor) -> Tensor:
        if self.how == "expand_as":
            return z + self.bias.expand_as(z)
        if self.how == "type_as":
            return z + self.bias.type_as(z) + torch.zeros_like(z)
        return z + self.bias.expand(z.shape)


class Lookup(nn.Module):
    """z times a row of a table that z chooses: the gradient does not pass the choice, the value does."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(width, width)

    def forward(self, z: Tensor) -> Tensor:
        return z * self.table(z.argmax(-1))


class Lazy(nn.Module):
    """A table that the first call makes."""

    def forward(self, z: Tensor) -> Tensor:
        if not hasattr(self, "table"):
            self.table = 1 + torch.sin(torch.arange(z.shape[-1], dtype=z.dtype))
        return z * self.table


class Turned(nn.Module):
    """Views that come back, and a write into one of them."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, z: Tensor) -> Tensor:
        if self.how == "reshaped":
            return z.unflatten(-1, (2, -1)).transpose(-1, -2).flatten(-2)
        if self.how == "swapped":
            a, b = z.chunk(2, -1)
            return torch.cat([b, a.tanh()], -1)
        z = z.clone()
        if self.how == "copied":
            z[..., :1] = z[..., 1:2] * 0.5
            return z
        z[..., ::2].mul_(0.5).tanh_()
        return z


class Gelu(nn.Module):
    """GELU's formula: its inner sum is a pointwise function without parameters."""

    def forward(self, z: Tensor) -> Tensor:
        return 0.5 * z * (1 + torch.tanh(0.8 * (z + 0.044715 * z**3)))


class Rotary(nn.Module):
    """q·cos + rotate(q)·sin."""

    def __init__(self, width: int) -> None:
        super().__init__()
        angles = torch.arange(width).double()
        self.register_buffer("cos", torch.cos(angles))
        self.register_buffer("sin", torch.sin(angles))

    def forward(self, z: Tensor) -> Tensor:
        a, b = z.chunk(2, -1)
        return torch.tanh(z * self.cos + torch.cat([-b, a], -1) * self.sin)


class Through(nn.Module):
    """A straight-through estimator: the value of one tensor, the gradient of another."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.of = nn.Linear(width, width)

    def forward(self, z: Tensor) -> Tensor:
        return torch.tanh(z + (torch.tanh(self.of(z)) - z).detach())


class Around(nn.Module):
    """x + (g(x) − x) is g(x)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.of = nn.Linear(width, width)

    def forward(self, z: Tensor) -> Tensor:
        return torch.tanh(z + (torch.tanh(self.of(z)) - z))


class Coupling(nn.Module):
    """A half changed by the other half: disjoint parts."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.of = nn.Linear(width // 2, width // 2)

    def forward(self, z: Tensor) -> Tensor:
        a, b = z.chunk(2, -1)
        return torch.cat([torch.tanh(a + torch.tanh(self.of(b))), b], -1)


class Centred(nn.Module):
    """z − mean(z), and soft-max's maximum taken off."""

    def forward(self, z: Tensor) -> Tensor:
        z = z - z.mean(-1, keepdim=True)
        return torch.exp(z - z.amax(-1, keepdim=True))


class Relu_(nn.Module):  # noqa: N801
    def forward(self, z: Tensor) -> Tensor:
        return torch.relu_(z + 0.5)


STEP: dict[str, Callable[[int], nn.Module]] = {
    "linear": lambda width: nn.Linear(width, width),
    "tanh": lambda width: nn.Tanh(),
    "relu": lambda width: nn.ReLU(),
    "gelu": lambda width: nn.GELU(),
    "relu_": lambda width: Relu_(),
    "norm": Norm,
    "layer norm": nn.LayerNorm,
    "batch norm": nn.BatchNorm1d,
    "gate": lambda width: Gate(width, "open"),
    "no_grad": lambda width: Gate(width, "no_grad"),
    "detached": lambda width: Gate(width, "detached"),
    "product": Product,
    "attention": lambda width: Attention(width, fused=False),
    "fused attention": lambda width: Attention(width, fused=True),
    "experts": Experts,
    "bias": lambda width: Bias(width, "expand"),
    "expand_as": lambda width: Bias(width, "expand_as"),
    "type_as": lambda width: Bias(width, "type_as"),
    "lookup": Lookup,
    "lazy": lambda width: Lazy(),
    "reshaped": lambda width: Turned("reshaped"),
    "swapped": lambda width: Turned("swapped"),
    "copied": lambda width: Turned("copied"),
    "written": lambda width: Turned("written"),
    "spelled gelu": lambda width: Gelu(),
    "rotary": Rotary,
    "through": Through,
    "around": Around,
    "coupling": Coupling,
    "centred": lambda width: Centred(),
}
STEPS = tuple(STEP)
ENDS = ("tanh", "tanh linear", "gelu linear", "relu linear", "tanh linear norm")
