"""What the tests share: seeded numbers, the error measure, and small modules in float64."""

import torch
from torch import Tensor, nn

F64 = torch.float64


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = F64) -> Tensor:
    """Standard normal numbers of a generator of their own."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64).to(dtype)


def error(a: Tensor, b: Tensor) -> float:
    """‖a − b‖∞ / ‖b‖∞, written here once more so that the library's own measure is not its own judge."""
    assert a.shape == b.shape, f"{tuple(a.shape)} against {tuple(b.shape)}"
    size = b.abs().max().item()
    return (a - b).abs().max().item() / (size or 1.0)


def lively(module: nn.Module, *, seed: int = 0, dtype: torch.dtype = F64, scale: float = 0.5) -> nn.Module:
    """The module in eval mode, parameters and statistics drawn afresh: no zeros behind which errors hide."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = scale * torch.randn(parameter.shape, generator=generator, dtype=F64)
    for name, buffer in module.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(torch.randn(buffer.shape, generator=generator))
        if name.endswith("running_var"):
            buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return module.to(dtype).eval()


class Residual(nn.Module):
    """x + f(x)."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class Chain(nn.Module):
    """One module after the other; the blocks can be indexed and named."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class Does(nn.Module):
    """A function as a module, with the modules that it uses: forward(x) = function(self, x)."""

    def __init__(self, function, **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def mlp(width: int, hidden: int | None = None, outputs: int | None = None) -> nn.Sequential:
    """A branch that is not linear."""
    return nn.Sequential(nn.Linear(width, hidden or width), nn.Tanh(), nn.Linear(hidden or width, outputs or width))


def without_backward(net, x):
    """A block whose branch ends in an operator that has no derivative."""

    class Forward(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.sin()

        @staticmethod
        def backward(ctx, g):
            raise NotImplementedError("this kernel has no backward")

    return x + Forward.apply(net.f(x))
