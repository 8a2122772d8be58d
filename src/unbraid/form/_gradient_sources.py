"""The gradient of a projection of the outputs, by autograd through the model itself and through the form.

Nothing is written to the model: gradients are asked for, not accumulated, of copies of the inputs and of the
model's own parameters.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from unbraid.capture import Draws, drawing, exclusive, plain_checkpoints, titles, untouched
from unbraid.capture.trees import mapped_tensors, tensors_in
from unbraid.errors import InexactError
from unbraid.form._accumulated import forget_gradients, gradients_aside, with_accumulated
from unbraid.form._core import Form
from unbraid.graph.state import Streamed, joined
from unbraid.walk import run

# Of parameters as many numbers as this are compared, small tensors first: every bias and norm, and matrices while there
# is room. What is lost anywhere shows in the gradient of what lies before it.
ROOM = 2**24


# Outputs, and the gradient of their projection for each leaf.
Pulled: TypeAlias = tuple[list[Tensor], list[Tensor | None]]


@dataclass(frozen=True)
class Projection:
    """A number of which the gradient is taken, ⟨outputs, cotangents⟩.

    Attributes:
        outputs: those of what a call returns.
        cotangents: one for each of them.
    """

    outputs: Callable[[Any], list[Tensor]]
    cotangents: Callable[[Sequence[Tensor]], list[Tensor]]


@dataclass(frozen=True)
class Watch:
    """Who looks at outputs, and at gradients as they come.

    Attributes:
        outputs: is shown the outputs, before there are gradients.
        gradient: is shown the number of a leaf and its gradient.
    """

    outputs: Callable[[list[Tensor]], None]
    gradient: Callable[[int, Tensor], None]


class NotAtHand(Exception):  # noqa: N818  (no error: it says why there is nothing to compare with)
    """There is no model whose gradient could be asked for."""


@dataclass(frozen=True)
class Leaves:
    """What gradients are taken of.

    Attributes:
        inputs: for each floating-point input the tensor that autograd knows, flat, by the name of its argument.
        parameters: the model's own tensors, by name.
        call: the arguments, made from `inputs`.
    """

    inputs: Mapping[str, Tensor]
    parameters: Mapping[str, Tensor]
    call: tuple[tuple[Any, ...], dict[str, Any]]

    @property
    def names(self) -> list[str]:
        return [*self.inputs, *self.parameters]


def _floating(result: Any) -> list[Tensor]:
    return [tensor for tensor in tensors_in(result) if _continuous(tensor)]


def _drawn(outputs: Sequence[Tensor]) -> list[Tensor]:
    """The same numbers in every type."""
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(output.shape, generator=generator, dtype=torch.float32, device="cpu").to(output)
        for output in outputs
    ]


RANDOM = Projection(_floating, _drawn)  # every floating-point output with a fixed random cotangent


def model_at_hand(form: Form) -> nn.Module:
    """The model, if it still holds the tensors that the form runs on."""
    if form.origin is None or form.origin.model is None:
        raise NotAtHand("the model is not at hand")
    if form.edited:
        raise NotAtHand("the form was edited")
    if isinstance(form.state, Streamed):
        raise NotAtHand("the form's weights are read from files")
    held = dict(form.origin.model.named_parameters(remove_duplicate=False))
    for name in form.learned:
        if name not in held or held[name].is_meta or held[name].data_ptr() != form.state[name].data_ptr():
            raise NotAtHand("the form's weights are not the model's")
    if form.origin.modes != modes(form.origin.model):
        raise NotAtHand("the model was switched between training and evaluation since it was traced")
    return form.origin.model


def modes(model: nn.Module) -> tuple[bool, ...]:
    """The training flag of every module."""
    return tuple(module.training for module in model.modules())


def of_the_model(
    form: Form, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], projection: Projection, draws: Draws
) -> tuple[Pulled, Leaves]:
    inputs, call = _fresh(form, args, kwargs)
    held = dict(model.named_parameters(remove_duplicate=False))
    trainable = _within({name: held[name] for name in sorted(form.learned) if held[name].requires_grad})
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers(remove_duplicate=False)}
    replaced: dict[str, Tensor] = {}
    if not inputs and not trainable:
        trainable = replaced = _own({name: held[name] for name in sorted(form.learned)})
    if not inputs and not trainable:
        raise NotAtHand("no input and no parameter has a gradient")

    def result() -> Any:
        # autograd.grad, which writes nothing to the model, cannot pass a reentrant checkpoint.
        with exclusive(), plain_checkpoints():
            output = torch.func.functional_call(model, {**buffers, **replaced}, *call, tie_weights=False)
        forget_gradients(model.parameters())  # what a model's own code wrote while it ran, no backward pass has made
        return output

    leaves = Leaves(inputs, trainable, call)
    with gradients_aside(model.parameters()), untouched(model, call) as aside, aside.drawing(draws):
        values, gradients = _gradients(result, [*inputs.values(), *trainable.values()], projection)
        gradients = with_accumulated([*inputs.values(), *trainable.values()], gradients)
        return ([aside.own(value) for value in values], gradients), leaves


def of_the_form(
    form: Form,
    model: nn.Module,
    leaves: Leaves,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    projection: Projection,
    draws: Draws,
    *,
    dtype: torch.dtype | None = None,
    watch: Watch | None = None,
) -> list[Tensor | None]:
    """Gradients of the form. Whoever watches is shown them one by one, and zeros are handed back in their place."""
    inputs, (positional, keywords) = _fresh(form, args, kwargs)
    held = dict(model.named_parameters(remove_duplicate=False))
    own = {id(leaves.parameters[name]): name for name in leaves.parameters}
    learned = {name: _typed(tensor.detach(), dtype).requires_grad_() for name, tensor in leaves.parameters.items()}
    shared = {name: learned[own[id(held[name])]] for name in form.learned if id(held[name]) in own}
    # The others learn as they do in the model: where one weight is frozen torch goes another way, not always rightly.
    others = {
        name: _typed(form.state[name].detach(), dtype).requires_grad_(held[name].requires_grad)
        for name in form.learned
        if id(held[name]) not in own
    }

    def result() -> Any:
        bound = {name: _typed(value, dtype) for name, value in form.signature.bind(positional, keywords).items()}
        values = run(form.graph, joined(form.state, {**others, **learned, **shared}), bound)
        return form.signature.result(values)

    try:
        with drawing(draws):
            return _gradients(result, [*inputs.values(), *learned.values()], projection, watch)[1]
    except InexactError:
        raise
    except Exception as error:
        raise InexactError(
            "The form's gradient must be the model's; the model has one at this input, and in the form autograd raises "
            f"{type(error).__name__}: {error}",
            where="the gradient",
            error=math.inf,
        ) from error


def _gradients(
    result: Callable[[], Any],
    leaves: list[Tensor],
    projection: Projection,
    watch: Watch | None = None,
) -> Pulled:
    """The outputs, and the gradient of their projection."""
    with torch.inference_mode(False), torch.enable_grad():
        outputs = projection.outputs(result())
        values = [output.detach() for output in outputs]
        if watch is not None:
            watch.outputs(values)
            for number, leaf in enumerate(leaves):
                leaf.register_hook(partial(_handed_over, watch, number))  # type: ignore[no-untyped-call]
        pairs = zip(outputs, projection.cotangents(outputs), strict=True)
        graded = [(output, cotangent) for output, cotangent in pairs if output.requires_grad]
        if not graded:
            return values, [None] * len(leaves)
        ends, cotangents = zip(*graded, strict=True)
        return values, list(torch.autograd.grad(ends, leaves, cotangents, allow_unused=True))


def _handed_over(watch: Watch, number: int, gradient: Tensor) -> Tensor:
    watch.gradient(number, gradient)
    if gradient.layout is not torch.strided:  # of an embedding's few rows
        return gradient
    return gradient.new_zeros(()).expand_as(gradient)  # which has no memory


def _fresh(
    form: Form, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[dict[str, Tensor], tuple[tuple[Any, ...], dict[str, Any]]]:
    """Copies of the inputs in their layout, which the model may write, and the leaves that stand behind them."""
    leaves: dict[str, Tensor] = {}
    assert form.origin is not None
    assert form.origin.model is not None
    names = iter(titles(form.origin.model, args, kwargs))

    def copied(value: Tensor) -> Tensor:
        name = next(names)
        reach = 1 + sum((size - 1) * stride for size, stride in zip(value.shape, value.stride(), strict=True))
        flat = value.detach().as_strided((reach if value.numel() else 0,), (1,)).clone()
        if _continuous(value):
            leaves[name] = flat.requires_grad_()
            flat = flat * 1  # what the model writes in place must be no leaf
        return flat.as_strided(value.shape, value.stride(), 0)

    return leaves, mapped_tensors(copied, (args, dict(kwargs)))


def _typed(value: Any, dtype: torch.dtype | None) -> Any:
    """A value in another type, if it is a tensor of floating-point numbers."""
    floating = dtype is not None and isinstance(value, Tensor) and value.is_floating_point()
    return value.to(dtype) if floating else value


def _continuous(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _own(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Where none of the model's parameters learns: parameters on the same memory that do; tied ones stay tied."""
    learning = {id(p): nn.Parameter(p.detach()) for p in _within(parameters).values()}
    return {name: learning[id(p)] for name, p in parameters.items() if id(p) in learning}


def _within(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As many as there is room for, each tensor once, the small ones first."""
    kept, seen, room = dict[str, Tensor](), set[int](), ROOM
    for name, parameter in sorted(parameters.items(), key=lambda item: item[1].numel()):
        if id(parameter) not in seen and parameter.numel() <= room and _continuous(parameter):
            seen.add(id(parameter))
            kept[name] = parameter
            room -= parameter.numel()
    return kept
