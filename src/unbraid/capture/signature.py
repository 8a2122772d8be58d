"""How a call of a form is matched with the inputs of its graph, as the model's own signature would.

Each input is known by its place among the arguments, its sizes, and its type. A size is a number, or a name that all
inputs of one size share, such as "batch". Decisions are what the recorded run read of its inputs' values.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from torch import Tensor, fx, nn

from unbraid._modes import ordinary
from unbraid.capture.trees import Leaf, flatten, leaves_of, mapped, mapped_tensors, tensors_in
from unbraid.errors import InexactError, ShapeError

Sizes: TypeAlias = tuple[int | str, ...]
_SYMBOL = re.compile(r"\b[su]\d+\b")


@dataclass(frozen=True)
class TensorSpec(Leaf):
    """What one input tensor must look like.

    Attributes:
        stream: the graph's input stream that it feeds.
        sizes: its sizes as traced; a symbolic size is free.
        dtype: its element type, as text ("torch.float32").
    """

    stream: str
    sizes: tuple[int | str, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.dtype.removeprefix('torch.')}[{', '.join(map(str, self.sizes))}]"


@dataclass(frozen=True)
class Number(Leaf):
    """A number among what the model returns that depends on sizes: `return y, x.shape[0]`.

    Attributes:
        stream: where it is computed.
    """

    stream: str


@dataclass(frozen=True)
class Guard:
    """A value that the model's own code read from a tensor, or a size that depends on values.

    The run that was recorded took the way that belongs to this value: for another the graph would be another.

    Attributes:
        stream: the tensor.
        value: what it held, in the order of its elements; None where only its sizes matter.
        sizes: its sizes.
    """

    stream: str
    value: tuple[float | int | bool | complex, ...] | None
    sizes: tuple[int, ...]

    def met(self, tensor: Tensor) -> bool:
        """Whether the recorded way is the one that the model would take."""
        return tuple(tensor.shape) == self.sizes and self.value in (None, tuple(tensor.flatten().tolist()))


@dataclass(frozen=True)
class Signature:
    """How calls are matched with the graph: by name, as the model's own forward would match them.

    Attributes:
        forward: the names of the forward's parameters that can be given by position.
        inputs: what each traced argument was, by its name: a tree of `TensorSpec` tensors and constants.
        output: a tree of streams and constants.
        decisions: on which values the way through the model's code depends; none if it was exported.
        recorded: why the form is one recorded run; empty if the model was exported.
    """

    forward: tuple[str, ...]
    inputs: Mapping[str, Any]
    output: Any
    decisions: tuple[Guard, ...] = ()
    recorded: str = ""

    def __str__(self) -> str:
        parts = []
        for name, value in self.inputs.items():
            leaves = [str(leaf) for leaf in leaves_of(value)]
            parts.append(f"{name}: {leaves[0] if len(leaves) == 1 else '(' + ', '.join(leaves) + ')'}")
        return f"({', '.join(parts)})"

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The value of every input stream; traced constants that are left out are filled in.

        Raises:
            TypeError: an argument is unknown, given twice or missing, or a constant differs from the traced one.
            ShapeError: a tensor's fixed sizes differ from the traced ones.
        """
        given = self._named(args, kwargs)
        values: dict[str, Any] = {}
        for name, traced in self.inputs.items():
            if name not in given and any(isinstance(leaf, TensorSpec) for leaf in leaves_of(traced)):
                raise TypeError(f"The form needs the argument {name!r}. It was traced as {self}.")
            self._match(name, traced, given.get(name, traced), values)
        return values

    def completed(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The keyword arguments with the traced constants that are left out: a model's own default may be another."""
        given = {*self.forward[: len(args)], *kwargs}
        left = {name: value for name, value in self.inputs.items() if name not in given and name.isidentifier()}
        constants = {name: value for name, value in left.items() if not _has_tensors(value)}
        return {**kwargs, **constants}

    def _named(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        if len(args) > len(self.forward):
            raise TypeError(f"The form takes {len(self.forward)} positional arguments, {len(args)} came: {self}.")
        given = dict(zip(self.forward, args, strict=False))
        if twice := given.keys() & kwargs.keys():
            raise TypeError(f"The form got {sorted(twice)} both by position and by name. It was traced as {self}.")
        given |= kwargs
        if unknown := [name for name in given if name not in self.inputs]:
            raise TypeError(
                f"The form knows no argument {unknown[0]!r}: it was traced as {self}. "
                f"Trace again with {unknown[0]!r} among the arguments to have it in the graph."
            )
        return given

    def _match(self, name: str, traced: Any, value: Any, values: dict[str, Any]) -> None:
        expected, structure = flatten(traced)
        leaves, other = flatten(value)
        if structure != other:
            raise TypeError(f"The form's argument {name!r} has another structure than the traced one, {self}.")
        for leaf, arrived in zip(expected, leaves, strict=True):
            if isinstance(leaf, TensorSpec):
                values[leaf.stream] = _checked(name, leaf, arrived, self)
            elif not _same(leaf, arrived):
                raise TypeError(
                    f"The form was traced with {name}={leaf!r}, and {arrived!r} came: the graph has the traced value "
                    "built in. Trace again with the other value."
                )

    def result(self, values: Mapping[str, Any]) -> Any:
        """The model's own output structure, filled with the values of the output streams.

        Raises:
            InexactError: at these inputs the model's code takes another way than the one that was recorded.
        """
        for decision in self.decisions:
            if not decision.met(values[decision.stream]):
                raise _another_way(decision, values[decision.stream], self.recorded)
        return mapped(lambda leaf: values[leaf.stream] if isinstance(leaf, TensorSpec | Number) else leaf, self.output)

    def renamed(self, called: Callable[[Sizes], Sizes]) -> "Signature":
        """The same with other names for free sizes."""

        def other(leaf: Any) -> Any:
            return replace(leaf, sizes=called(leaf.sizes)) if isinstance(leaf, TensorSpec) else leaf

        inputs = {name: mapped(other, value) for name, value in self.inputs.items()}
        return replace(self, inputs=inputs, output=mapped(other, self.output))

    def fixed(self, given: Mapping[str, Any]) -> "Signature":
        """The same for inputs of the sizes of some given ones, by stream, alone."""

        def other(leaf: Any) -> Any:
            value = given.get(leaf.stream) if isinstance(leaf, TensorSpec) else None
            return replace(leaf, sizes=tuple(value.shape)) if isinstance(value, Tensor) else leaf

        return replace(self, inputs={name: mapped(other, value) for name, value in self.inputs.items()})

    def streams(self) -> tuple[str, ...]:
        """The output streams, in the order of the output's leaves, and those on which the way taken depends."""
        outputs = tuple(leaf.stream for leaf in leaves_of(self.output) if isinstance(leaf, TensorSpec | Number))
        return (*outputs, *(decision.stream for decision in self.decisions))


def positions(model: nn.Module, args: tuple[Any, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of the forward's positional parameters, and of those that these arguments fill."""
    parameters = inspect.signature(model.forward).parameters.values()
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        names += [f"argument {number}" for number in range(len(names), len(args))]
    if len(args) > len(names):
        raise TypeError(f"{type(model).__name__}.forward takes {names}, and {len(args)} arguments came.")
    return tuple(names), tuple(names[: len(args)])


def sizes(tensor: Tensor) -> tuple[int | str, ...]:
    """A tensor's sizes, a symbolic one as the text of its expression."""
    # A size that the model's code fixed is still symbolic, but its expression is a number.
    return tuple(int(str(size)) if str(size).isdigit() else str(size) for size in tensor.shape)


def plain_names(placeholders: Iterable[fx.Node]) -> Callable[[Sizes], Sizes]:
    """Names for free sizes that a reader knows: "batch" for the first of the first input, n1, n2, ... for the others.

    The exporter's own are s77, s53 and the like.
    """
    free: dict[str, str] = {}
    for node in placeholders:
        value = node.meta.get("val")
        if node.op == "placeholder" and isinstance(value, Tensor):
            for place, size in enumerate(sizes(value)):
                if isinstance(size, str) and _SYMBOL.fullmatch(size) and size not in free:
                    free[size] = (
                        "batch" if place == 0 and not free else f"n{sum(n != 'batch' for n in free.values()) + 1}"
                    )

    def called(shape: Sizes) -> Sizes:
        return tuple(
            size if isinstance(size, int) else _SYMBOL.sub(lambda s: free.get(s[0], s[0]), size) for size in shape
        )

    return called


def as_call(args: Any, kwargs: Mapping[str, Any] | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A bare tensor means (tensor,), and a mapping of tensors given alone means keyword arguments.

    Tensors that were made in inference mode become ones that autograd takes.
    """
    if isinstance(args, Tensor):
        call: tuple[tuple[Any, ...], dict[str, Any]] = (args,), dict(kwargs or {})
    elif isinstance(args, Mapping):
        call = (), {**args, **(kwargs or {})}
    else:
        call = tuple(args), dict(kwargs or {})
    if any(tensor.is_inference() for tensor in tensors_in(call)):
        call = mapped_tensors(ordinary, call)
    return call


def _another_way(decision: Guard, tensor: Tensor, recorded: str) -> InexactError:
    came = list(tensor.shape) if decision.value is None else tensor.flatten().tolist()
    return InexactError(
        f"The form is one recorded run; at these inputs, or with this edit, the model's own code takes another way: it "
        f"reads {decision.stream!r}, which was {list(decision.sizes if decision.value is None else decision.value)} "
        f"then and is {came} now. Trace again at these inputs.\n  It is a recorded run because {recorded}",
        where=decision.stream,
    )


def _only_traced(signature: Signature) -> str:
    """Why a recorded run has no free size."""
    return f"\n  The form is one recorded run, because {signature.recorded}" if signature.recorded else ""


def _same(traced: Any, arrived: Any) -> bool:
    return type(traced) is type(arrived) and bool(traced == arrived)


def _checked(name: str, expected: TensorSpec, arrived: Any, signature: Signature) -> Any:
    if not isinstance(arrived, Tensor):
        raise TypeError(f"The form's argument {name!r} must be a tensor, {type(arrived).__name__} came: {signature}.")
    if str(arrived.dtype) != expected.dtype:
        raise TypeError(
            f"The form's argument {name!r} must be {expected}, and {arrived.dtype} came. Convert it, or trace again."
        )
    fits = len(arrived.shape) == len(expected.sizes) and all(
        isinstance(size, str) or size == came for size, came in zip(expected.sizes, arrived.shape, strict=True)
    )
    if not fits:
        raise ShapeError(
            f"The form's argument {name!r} must have the traced sizes, where a letter stands for a free one.\n"
            f"  traced  {list(expected.sizes)}\n  came    {list(arrived.shape)}\n"
            "  Give that shape, or trace again with the other."
            f"{_only_traced(signature)}",
            block="input",
            shapes={"came": tuple(arrived.shape)},
        )
    return arrived


def _has_tensors(value: Any) -> bool:
    """Whether any leaf of a traced argument was a tensor."""
    return any(isinstance(leaf, TensorSpec) for leaf in leaves_of(value))
