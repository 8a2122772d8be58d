"""What follows from norms by path length, whatever gradient they are of."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from unbraid._figures import Axes, Figure
from unbraid.results import Examples, Result
from unbraid.results.rows import Row, as_rows


class ByLength(Result):
    """What follows from norms by path length alone; a spectrum declares them as fields of its own.

    Attributes:
        norms: the norm of each length 0..L, [L+1].
        signed: ⟨g_m, g⟩/‖g‖² per length, [L+1].
        counts: the number of paths of each length, exact.
    """

    norms: Float[Tensor, " lengths"]
    signed: Float[Tensor, " lengths"]
    counts: tuple[int, ...]

    columns = (
        ("length", "{length:d}"),
        ("paths", "{paths:,}"),
        ("norm", "{norm:.4g}"),
        ("share", "{share:.2%}"),
        ("signed share", "{signed:+.2%}"),
    )

    @property
    def share(self) -> Float[Tensor, " lengths"]:
        """norm_m / Σ norm: the part of each length; 0 where the whole gradient is."""
        whole = self.norms.sum()
        return torch.zeros_like(self.norms) if whole == 0 else self.norms / whole

    @property
    def mean_length(self) -> float:
        """Σ_m m · share_m."""
        return mean_length(self.share)

    @property
    def effective(self) -> tuple[int, int]:
        """The shortest interval of lengths that holds 95 % of Σ norm (the effective paths of Veit et al. 2016)."""
        return effective(self.share)

    @property
    def most_of_the_norm(self) -> str:
        """Between which lengths most of the norm lies, in words."""
        low, high = self.effective
        return ends_before(self.norms) or f"95 % of the norm in lengths {low} to {high}"

    def rows(self) -> list[Row]:
        """One row per length."""
        lengths = range(len(self.counts))
        return as_rows(
            {
                "length": lengths,
                "paths": self.counts,
                "norm": self.norms,
                "share": self.share,
                "signed": self.signed,
            }
        )

    def scalars(self) -> dict[str, float]:
        """The mean length, and the lengths between which 95 % of the norm lies."""
        low, high = self.effective
        return {"mean length": self.mean_length, "95 % from": float(low), "95 % to": float(high)}

    def plot(self, *, ax: Axes | None = None) -> Figure:
        """Share of the gradient and share of the paths, by length."""
        from unbraid.draw import spectrum

        return spectrum(self.counts, self.share.tolist(), self.effective, ax=ax)


def ends_before(norms: Float[Tensor, " lengths"]) -> str:
    """What a caption says of a gradient that is zero, instead of how its lengths are spread; else nothing."""
    return "" if bool(norms.any()) else "no gradient comes this far: it ends in integers, or where tensors are detached"


def effective(share: Float[Tensor, " lengths"], part: float = 0.95) -> tuple[int, int]:
    """The shortest interval of lengths whose shares sum to at least `part`, the first of them if there are several."""
    shares = share.double().tolist()
    best = (0, len(shares) - 1)
    for low in range(len(shares)):
        held = 0.0
        for high in range(low, len(shares)):
            held += shares[high]
            if held >= part - 1e-12:
                if high - low < best[1] - best[0]:
                    best = (low, high)
                break
    return best


def mean_length(share: Float[Tensor, " lengths"]) -> float:
    """Σ_m m · share_m."""
    return float((torch.arange(len(share), device="cpu").to(share) * share).sum())


def per_example(
    gradients: Shaped[Tensor, "parts *source"], whole: Shaped[Tensor, " *source"], examples: Examples, place: str
) -> tuple[Float[Tensor, " parts"], Float[Tensor, " parts"]]:
    """Norm ‖g_i‖ and signed share ⟨g_i, g⟩/‖g‖² of each part, per example and then averaged over the batch."""
    square = examples.sums(place, whole.abs().square(), stacked=False)
    along = examples.dot(place, gradients, whole) / torch.where(square > 0, square, torch.ones_like(square))
    return examples.sums(place, gradients.abs().square()).sqrt().mean(1), along.mean(1)
