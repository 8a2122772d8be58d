"""One residual block (Equation 11.4), and the same block without its skip (Equation 11.1)."""

from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from unbraid.errors import ShapeError
from unbraid.nn._scales import FixedScale, StochasticDepth

__all__ = ["PlainLayer", "ResidualBlock"]


@final
class ResidualBlock(nn.Module):
    """h ← after(skip(h) + scale(branch(h))): Equation 11.4 of Prince (2023), with any order of operations.

    Args:
        branch: f_k, the function with parameters. It must keep the shape of its input unless `skip` changes
            it alike.
        skip: S_k, the identity by default; a `Projection` or `ZeroPad` where the size changes.
        after: P_k, applied after the addition; the identity by default.
        scale: of the branch: a number, a module such as `LearnedScale()` or `StochasticDepth(0.2)`, by
            default 1.
    Shape: [batch, *features] -> [batch, *features'].
    Raises: ShapeError at the first call where skip and branch disagree in shape; they are never broadcast.

    Examples:
        >>> block = ResidualBlock(nn.Sequential(nn.ReLU(), nn.Linear(100, 100)), scale=0.5)
    """

    def __init__(
        self,
        branch: nn.Module,
        skip: nn.Module | None = None,
        after: nn.Module | None = None,
        scale: nn.Module | float | None = None,
    ) -> None:
        super().__init__()
        self.name = "a block"  # the enclosing network says which
        self.branch = branch
        self.skip = nn.Identity() if skip is None else skip
        self.scale = _scale(scale)
        self.after = nn.Identity() if after is None else after

    def forward(self, h: Float[Tensor, "batch *features"]) -> Float[Tensor, "batch *out"]:
        """Return the block's output."""
        return self.after(add(self.skip(h), self.scale(self.branch(h)), block=self.name, given=h))


@final
class PlainLayer(nn.Module):
    """h ← after(scale(branch(h))): a `ResidualBlock` whose skip is gone, one layer of Equation 11.1.

    Args: as of `ResidualBlock`.
    Shape: [batch, *features] -> [batch, *features'].
    """

    def __init__(self, branch: nn.Module, after: nn.Module, scale: nn.Module) -> None:
        super().__init__()
        self.branch, self.scale, self.after = branch, scale, after

    def forward(self, h: Float[Tensor, "batch *features"]) -> Float[Tensor, "batch *out"]:
        """Return the layer's output."""
        return self.after(self.scale(self.branch(h)))


def plain_layer(block: ResidualBlock) -> PlainLayer:
    """Return the block without skip and stochastic depth; it takes the block's own modules, not copies."""
    parts = (_without_stochastic_depth(part) for part in (block.branch, block.after, block.scale))
    return PlainLayer(*parts)


def add(
    skip: Float[Tensor, "*skip"],
    branch: Float[Tensor, "*branch"],
    *,
    block: str,
    given: Float[Tensor, "*given"],
) -> Float[Tensor, "*sum"]:
    """Return skip + branch where they have one shape; broadcasting would hide a mistake."""
    if skip.shape != branch.shape:
        raise _mismatch(given, skip, branch, block)
    return skip + branch


def _scale(scale: nn.Module | float | None) -> nn.Module:
    if isinstance(scale, nn.Module):
        return scale
    return nn.Identity() if scale is None else FixedScale(scale)


def _mismatch(given: Tensor, skip: Tensor, branch: Tensor, block: str) -> ShapeError:
    # Plain numbers: while a model is exported, sizes are symbols.
    entered, kept, wanted = (tuple(map(int, tensor.shape)) for tensor in (given, skip, branch))
    message = (
        f"{block}: skip and branch must have one shape to be added.\n"
        f"  input        {list(entered)}\n"
        f"  skip gives   {list(kept)}\n"
        f"  branch gives {list(wanted)}\n"
        f"  Keep the size in the branch, or pass {_remedy(entered, wanted)}."
    )
    return ShapeError(message, block=block, shapes={"input": entered, "skip": kept, "branch": wanted})


def _remedy(given: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    """Return the skip that maps one shape to the other: a projection where its stride can do it."""
    stride = _stride(given[2:], wanted[2:]) if given[:1] == wanted[:1] else None
    if stride is None or len(wanted) not in (2, 3, 4):
        return f"as skip a module that maps {list(given)} to {list(wanted)}"
    options = f", {stride=}" * (stride > 1) + f", dims={len(given) - 2}" * (len(given) != 4)
    return f"skip=Projection({given[1]}, {wanted[1]}{options})"


def _stride(positions: tuple[int, ...], kept: tuple[int, ...]) -> int | None:
    """Return the stride that keeps so many of the positions on every axis, where there is one."""
    for stride in range(1, max(positions, default=1) + 1):
        if tuple(-(-size // stride) for size in positions) == kept:
            return stride
    return None


def _without_stochastic_depth(module: nn.Module) -> nn.Module:
    if isinstance(module, StochasticDepth):
        return nn.Identity()
    # A block inside the branch keeps its skip, and so its stochastic depth.
    if not isinstance(module, ResidualBlock):
        for name, child in module.named_children():
            setattr(module, name, _without_stochastic_depth(child))
    return module
