"""Skips S_k for blocks that change the size: options A and B of He et al. (2015, section 4.2)."""

from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from unbraid.nn._layers import check_sizes, make_norm, make_weight

__all__ = ["Projection", "ZeroPad"]


@final
class Projection(nn.Module):
    """S_k h = norm(W h), W a linear map of the features at every `stride`-th position: option B.

    Args:
        inputs: features or channels that arrive.
        outputs: features or channels that leave.
        stride: distance between the positions that are kept, in each direction.
        dims: number of position axes: 2 for images, 1 for sequences, 0 for plain feature vectors.
        norm: "batch", "layer", "rms", "group" or None; without one, W has a bias.
    Shape: [batch, inputs, *positions] -> [batch, outputs, *⌈positions / stride⌉].
    Raises: ValueError for sizes below 1, an unknown norm, or a stride where there are no positions.

    Example:
        >>> skip = Projection(64, 128, stride=2, norm="batch")
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1, dims: int = 2, norm: str | None = None) -> None:
        super().__init__()
        self.linear = make_weight(inputs, outputs, dims=dims, stride=stride, kernel=1, bias=norm is None)
        self.norm = nn.Identity() if norm is None else make_norm(norm, outputs, dims)

    def forward(self, h: Float[Tensor, "batch inputs *positions"]) -> Float[Tensor, "batch outputs *kept"]:
        """Return the projected skip."""
        return self.norm(self.linear(h))


@final
class ZeroPad(nn.Module):
    """S_k h = [h at every `stride`-th position; 0], new channels zero, after the old: option A.

    It has no parameters, so a network with it has the parameters of its plain twin.

    Args:
        inputs: features or channels that arrive.
        outputs: features or channels that leave, at least as many.
        stride: distance between the positions that are kept, in each direction.
        dims: number of position axes: 2 for images, 1 for sequences, 0 for plain feature vectors.
    Shape: [batch, inputs, *positions] -> [batch, outputs, *⌈positions / stride⌉].
    Raises: ValueError for sizes below 1, fewer outputs than inputs, or a stride where there are no positions.

    Example:
        >>> skip = ZeroPad(64, 128, stride=2)
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1, dims: int = 2) -> None:
        super().__init__()
        check_sizes(inputs, outputs, dims=dims, stride=stride)
        if outputs < inputs:
            raise ValueError(
                f"ZeroPad({inputs}, {outputs}): padding cannot reduce the channels\n"
                f"  Use Projection({inputs}, {outputs})."
            )
        self.inputs, self.outputs, self.stride, self.dims = inputs, outputs, stride, dims

    def forward(self, h: Float[Tensor, "batch inputs *positions"]) -> Float[Tensor, "batch outputs *kept"]:
        """Return the padded skip."""
        kept = h[(slice(None), slice(None), *(slice(None, None, self.stride),) * self.dims)]
        return nn.functional.pad(kept, (0, 0) * self.dims + (0, self.outputs - self.inputs))

    def extra_repr(self) -> str:
        """Say the sizes."""
        return f"{self.inputs}, {self.outputs}, stride={self.stride}, dims={self.dims}"
