"""Gates on the shortcut, which He et al. (2016, section 3) found harmful: figure 2c and 2d."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unbraid.nn._layers import make_weight

__all__ = ["Gate", "GatedBranch", "GatedSkip"]


@final
class Gate(nn.Module):
    """g(h) = σ(W h + b), W a 1x1 convolution: highway networks (Srivastava et al. 2015).

    Args:
        inputs: features or channels that arrive.
        outputs: features or channels of g.
        stride: distance between the positions that are kept, in each direction.
        dims: number of position axes: 2 for images, 1 for sequences, 0 for plain feature vectors.
        start: b before training. The lower, the closer g is to 0: −6 is the best that He et al. (2016) found.
    Shape: [batch, inputs, *positions] -> [batch, outputs, *⌈positions / stride⌉].
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1, dims: int = 2, start: float = -6.0) -> None:
        super().__init__()
        self.start, self.dims = start, dims
        self.linear = make_weight(inputs, outputs, dims=dims, stride=stride, kernel=1, bias=False)
        self.shift = nn.Parameter(torch.empty(outputs))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set b to its start."""
        nn.init.constant_(self.shift, self.start)

    def forward(self, h: Float[Tensor, "batch inputs *positions"]) -> Float[Tensor, "batch outputs *kept"]:
        """Return g(h)."""
        return torch.sigmoid(self.linear(h) + self.shift.view(-1, *(1,) * self.dims))

    def extra_repr(self) -> str:
        """Say where b starts."""
        return f"start={self.start:g}"


@final
class GatedSkip(nn.Module):
    """S_k h = (1 − g(h)) · skip(h): what the gate gives to the branch it takes from the skip.

    Args:
        gate: g.
        skip: what is gated; it must have the shape of g.
    Shape: [batch, *features] -> [batch, *features'].

    Examples:
        >>> gate = Gate(8, 8, dims=0)
        >>> exclusive = {"branch": GatedBranch(gate, nn.Linear(8, 8)), "skip": GatedSkip(gate, nn.Identity())}
        >>> shortcut_only = {"branch": nn.Linear(8, 8), "skip": GatedSkip(gate, nn.Identity())}
    """

    def __init__(self, gate: Gate, skip: nn.Module) -> None:
        super().__init__()
        self.gate, self.skip = gate, skip

    def forward(self, h: Float[Tensor, "batch *features"]) -> Float[Tensor, "batch *out"]:
        """Return the gated skip."""
        return (1 - self.gate(h)) * self.skip(h)


@final
class GatedBranch(nn.Module):
    """h ↦ g(h) · branch(h): the other half of an exclusive gate, whose skip is `GatedSkip` with the same gate.

    Args:
        gate: g.
        branch: f; it must have the shape of g.
    Shape: [batch, *features] -> [batch, *features'].
    """

    def __init__(self, gate: Gate, branch: nn.Module) -> None:
        super().__init__()
        self.gate, self.branch = gate, branch

    def forward(self, h: Float[Tensor, "batch *features"]) -> Float[Tensor, "batch *out"]:
        """Return the gated branch."""
        return self.gate(h) * self.branch(h)
