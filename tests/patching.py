"""Path patching written by hand, to judge `unbraid.edges` by: nothing here knows of graphs or forms.

A network is seen as writers 0..K (the input, then each branch) and readers 0..K (each branch, then the head). Reader r
reads a stream that the trunk makes of what writers 0..r wrote. To patch the edge i → r, the trunk up to r is run anew
with what all of them wrote at the clean input, i's value replaced; r alone reads that stream, and all that comes after
responds to what r then writes. Two ways to do so: `Program`, a network as a few plain functions, and `Hooked`, the
model's own forward pass with one forward pre-hook.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from networks import F64, error

TOLERANCE = 1e-10  # in float64


class Network(Protocol):
    """What both ways of patching offer."""

    @property
    def levels(self) -> Sequence[int]:
        """The block of each writer, −1 for the input; reader r and writer r + 1 are the same branch."""

    def written(self, inputs: Any) -> list[Tensor]:
        """What the input and each branch add to the trunk in an ordinary run."""

    def patched(self, inputs: Any, written: Sequence[Tensor], reader: int) -> Any:
        """What the network returns where one reader alone reads the stream made of `written`."""


@dataclass(frozen=True)
class Program:
    """A network as plain functions of a state, which is whatever tensors the trunk holds.

    Attributes:
        start: the state of the input.
        branches: f_k, of what branch k reads to what it writes.
        read: what branch k reads of a state.
        write: the state after branch k wrote a value: skip, sum and what follows the sum.
        head: what the network returns, of its last state.
        blocks: the block of each branch, where several branches belong to one.
    """

    start: Callable[[Tensor], Any]
    branches: Sequence[Callable[[Tensor], Tensor]]
    read: Callable[[int, Any], Tensor]
    write: Callable[[int, Any, Tensor], Any]
    head: Callable[[Any], Tensor]
    blocks: Sequence[int] | None = None

    @property
    def levels(self) -> Sequence[int]:
        return (-1, *(self.blocks or range(len(self.branches))))

    def __call__(self, inputs: Tensor) -> Tensor:
        return self.head(self.state_at(self.written(inputs), len(self.branches)))

    def written(self, inputs: Tensor) -> list[Tensor]:
        written, state = [inputs], self.start(inputs)
        for k in range(len(self.branches)):
            written.append(self.branches[k](self.read(k, state)))
            state = self.write(k, state, written[-1])
        return written

    def patched(self, inputs: Tensor, written: Sequence[Tensor], reader: int) -> Tensor:
        seen = self.state_at(written, reader)
        if reader == len(self.branches):
            return self.head(seen)
        clean = self.state_at(self.written(inputs), reader)
        state = self.write(reader, clean, self.branches[reader](self.read(reader, seen)))
        for k in range(reader + 1, len(self.branches)):
            state = self.write(k, state, self.branches[k](self.read(k, state)))
        return self.head(state)

    def state_at(self, written: Sequence[Tensor], steps: int) -> Any:
        state = self.start(written[0])
        for k in range(steps):
            state = self.write(k, state, written[k + 1])
        return state


def chain_program(
    branches: Sequence[nn.Module], after: Sequence[nn.Module], head: nn.Module, skips: Sequence[nn.Module] | None = None
) -> Program:
    """h_k = P_k(S_k(h_{k−1}) + f_k(h_{k−1})), one tensor as the state."""
    skips = skips or [nn.Identity() for _ in branches]
    return Program(
        start=lambda x: x,
        branches=branches,
        read=lambda k, h: h,
        write=lambda k, h, value: after[k](skips[k](h) + value),
        head=head,
    )


class Widened(TorchFunctionMode):
    """Casts to float32 become casts to float64: norms and softmaxes of language models compute in single precision."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is Tensor.float:
            func = Tensor.double
        args = [F64 if a is torch.float32 else a for a in args]
        kwargs = {name: F64 if a is torch.float32 else a for name, a in (kwargs or {}).items()}
        return func(*args, **kwargs)


@dataclass(frozen=True)
class Hooked:
    """A model as it is, patched by one forward pre-hook on the module with which a branch begins.

    Attributes:
        model: called with a tensor, or with keyword arguments where the inputs are a mapping.
        readers: the module with which each branch begins, and the one with which the head begins: off the skip.
        writers: the module whose output each branch adds to the trunk.
        skips: S_k of each block.
        after: P_k of each block.
    """

    model: nn.Module
    readers: Sequence[nn.Module]
    writers: Sequence[nn.Module]
    skips: Sequence[nn.Module]
    after: Sequence[nn.Module]

    @property
    def levels(self) -> Sequence[int]:
        return range(-1, len(self.writers))

    def written(self, inputs: Any) -> list[Tensor]:
        kept: dict[int, Tensor] = {}

        def begin(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            kept[0] = args[0].clone()  # what the first block reads

        def keeper(k: int) -> Callable[[nn.Module, Any, Any], None]:
            def keep(module: nn.Module, args: Any, output: Any) -> None:
                kept[k] = first(output).clone()  # a clone, as models add the skip in place

            return keep

        with ExitStack() as hooks:
            hooks.enter_context(hook(self.readers[0].register_forward_pre_hook(begin)))
            for k, module in enumerate(self.writers, start=1):
                hooks.enter_context(hook(module.register_forward_hook(keeper(k))))
            run_model(self.model, inputs)
        return [kept[k] for k in range(len(kept))]

    def patched(self, inputs: Any, written: Sequence[Tensor], reader: int) -> Any:
        with Widened():
            stream = written[0]
            for k in range(reader):
                stream = self.after[k](self.skips[k](stream) + written[k + 1])

        def replace(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return stream, *args[1:]

        with hook(self.readers[reader].register_forward_pre_hook(replace)):
            return run_model(self.model, inputs)


def run_model(model: nn.Module, inputs: Any) -> Any:
    """What the model returns, computed in float64 throughout."""
    with Widened():
        return model(**inputs) if isinstance(inputs, Mapping) else model(inputs)


def first(output: Any) -> Tensor:
    """The tensor of a module that returns one, or one and others."""
    return output if isinstance(output, Tensor) else output[0]


@contextmanager
def hook(handle: Any) -> Iterator[None]:
    """A hook that is gone afterwards."""
    try:
        yield
    finally:
        handle.remove()


def library(name: str) -> Any:
    """A library of models; a torchvision beside a CPU build of torch needs the stub first."""
    pytest.importorskip("torchvision_stub")
    return pytest.importorskip(name)


# What takes the place of a writer's value, by the clean ones of all writers.
def zeros(written: Sequence[Tensor]) -> list[Tensor]:
    return [torch.zeros_like(value) for value in written]


def means(written: Sequence[Tensor]) -> list[Tensor]:
    """Over the examples of the batch."""
    return [value.mean(0, keepdim=True).expand_as(value) for value in written]


def exact_effects(network: Network, inputs: Any, instead: Sequence[Tensor], target: Callable[[Any], Tensor]) -> Tensor:
    """target(edge replaced) − target(as it is): [writers, readers, *shape of the target], nan for no edge."""
    with torch.no_grad():
        clean = network.written(inputs)
        base = target(network.patched(inputs, clean, 0))

        def effect(writer: int, reader: int) -> Tensor:
            written = list(clean)
            written[writer] = instead[writer]
            return target(network.patched(inputs, written, reader)) - base

        return each_edge(network.levels, effect, base)


def attributed_effects(
    network: Network, inputs: Any, instead: Sequence[Tensor], target: Callable[[Any], Tensor]
) -> Tensor:
    """The derivative of `exact_effects` where a writer's value moves towards its replacement: by autograd, at 0."""
    with torch.no_grad():
        clean = network.written(inputs)
        base = target(network.patched(inputs, clean, 0))

    def effect(writer: int, reader: int) -> Tensor:
        t = torch.zeros(base.shape, dtype=F64, requires_grad=True)
        moved = clean[writer] + spread(t, clean[writer]) * (instead[writer] - clean[writer])
        written = [*clean[:writer], moved, *clean[writer + 1 :]]
        value = target(network.patched(inputs, written, reader))
        (slope,) = torch.autograd.grad(value.sum(), t, allow_unused=True)
        return torch.zeros_like(base) if slope is None else slope

    return each_edge(network.levels, effect, base)


def each_edge(levels: Sequence[int], effect: Callable[[int, int], Tensor], like: Tensor) -> Tensor:
    """One value for each edge: the writer's block lies before the reader's; nan where there is none."""
    size = len(levels)
    table = torch.full((size, size, *like.shape), math.nan, dtype=F64)
    for reader in range(size):
        level = levels[reader + 1] if reader + 1 < size else math.inf
        for writer in range(size):
            if levels[writer] < level:
                table[writer, reader] = effect(writer, reader)
    return table


def spread(t: Tensor, like: Tensor) -> Tensor:
    """One number per example, as a factor of a tensor [batch, ...]."""
    return t.reshape(-1, *(1 for _ in range(like.ndim - 1))) if t.ndim else t


EFFECTS = {"exact": exact_effects, "attribution": attributed_effects}


def assert_effects(study: Any, expected: Tensor) -> None:
    """A study's effects are those expected, [writers, readers, batch]; a row of constants carries none."""
    writers = len(expected)
    assert study.per_example.shape[1:] == expected.shape[1:]
    assert study.readers[-1] == "head"
    assert study.writers[0] == "input"
    assert study.writers[1:writers] == study.readers[:-1]
    if study.writers[writers:]:
        assert study.writers[writers:] == ("constants",)
        assert study.per_example[writers:].isnan().all()
    edge = ~expected.isnan()
    actual = study.per_example[:writers]
    assert torch.equal(~actual.isnan(), edge)
    assert error(actual[edge], expected[edge]) < TOLERANCE
    assert error(study.effects[:writers][edge[..., 0]], expected.mean(-1)[edge[..., 0]]) < TOLERANCE
    assert study.effects[:writers][~edge[..., 0]].isnan().all()
