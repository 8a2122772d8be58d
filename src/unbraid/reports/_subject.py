"""What a report is about: a form, examples of its inputs, and the two scalars that it asks about."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from unbraid.errors import DataError
from unbraid.form import ResidualForm
from unbraid.results import Target, classification_loss, largest
from unbraid.sweep import Batch, Batches, each_batch

__all__ = ["Subject"]

_ELEMENTS = 2**19  # of the inputs whose gradients are split: the cost of splitting grows with the depth times them
_EXAMPLES = 32
# Beyond so many paths the page does not hold them all; 2^12 are a chain of 12 blocks.
MOST_PATHS = 2**12

Loss = Callable[[Any, Any], Tensor]


@dataclass(frozen=True, eq=False)
class Subject:
    """A form and the data on which it is looked at.

    Attributes:
        form: a traced model, or a chain.
        batches: (inputs, labels), read several times.
        name: what to call the model.
        loss: (what the model returns, labels) -> [batch], what lesions and gradients are measured in.
        target: the scalar whose gradient and value are split, one number per example.
        said: the same in words.
        own: whether the model's own predictions stand for labels, as none were given.
    """

    form: ResidualForm
    batches: Batches
    name: str
    loss: Loss = classification_loss
    target: Target = largest
    said: str = "the largest output"
    own: bool = False

    @staticmethod
    def of(
        form: ResidualForm,
        batches: Batches,
        name: str,
        loss: Loss = classification_loss,
        target: Target | None = None,
    ) -> "Subject":
        """A subject whose batches can be read again, with labels of its own where there are none.

        Raises:
            DataError: there is no batch, or one is no pair of inputs and labels.
        """
        again = list(batches) if isinstance(batches, Iterator) else batches
        first = next(each_batch(form, again))
        own = first.labels is None
        examples = _Predicted(form, again) if own else again
        chosen = (largest, "the largest output") if target is None else (target, "the target")
        return Subject(form, examples, name, loss, chosen[0], chosen[1], own)

    @cached_property
    def few(self) -> Batch:
        """The first examples, as many as gradients are split for."""
        batch = next(each_batch(self.form, self.batches))
        leaves = [leaf for leaf in pytree.tree_leaves((batch.args, batch.kwargs)) if isinstance(leaf, Tensor)]
        elements = max(leaf.numel() for leaf in leaves) // batch.size
        number = max(1, min(batch.size, _EXAMPLES, _ELEMENTS // max(1, elements)))

        def first(value: Any) -> Any:
            rows = isinstance(value, Tensor) and value.ndim > 0 and len(value) == batch.size
            return value[:number] if rows else value

        args, kwargs, labels = pytree.tree_map(first, (batch.args, dict(batch.kwargs), batch.labels))
        return Batch(args, kwargs, labels, number, 0)

    @cached_property
    def aim(self) -> Target:
        """The target of these examples: of one index for each example of the first batch, the first ones."""

        def first(value: Any) -> Any:
            return value[: self.few.size] if isinstance(value, Tensor) and value.ndim else value

        if isinstance(self.target, list):
            return self.target[: self.few.size]
        if isinstance(self.target, tuple):
            return first(self.target[0]), first(self.target[1])
        return first(self.target)

    @property
    def python(self) -> str:
        """The target as code writes it."""
        return "unbraid.results.largest" if self.target is largest else "target"

    @property
    def light(self) -> bool:
        """Whether an example is so small that many random paths can be drawn."""
        return self.few.size == _EXAMPLES

    @property
    def listed(self) -> bool:
        """Whether the page holds every path."""
        return sum(self.form.path_counts()) <= MOST_PATHS

    def metric(self, output: Any, labels: Any) -> Tensor:
        """The mean loss of what the model returns, for lesions."""
        return self.loss(output, labels).mean()

    @property
    def quantity(self) -> str:
        """What lesions are measured in, with its unit."""
        if self.loss is not classification_loss:
            return "loss"
        return "cross-entropy with its own predictions in nats" if self.own else "cross-entropy in nats"


class _Predicted:
    """Batches whose labels are the classes that the whole model finds likeliest."""

    def __init__(self, form: ResidualForm, batches: Batches) -> None:
        self.form, self.batches = form, batches

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]  # asked where a bar is drawn, which expects a TypeError

    def __iter__(self) -> Iterator[tuple[Any, Tensor]]:
        for batch in each_batch(self.form, self.batches):
            values = self.form.values(batch.args, batch.kwargs, (self.form.output,))
            output = values[self.form.output]
            if output.ndim < 2:
                raise DataError(
                    "report: without labels the model's own predictions stand for them, and they need scores "
                    f"[batch, ..., classes]; the output is {list(output.shape)}. Give labels, or leave out lesions, "
                    "orders, signal and coherence."
                )
            yield (dict(batch.kwargs) if batch.kwargs else batch.args), output.argmax(-1)
