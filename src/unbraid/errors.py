"""The errors of unbraid: each states the rule, what arrived and what to do, and carries the evidence as fields."""

from dataclasses import dataclass

__all__ = [
    "ChanceError",
    "CheckpointError",
    "DataError",
    "InexactError",
    "NotResidualError",
    "RankError",
    "ShapeError",
    "TargetError",
    "TraceError",
    "UnbraidError",
]


class UnbraidError(Exception):
    """The parent of every error that unbraid raises on purpose."""


@dataclass(frozen=True)
class Refusal:
    """An addition that was looked at and is no residual connection.

    Attributes:
        where: file and line of the addition in the model's own code.
        reason: which part of the definition it fails.
    """

    where: str
    reason: str


class TraceError(UnbraidError):
    """The model's computation could not be captured as a graph.

    Attributes:
        reasons: what each tracer said, by the tracer's name.
    """

    def __init__(self, message: str, *, reasons: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.reasons = dict(reasons or {})


class NotResidualError(UnbraidError):
    """No residual addition was found.

    Attributes:
        refusals: every float addition of the graph, with the reason why it is not residual.
    """

    def __init__(self, message: str, *, refusals: tuple[Refusal, ...] = ()) -> None:
        super().__init__(message)
        self.refusals = refusals


class InexactError(UnbraidError):
    """A sum that must hold does not, or an operator has no exact rule.

    Attributes:
        where: the block, stream or operator at which the sum first departs.
        error: the relative error in the largest norm, ‖a − b‖∞ / ‖b‖∞; nan where an operator has no rule.
        given: of a form that departs from its model, whether it does at the given input, and not at others alone.
    """

    def __init__(self, message: str, *, where: str, error: float = float("nan"), given: bool = False) -> None:
        super().__init__(message)
        self.where = where
        self.error = error
        self.given = given


class TargetError(UnbraidError, ValueError):
    """A target does not fit what the model returns: it names what arrived, and the forms that a target has."""


class ChanceError(UnbraidError, ValueError):
    """What is asked for would be mixed with chance, or with the other examples of a batch: it names the operators."""


class ShapeError(UnbraidError):
    """Two tensors that must be added, or two blocks that must be exchanged, disagree in shape.

    Attributes:
        block: the block's name or number, as far as it is known.
        shapes: the shapes that disagree, by what they belong to.
    """

    def __init__(self, message: str, *, block: str, shapes: dict[str, tuple[int, ...]]) -> None:
        super().__init__(message)
        self.block = block
        self.shapes = dict(shapes)


class DataError(UnbraidError):
    """A data set cannot be used: a key is missing, lengths differ, a value is not finite, a label is out of range."""


class CheckpointError(UnbraidError):
    """A checkpoint cannot be read, or would run code when read."""


class RankError(UnbraidError):
    """Of several processes that share the work, another one failed.

    Attributes:
        rank: which; None where it is not known.
        kind: the name of the class of its error.
        bad_input: whether what it was given is at fault, not unbraid and not the machine.
    """

    def __init__(self, message: str, *, rank: int | None, kind: str, bad_input: bool) -> None:
        super().__init__(message)
        self.rank = rank
        self.kind = kind
        self.bad_input = bad_input
