"""A model and the inputs to trace it on, made alike each time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["SEED", "Loaded", "Wish", "normal", "seeded"]

SEED = 0  # of untrained weights and of inputs: two runs of one command print the same numbers


@dataclass(frozen=True)
class Loaded:
    """A model, ready to be traced.

    Attributes:
        name: what to call it.
        model: in eval mode.
        args: its positional inputs.
        kwargs: its keyword inputs.
        python: code that loads the same.
        encode: the model's tokenizer, text -> numbers; None where it has none.
    """

    name: str
    model: "nn.Module"
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    python: str = ""
    encode: Callable[[str], Sequence[int]] | None = None


@dataclass(frozen=True)
class Wish:
    """What was asked for, beside the name.

    Attributes:
        shape: of the input, batch included.
        pretrained: fetch trained weights.
        examples: the batch size, where no shape is given.
        meta: the structure alone, without memory for weights.
        data: what --data names, where the command has it.
        labels: labelled data are needed; without these, inputs alone are not looked for.
    """

    shape: tuple[int, ...] | None = None
    pretrained: bool = False
    examples: int = 2
    meta: bool = False
    data: str | None = None
    labels: bool = False

    @property
    def device(self) -> str:
        """Where the model is built and its inputs lie."""
        return "meta" if self.meta else "cpu"


def seeded(make: Callable[[], Any], device: str = "cpu") -> Any:
    """Make a model with the same weights each time, the global generator left as it was."""
    import torch

    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(SEED)
        return make()


def normal(shape: tuple[int, ...], device: str = "cpu") -> "Tensor":
    """The same normal numbers each time."""
    import torch

    return torch.randn(shape, generator=torch.Generator().manual_seed(SEED), device="cpu").to(device)
