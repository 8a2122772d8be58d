"""The gradient of a loss by path length, averaged over a data set."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid._modes import outside_modes
from unbraid._progress import how_many, progress
from unbraid._renamed import keep_before, split_before
from unbraid.discover import BlockLike
from unbraid.form import ResidualForm
from unbraid.paths._gradient_spectrum import GradientSpectrum, counts_of, gradient_spectrum
from unbraid.paths._length_statistics import ByLength
from unbraid.paths._spectrum_place import block_of, place_of
from unbraid.ranks import Row
from unbraid.results import classification_loss, loss_target, said_of
from unbraid.sweep import Batch, Batches, Resume, each_row


@dataclass(frozen=True, eq=False, repr=False)
class MeanSpectrum(ByLength):
    """The gradient of a loss by path length, averaged over the examples of a data set.

    Attributes:
        norms: the mean over all examples of ‖g_m‖, for each length m, [L+1].
        spread: the standard error of each of these means over the batches; nan where there was one batch.
        signed: the mean of ⟨g_m, g⟩/‖g‖².
        counts: the number of paths of each length, exact.
        parameter_norms: at a block, the mean over batches, weighted by their size, of the norm of each length's part of
            the gradient of its parameters; None at a source.
        loss: the mean of the loss.
        examples: how many examples there were.
        error: the largest relative error of a batch's sum against autograd; nan where it was not measured.
        summed: whether examples of some batch influence one another at the source: then norms are means over batches of
            the norm of the whole batch's gradient.
    """

    norms: Float[Tensor, " lengths"]
    spread: Float[Tensor, " lengths"]
    signed: Float[Tensor, " lengths"]
    counts: tuple[int, ...]
    parameter_norms: Float[Tensor, " lengths"] | None
    loss: float
    examples: int
    error: float
    summed: bool = False

    columns = (*ByLength.columns[:2], ("norm", "{norm ± spread:s}"), *ByLength.columns[3:])
    entries = (
        *("counts", "norms", "spread", "share", "signed", "parameter_norms", "mean_length", "effective"),
        *("loss", "examples", "error", "summed"),
    )

    @property
    def caption(self) -> str:
        """How many examples there were, their loss, and between which lengths the gradient travels."""
        return f"{self.examples:,} examples, loss {self.loss:.4g}; {self.most_of_the_norm}{said_of(self.summed)}"

    def _table_rows(self) -> list[dict[str, Any]]:
        rows = self.rows()
        for row, spread in zip(rows, self.spread.tolist(), strict=True):
            norm = f"{row['norm']:.4g}"
            row["norm ± spread"] = norm if math.isnan(spread) else f"{norm} ± {spread:.1g}"
        return rows

    def scalars(self) -> dict[str, float]:
        """The loss, the mean length, and the lengths between which 95 % of the norm lies."""
        return {"loss": self.loss, **super().scalars()}


@keep_before
@split_before
@outside_modes
def mean_spectrum(
    form: ResidualForm,
    batches: Batches,
    *,
    loss: Callable[[Any, Any], Tensor] = classification_loss,
    at: BlockLike = "source",
    max_length: int | None = None,
    check: bool = True,
    nested: bool = False,
    output: str | int | None = None,
    chunk: int | None = None,
    resume: Path | str | None = None,
) -> MeanSpectrum:
    """The gradient of a loss on real batches, split by path length, averaged over the data.

    Each example's norms are those of the gradient of its own loss, whatever batch it came in (in eval mode). Sums run
    along, so that memory does not grow with the data.

    Args:
        form: a traced model.
        batches: any iterable of (inputs, labels); inputs a tensor, a tuple or a dict.
        loss: a function (what the model returns, labels) -> [batch], one number per example; by default the
            cross-entropy of class scores, those of its first floating-point tensor.
        at: "source", the name of a source, or a block, by index or name, as for `gradient_spectrum`.
        max_length: leave out longer paths.
        check: compare each batch's sum with autograd, for one gradient more.
        nested: open the blocks inside branches.
        output: which of several outputs the default loss reads, by name or number; see `ResidualForm.explaining`.
        chunk: how many cotangents are pulled back at once.
        resume: an SQLite file in which finished batches are kept, so that the same call goes on from there.

    Raises:
        DataError: there is no batch, or one is no pair of inputs and labels.
        ValueError: the loss does not fit the output.
        InexactError: a sum departs from autograd by more than rounding.
    """
    counts: list[tuple[int, ...]] = []  # a loss may read several outputs, so that paths end at each of them

    def of(batch: Batch) -> Row:
        spectrum = gradient_spectrum(
            form,
            batch.args,
            batch.kwargs,
            target=loss_target(loss, batch.labels),
            at=at,
            max_length=max_length,
            check=check,
            nested=nested,
            output=output,
            chunk=chunk,
        )
        counts[:] = [spectrum.counts]
        return _row(spectrum, spectrum.target, batch.size)

    block = block_of(form, at)
    place = at if block is None else block
    settings = (place, max_length, check, nested, "heads" if form.heads else None, output)
    sums = _Sums()
    with progress("spectra", how_many(batches)) as step:
        for row in each_row(form, batches, of, Resume(resume, "spectrum", settings)):
            sums.add(row)
            step()
    if not counts:  # all rows were there already, or another process has made them
        exact = form.explaining(output).exact
        counts.append(counts_of(exact.graph, exact.lengths(nested), exact.output, place_of(exact, at), max_length))
    return sums.mean(*counts)


def _row(spectrum: GradientSpectrum, loss: float, size: int) -> Row:
    """What a batch adds to the sums, in float64; w is its number of examples."""
    w, norms = float(size), spectrum.norms.double()
    row = {"w norms": w * norms, "w² norms²": (w * norms) ** 2, "w² norms": w**2 * norms}
    row |= {"w": _number(w), "w²": _number(w**2), "signed": w * spectrum.signed, "loss": _number(w * loss)}
    row |= {"error": _number(spectrum.error), "summed": _number(float(spectrum.summed))}
    if spectrum.parameter_norms is not None:
        row["parameters"] = w * spectrum.parameter_norms
    return {name: value.double().cpu() for name, value in row.items()}


class _Sums:
    """Running sums over batches."""

    def __init__(self) -> None:
        self.batches = 0
        self.total: dict[str, Tensor] = {}
        self.error = 0.0

    def add(self, row: Row) -> None:
        self.batches += 1
        self.error = _worse(self.error, float(row["error"]))
        for name, value in row.items():
            self.total[name] = self.total[name] + value if name in self.total else value

    @property
    def examples(self) -> int:
        return int(self.total["w"])

    def mean(self, counts: tuple[int, ...]) -> MeanSpectrum:
        mean = self.total["w norms"] / self.examples
        parameters = self.total.get("parameters")
        return MeanSpectrum(
            mean,
            self._spread(mean),
            self.total["signed"] / self.examples,
            counts,
            None if parameters is None else parameters / self.examples,
            float(self.total["loss"]) / self.examples,
            self.examples,
            self.error,
            bool(self.total["summed"]),
        )

    def _spread(self, mean: Tensor) -> Tensor:
        """Of a weighted mean: √(n/(n−1) Σ w² (x − mean)²) / Σ w."""
        if self.batches == 1:
            return torch.full_like(mean, torch.nan)
        squares = self.total["w² norms²"] - 2 * mean * self.total["w² norms"] + mean**2 * self.total["w²"]
        return (squares.clamp_min(0) * self.batches / (self.batches - 1)).sqrt() / self.examples


def _worse(a: float, b: float) -> float:
    """The larger; nan where one is not known."""
    return max(a, b) if a == a and b == b else float("nan")


def _number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64, device="cpu")
