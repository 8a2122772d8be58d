"""Skips S_k: for blocks that change the size, and those that He et al. (2016) found harmful everywhere.

Options A, B and C of He et al. (2015, section 4.1); figure 2 of He et al. (2016).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from unbraid.nn._gates import Gate, GatedBranch, GatedSkip
from unbraid.nn._layers import check_sizes, make_norm, make_weight
from unbraid.nn._scales import FixedScale

__all__ = ["HARMFUL", "SHORTCUTS", "Projection", "Site", "ZeroPad"]


@final
class Projection(nn.Module):
    """S_k h = norm(W h), W a linear map of the features at every `stride`-th position: option B.

    Args:
        inputs: features or channels that arrive.
        outputs: features or channels that leave.
        stride: distance between the positions that are kept, in each direction.
        dims: number of position axes: 2 for images, 1 for sequences, 0 for plain feature vectors.
        norm: "batch", "layer", "rms", "group" or None.
        bias: whether W has a bias; None gives it one where there is no norm.
    Shape: [batch, inputs, *positions] -> [batch, outputs, *⌈positions / stride⌉].
    Raises: ValueError for sizes below 1, an unknown norm, or a stride where there are no positions.

    Examples:
        >>> skip = Projection(64, 128, stride=2, norm="batch")
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int = 1,
        dims: int = 2,
        norm: str | None = None,
        bias: bool | None = None,
    ) -> None:
        super().__init__()
        biased = norm is None if bias is None else bias
        self.linear = make_weight(inputs, outputs, dims=dims, stride=stride, kernel=1, bias=biased)
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

    Examples:
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


@final
@dataclass(frozen=True)
class Site:
    """Where a block stands.

    Attributes:
        inputs: features or channels that arrive.
        outputs: features or channels that leave.
        stride: distance between the positions that are kept, in each direction.
        dims: number of position axes that follow the features.
        norm: after a projection; None for none.
        bias: whether the layers have biases, and a projection without a norm.
    """

    inputs: int
    outputs: int
    stride: int
    dims: int
    norm: str | None
    bias: bool

    @property
    def changes(self) -> bool:
        """Whether the skip cannot be the identity."""
        return self.inputs != self.outputs or self.stride != 1


# Of each shortcut, a branch at its site -> branch and skip; None is the identity.
BranchAndSkip = tuple[nn.Module, nn.Module | None]


def _pad(branch: nn.Module, at: Site) -> BranchAndSkip:
    return branch, ZeroPad(at.inputs, at.outputs, at.stride, at.dims) if at.changes else None


def _projection(branch: nn.Module, at: Site) -> BranchAndSkip:
    return _projection_everywhere(branch, at) if at.changes else (branch, None)


def _projection_everywhere(branch: nn.Module, at: Site) -> BranchAndSkip:
    bias = at.bias and at.norm is None
    return branch, Projection(at.inputs, at.outputs, at.stride, at.dims, at.norm, bias)


def _half(branch: nn.Module, at: Site) -> BranchAndSkip:
    return branch, _then(_pad(branch, at)[1], FixedScale(0.5))


def _dropout(branch: nn.Module, at: Site) -> BranchAndSkip:
    return branch, _then(_pad(branch, at)[1], nn.Dropout(0.5))


def _shortcut_gate(branch: nn.Module, at: Site) -> BranchAndSkip:
    gate = Gate(at.inputs, at.outputs, at.stride, at.dims)
    return branch, GatedSkip(gate, _pad(branch, at)[1] or nn.Identity())


def _exclusive_gate(branch: nn.Module, at: Site) -> BranchAndSkip:
    gate = Gate(at.inputs, at.outputs, at.stride, at.dims)
    return GatedBranch(gate, branch), GatedSkip(gate, _pad(branch, at)[1] or nn.Identity())


def _then(skip: nn.Module | None, last: nn.Module) -> nn.Module:
    return last if skip is None else nn.Sequential(skip, last)


SHORTCUTS: dict[str, Callable[[nn.Module, Site], BranchAndSkip]] = {
    "identity": _pad,  # of networks whose size never changes
    "pad": _pad,
    "projection": _projection,
    "projection_everywhere": _projection_everywhere,
    "half": _half,
    "exclusive_gate": _exclusive_gate,
    "shortcut_gate": _shortcut_gate,
    "dropout": _dropout,
}
HARMFUL = ("projection_everywhere", "half", "exclusive_gate", "shortcut_gate", "dropout")
