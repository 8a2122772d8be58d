"""A network's signals and gradients in words: what stands out, where, and what usually helps.

Each finding is a number beyond a bound, one of the constants below; they are rules of thumb, printed with the number.
`_remedies` knows what the network is built of, so that nothing is advised that it has.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unbraid._figures import Axes, Figure
from unbraid._modes import outside_modes
from unbraid.errors import InexactError
from unbraid.form import ResidualForm, trace
from unbraid.gradients._example_coherence import Coherence, example_coherence
from unbraid.gradients._input_autocorrelation import Autocorrelation
from unbraid.gradients._neighbouring_blocks import neighbours
from unbraid.gradients._remedies import Build
from unbraid.gradients._signal import Signal, signal
from unbraid.results import Result, classification_loss
from unbraid.results.rows import Row, plain
from unbraid.sweep import Batches, each_batch

# Beyond these a number is a finding. Each is a rule of thumb, printed with the number that passes it.
_FOLD = 100.0  # growth or decay of variance, or of gradients, from one end to the other
_DEAD = 1e-3  # √(variance of branch / skip) below which a branch adds nothing to speak of
_LOUD = 10.0  # and above which the skip is drowned
_ALIKE = 0.2  # autocorrelation of the gradient at neighbouring inputs; white noise has 0 ± 0.1 here, sound networks 0.5


@dataclass(frozen=True)
class Finding:
    """One thing that a diagnosis found.

    Attributes:
        what: "exploding signal", "vanishing gradient", "dead branch", ...
        where: the block from which it holds; None where it is the whole network.
        number: what was measured.
        words: a sentence that says it, with the number.
        helps: what usually helps.
    """

    what: str
    where: str | None
    number: float
    words: str
    helps: str


@dataclass(frozen=True, eq=False, repr=False)
class Diagnosis(Result):
    """What a network's signals and gradients look like through depth, in words and numbers.

    Attributes:
        findings: what stands out; empty where nothing does.
        signal: variances, correlations and gradients by block.
        coherence: how alike the gradients of different examples are; None where it could not be taken. Examples of
            other classes may well pull in unrelated directions: nothing is concluded from it.
        form: the traced form.
        left_out: why the coherence, or the gradients of neighbours, could not be taken; empty where they were.
        neighbours: how alike the gradients at neighbouring inputs are, on lines between examples; None where they
            could not be taken.
    """

    findings: tuple[Finding, ...]
    signal: Signal
    coherence: Coherence | None
    form: ResidualForm
    left_out: str = ""
    neighbours: Autocorrelation | None = None

    columns = (("finding", "{what}"), ("in words", "{words}"), ("what usually helps", "{helps}"))

    @property
    def caption(self) -> str:
        """How much was looked at, and what was not looked for."""
        about = f"{len(self.signal.names)} blocks, {self.signal.examples:,} examples"
        return "; ".join(filter(None, [about, self._not_looked_for]))

    @property
    def _not_looked_for(self) -> str:
        return f"not looked for: shattering, as {self.left_out}" if self.left_out and self.neighbours is None else ""

    def __str__(self) -> str:
        said = [f"{finding.what}: {finding.words} {finding.helps}" for finding in self.findings]
        said = said or [f"{len(self.signal.names)} blocks: nothing stands out."]
        return "\n".join(filter(None, [*said, self._not_looked_for]))

    def to_dict(self) -> dict[str, Any]:
        """Findings, signal and coherence as plain values."""
        return {
            "findings": plain(self.findings),
            "signal": self.signal.to_dict(),
            "coherence": None if self.coherence is None else self.coherence.to_dict(),
            "left_out": self.left_out,
            "neighbours": None if self.neighbours is None else self.neighbours.to_dict(),
        }

    def rows(self) -> list[Row]:
        """One row per finding; none where nothing stands out."""
        return [dict(vars(finding)) for finding in self.findings]

    def _table_rows(self) -> list[Row]:
        return self.rows() or [{"what": "nothing stands out", "words": "", "helps": ""}]

    def scalars(self) -> dict[str, float]:
        """Growth of variance, first gradient over last, the loudest branch over its skip, the number of findings."""
        measured = self.signal
        loudest = [ratio for ratio in measured.ratio.tolist() if math.isfinite(ratio)]
        return {
            "variance grows": float(measured.sum.variance[-1] / measured.source.variance[0]),
            "gradient first over last": float(measured.gradient[0] / measured.gradient[-1]),
            "loudest branch over skip": max(loudest, default=math.nan),
            "findings": float(len(self.findings)),
        }

    def plot(self, *, ax: Axes | None = None) -> Figure:
        """The signal by depth."""
        return self.signal.plot(ax=ax)


@outside_modes
def diagnose(
    model: nn.Module | ResidualForm,
    batches: Batches,
    *,
    loss: Callable[[Any, Any], Tensor] = classification_loss,
) -> Diagnosis:
    """Trace a model, follow its signal and gradients through depth, and say what stands out.

    Looked for: nan and infinity, with the block that makes them; variance or gradients that grow or fall a hundredfold;
    branches that add next to nothing, or drown their skip; gradients that shatter, which at neighbouring inputs have
    nothing in common. What is said to help leaves out what the network has.

    Args:
        model: any module, or a form of it, such as the chain of a plain network. It is not changed.
        batches: (inputs, labels), read twice: a list or a DataLoader.
        loss: a function (what the model returns, labels) -> [batch].

    Raises:
        TraceError: the model's computation cannot be captured.
        NotResidualError: it has no residual connection; give the form that `unbraid.chain` makes.
        DataError: there is no batch.
    """
    form = model if isinstance(model, ResidualForm) else _traced(model, batches)
    measured = signal(form, batches, loss=loss)
    if measured.not_finite is not None:
        return Diagnosis(tuple(_findings(form, measured, None)), measured, None, form)
    alike, why = _coherence(form, batches, loss)
    near, hidden = neighbours(form, batches)
    return Diagnosis(
        tuple(_findings(form, measured, near)),
        measured,
        alike,
        form,
        " ".join(filter(None, dict.fromkeys([hidden, why]))),
        near,
    )


def _traced(model: nn.Module, batches: Batches) -> ResidualForm:
    inputs, _ = next(iter(batches), (None, None))
    if inputs is None:
        raise ValueError("diagnose: batches must hold at least one (inputs, labels).")
    return trace(model, inputs if isinstance(inputs, tuple | dict) else (inputs,))


def _coherence(
    form: ResidualForm, batches: Batches, loss: Callable[[Any, Any], Tensor]
) -> tuple[Coherence | None, str]:
    """How alike the gradients are, or why that cannot be said."""
    if sum(batch.size for batch in each_batch(form, batches)) < 2:
        return None, "there is one example alone."
    try:
        return example_coherence(form, batches, loss=loss), ""
    except InexactError as error:  # an operator that torch.func cannot take one example at a time
        return None, str(error).splitlines()[0]


def _findings(form: ResidualForm, measured: Signal, near: Autocorrelation | None) -> Iterator[Finding]:
    if measured.not_finite is not None:
        yield Finding(
            "not finite",
            measured.not_finite.where,
            float("nan"),
            f"nan or infinity appears first at {measured.not_finite.where}, in the {measured.not_finite.way} pass.",
            "Lower the learning rate, clip gradients, or compute that operator in a wider type.",
        )
        return
    build = Build.of(form)
    yield from _through_depth(build, measured)
    yield from _branches(build, measured, [add.along is None for add in form.adds if add.block < len(form.blocks)])
    if near is not None:
        yield from _shattered(build, near)


def _through_depth(build: Build, measured: Signal) -> Iterator[Finding]:
    variance = torch.cat([measured.source.variance, measured.sum.variance])
    growth = float(variance[-1] / variance[0]) if variance[0] > 0 else 1.0
    if growth > _FOLD:
        block = _first(variance > _FOLD * variance[0])
        yield Finding(
            "exploding signal",
            measured.names[block],
            growth,
            f"the stream's variance grows {growth:.3g}-fold; it passes {_FOLD:g} times the first at block {block} "
            f"({measured.names[block]!r}).",
            build.against_growth(),
        )
    if 0 <= growth < 1 / _FOLD:
        block = _first(variance < variance[0] / _FOLD)
        yield Finding(
            "vanishing signal",
            measured.names[block],
            growth,
            f"the stream's variance falls to {growth:.3g} of the first; it is below 1/{_FOLD:g} from block {block} on "
            f"({measured.names[block]!r}).",
            build.against_decay(identities=False),
        )
    gradient = measured.gradient
    if not bool((gradient > 0).all()) or len(gradient) < 2:
        return
    ratio = float(gradient[0] / gradient[-1])
    if ratio > _FOLD:
        block = int((gradient > _FOLD * gradient[-1]).nonzero().max())
        yield Finding(
            "exploding gradient",
            measured.names[block],
            ratio,
            f"the gradient grows {ratio:.3g}-fold from the last block to the first; from block {block} down it is more "
            f"than {_FOLD:g} times that of the last ({measured.names[block]!r}).",
            build.against_growth(),
        )
    if ratio < 1 / _FOLD:
        block = int((gradient < gradient[-1] / _FOLD).nonzero().max())
        yield Finding(
            "vanishing gradient",
            measured.names[block],
            ratio,
            f"the gradient at the first block is {ratio:.3g} of that at the last; from block {block} down it is below "
            f"1/{_FOLD:g} ({measured.names[block]!r}).",
            build.against_decay(identities=True),
        )


def _branches(build: Build, measured: Signal, added: Sequence[bool]) -> Iterator[Finding]:
    """Branches that add nothing, or drown what they are added to; side by side with the skip they do neither."""
    for block, (name, ratio) in enumerate(zip(measured.names, measured.ratio.tolist(), strict=True)):
        if not added[block]:
            continue
        if ratio < _DEAD:
            yield Finding(
                "dead branch",
                name,
                ratio,
                f"the branch of {name!r} has {ratio:.2g} of its skip's standard deviation: it adds next to nothing.",
                "At initialisation that may be meant (a last layer at zero); after training the block can be pruned.",
            )
        elif ratio > _LOUD:
            yield Finding(
                "loud branch",
                name,
                ratio,
                f"the branch of {name!r} has {ratio:.3g} times its skip's standard deviation and drowns it.",
                build.against_loudness(block),
            )


def _shattered(build: Build, near: Autocorrelation) -> Iterator[Finding]:
    """The gradients at neighbouring inputs are as unlike as white noise."""
    value = float(near.values[1])
    if value < _ALIKE:
        yield Finding(
            "shattered gradients",
            None,
            value,
            f"the gradients at inputs {near.spacing:.2g} apart, on {len(near.each)} lines between examples, correlate "
            f"by {value:.2g}; white noise would give 0, and sound networks give 0.5 and more.",
            build.against_shattering(),
        )


def _first(holds: Tensor) -> int:
    """The block at which something holds first; index 0 of the tensor is what comes before block 0."""
    return max(0, int(holds.int().argmax()) - 1)
