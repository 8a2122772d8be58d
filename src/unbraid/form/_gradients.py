"""A form's gradient against the model's own: what capture may lose shows in no value.

A graph of operators computes what the model computes, and may still have another gradient: a region of torch.no_grad
that was forgotten, a custom autograd.Function whose backward no tracer sees, a hook on a gradient. So the gradient of a
random projection of the outputs is taken twice, once by autograd through the model itself and once through the form,
for the floating-point inputs and the parameters that learn. Nothing is written to the model: gradients are asked for,
not accumulated.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn

from unbraid._modes import outside_modes
from unbraid.errors import InexactError
from unbraid.form._aim import explained
from unbraid.form._alone import alone
from unbraid.form._aside import Draws, drawing
from unbraid.form._checkpoints import plain_checkpoints
from unbraid.form._edit import coarsest, under_autocast, widened
from unbraid.form._exactness import check_error, relative_error, tolerance
from unbraid.form._handed import titles
from unbraid.form._signature import Expected, as_call
from unbraid.form._stateful import drawn
from unbraid.form._target import Target
from unbraid.form._trees import leaves_of, mapped_tensors, tensors_in
from unbraid.form._untouched import untouched
from unbraid.walk import Streamed, device_of, joined, like, run

if TYPE_CHECKING:
    from unbraid.form._form import ResidualForm

# Of parameters as many numbers as this are compared, small tensors first: every bias and norm, and matrices while there
# is room. What is lost anywhere shows in the gradient of what lies before it.
_ROOM = 2**24

# A gradient that is zero by symmetry (of the bias of keys, of a bias before a norm) is rounding alone: an error is
# relative to this part of the largest gradient, at least.
_FLOOR = 1e-3

# A type whose unit of rounding is larger has too few digits for one bar; two roundings of one gradient lie this many
# times as far apart as one lies from the truth, at most.
_COARSE, _LIKE = 1e-4, 4.0

# For what a call returns, pairs of an output and its cotangent.
Loss = Callable[[Any], Sequence[tuple[Tensor, Tensor]]]

# Outputs, and the gradient of their projection for each leaf.
Pulled: TypeAlias = tuple[list[Tensor], list[Tensor | None]]


@dataclass(frozen=True)
class GradientCheck:
    """How closely a form's gradient follows the model's.

    Attributes:
        error: ‖form − model‖∞ / ‖model‖∞, the largest over inputs and parameters; nan where nothing was compared.
        where: the input or parameter with that error.
        unchecked: why nothing was compared; None where it was.
    """

    error: float
    where: str = ""
    unchecked: str | None = None


@outside_modes
def gradient_error(
    form: "ResidualForm", args: Any, kwargs: Mapping[str, Any] | None = None, target: Target | None = None
) -> float:
    """‖∂form − ∂model‖∞ / ‖∂model‖∞ at an input, of a target, or of the sum of the output that analyses explain.

    The reference is the model's own autograd. nan where there is none to ask: of a loaded or edited form, of a model
    that draws numbers or has been switched to another mode since it was traced.

    Raises:
        InexactError: the gradients, or the outputs, depart by more than rounding.
    """
    if drawn(form.graph):
        return math.nan
    positional, keywords = as_call(args, kwargs)
    leaves = leaves_of(form.signature.output)

    def seeds(result: Any) -> list[tuple[Tensor, Tensor]]:
        pairs = zip(leaves, leaves_of(result), strict=True)
        values = {leaf.stream: value for leaf, value in pairs if isinstance(leaf, Expected)}
        output = values[form.output] if target is None else explained(form, values, target, result)
        return [(output, torch.ones_like(output))]

    return gradients_against_model(form, positional, keywords, seeds).error


class NotAtHand(Exception):  # noqa: N818  (no error: it says why there is nothing to compare with)
    """There is no model whose gradient could be asked for."""


@dataclass(frozen=True)
class _Leaves:
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


def gradients_against_model(
    form: "ResidualForm", args: tuple[Any, ...], kwargs: Mapping[str, Any], seeds: Loss | None = None
) -> GradientCheck:
    """Compare the gradients of a projection of the outputs.

    Args:
        form: an unedited form.
        args: its positional inputs.
        kwargs: its keyword inputs.
        seeds: for what the model returns, pairs of an output and its cotangent; by default random ones for all.

    Raises:
        InexactError: they depart by more than rounding; it names where.
    """
    kwargs = form.signature.completed(args, kwargs)
    draws = Draws()
    try:
        model = _model(form)
        (there, theirs), leaves = _of_the_model(form, model, args, kwargs, seeds or projected, draws)
    except NotAtHand as reason:
        return GradientCheck(math.nan, unchecked=str(reason))
    except Exception as error:
        line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        return GradientCheck(
            math.nan, unchecked=f"the model's own autograd raises {type(error).__name__}: {line[:200]}"
        )
    here, ours = _of_the_form(form, model, leaves, args, kwargs, seeds or projected, draws.again())
    _same_outputs(form, here, there)

    def exact() -> list[Tensor | None]:
        graph, state = widened(form.graph, form.state)
        wide = replace(form, graph=graph, state=state)
        return _of_the_form(wide, model, leaves, args, kwargs, seeds or projected, draws.again(), torch.float64)[1]

    return _compared(form, leaves, ours, theirs, exact)


def few_examples(
    form: "ResidualForm", args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The first two examples, where the batch is free and examples are separate: a gradient costs as much as a run."""
    expected = [leaf for leaf in leaves_of(dict(form.signature.inputs)) if isinstance(leaf, Expected)]
    sizes = [str(size) for leaf in expected for size in leaf.sizes if "batch" in str(size)]
    training = form.origin is not None and form.origin.model is not None and form.origin.model.training
    if training or any(size != "batch" for size in sizes):
        return args, dict(kwargs)
    values = form.signature.bind(args, kwargs)
    shorter = {id(values[leaf.stream]): leaf.sizes.index("batch") for leaf in expected if "batch" in leaf.sizes}

    def cut(tensor: Tensor) -> Tensor:
        return (
            tensor.narrow(shorter[id(tensor)], 0, min(2, tensor.shape[shorter[id(tensor)]]))
            if id(tensor) in shorter
            else tensor
        )

    few: tuple[tuple[Any, ...], dict[str, Any]] = mapped_tensors(cut, (args, dict(kwargs)))
    return few


def projected(result: Any) -> list[tuple[Tensor, Tensor]]:
    """Every floating-point output with a fixed random cotangent."""
    generator = torch.Generator().manual_seed(0)
    outputs = [tensor for tensor in tensors_in(result) if _continuous(tensor)]
    return [
        (output, torch.randn(output.shape, generator=generator, dtype=torch.float64, device="cpu").to(output))
        for output in outputs
    ]


def _model(form: "ResidualForm") -> nn.Module:
    """The model, if it still holds the tensors that the form runs on."""
    if form.origin is None or form.origin.model is None:
        raise NotAtHand("the model is not at hand")
    if form.deletions or form.moved:
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


def _of_the_model(
    form: "ResidualForm", model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], seeds: Loss, draws: Draws
) -> tuple[Pulled, _Leaves]:
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
        with alone(), plain_checkpoints():
            return torch.func.functional_call(model, {**buffers, **replaced}, *call, tie_weights=False)

    leaves = _Leaves(inputs, trainable, call)
    with untouched(model, call) as aside, aside.drawing(draws):
        values, gradients = _gradients(result, [*inputs.values(), *trainable.values()], seeds)
        return ([aside.own(value) for value in values], gradients), leaves


def _of_the_form(
    form: "ResidualForm",
    model: nn.Module,
    leaves: _Leaves,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    seeds: Loss,
    draws: Draws,
    dtype: torch.dtype | None = None,
) -> Pulled:
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
            return _gradients(result, [*inputs.values(), *learned.values()], seeds)
    except Exception as error:
        raise InexactError(
            "The form's gradient must be the model's; the model has one at this input, and in the form autograd raises "
            f"{type(error).__name__}: {error}",
            where="the gradient",
            error=math.inf,
        ) from error


def _gradients(result: Callable[[], Any], leaves: list[Tensor], seeds: Loss) -> Pulled:
    """The outputs, and the gradient of their projection."""
    with torch.inference_mode(False), torch.enable_grad():
        pairs = list(seeds(result()))
        values = [output.detach() for output, _ in pairs]
        graded = [(output, seed) for output, seed in pairs if output.requires_grad]
        if not graded:
            return values, [None] * len(leaves)
        outputs, cotangents = zip(*graded, strict=True)
        return values, list(torch.autograd.grad(outputs, leaves, cotangents, allow_unused=True))


def _same_outputs(form: "ResidualForm", here: list[Tensor], there: list[Tensor]) -> None:
    """A form whose values are others has another gradient, too."""
    bound = tolerance("forward", form.dtype) if form.tolerance is None else form.tolerance
    error = max((relative_error(a, b) for a, b in zip(here, there, strict=True)), default=0.0)
    message = (
        f"The form must follow the model to {bound:g}; at this input its output departs by {error:.2e}. "
        "Was the model changed since it was traced? Trace it again at this input."
    )
    check_error(error, bound, message, where="the output")


def _fresh(
    form: "ResidualForm", args: tuple[Any, ...], kwargs: Mapping[str, Any]
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
    made = {id(p): nn.Parameter(p.detach()) for p in _within(parameters).values()}
    return {name: made[id(p)] for name, p in parameters.items() if id(p) in made}


def _within(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As many as there is room for, each tensor once, the small ones first."""
    kept, seen, room = dict[str, Tensor](), set[int](), _ROOM
    for name, parameter in sorted(parameters.items(), key=lambda item: item[1].numel()):
        if id(parameter) not in seen and parameter.numel() <= room and _continuous(parameter):
            seen.add(id(parameter))
            kept[name] = parameter
            room -= parameter.numel()
    return kept


def _compared(
    form: "ResidualForm",
    leaves: _Leaves,
    ours: list[Tensor | None],
    theirs: list[Tensor | None],
    exact: Callable[[], list[Tensor | None]],
) -> GradientCheck:
    worst, number = _worst(ours, theirs)
    where = leaves.names[number] if worst else ""
    precision = under_autocast(coarsest(form.graph, form.dtype), device_of(form.state))
    bound = tolerance("sum", precision)
    if not worst <= bound and _small(form) and torch.finfo(precision).eps > _COARSE:
        # Gradients of few digits may depart by more, where large terms cancel; then how far rounding alone takes the
        # form's own from its gradient in float64 is what counts.
        bound = max(bound, _LIKE * _worst(ours, exact())[0])
    if not worst <= bound:
        sizes = (_size(ours[number]), _size(theirs[number]))
        raise InexactError(
            f"The form's gradient must be the model's own to {bound:g}; at {where!r} it departs by {worst:.2e}: its "
            f"largest number is {sizes[0]:.3g} in the form, and {sizes[1]:.3g} in the model.\n" + _likely(form),
            where=where,
            error=worst,
        )
    return GradientCheck(worst, where)


def _likely(form: "ResidualForm") -> str:
    """Why a gradient may be another one though all values are right, and what to do."""
    model = form.origin.model if form.origin is not None else None
    kept = _kept(model) if model is not None else None
    if kept is not None:
        return (
            f"  The model keeps {kept!r} from an earlier call with the history of how it was made: autograd goes on "
            "into that call, whose graph the form does not have.\n"
            "  Let it be made without one: clear it, and call the model under torch.no_grad before it is traced."
        )
    return (
        "  What the model's values do not show was lost when it was captured: a custom autograd.Function (its "
        "backward is not seen; torch.utils.checkpoint with use_reentrant=True is one), a hook on a gradient, or a "
        "region without gradients.\n"
        "  Write it with torch.no_grad and detach, or with use_reentrant=False."
    )


def _kept(model: nn.Module) -> str | None:
    """The name of an attribute whose tensor, or one inside it, has a history."""
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            own = name in {"_parameters", "_modules"}
            if not own and any(tensor.grad_fn is not None for tensor in tensors_in(value)):
                return f"{path}.{name}" if path else name
    return None


def _worst(ours: list[Tensor | None], theirs: list[Tensor | None]) -> tuple[float, int]:
    """The largest error of a gradient, and its place."""
    largest = max((_size(g) for g in theirs), default=0.0)
    errors = [0.0]
    for a, b in zip(ours, theirs, strict=True):
        scale = max(_size(a), _size(b), _FLOOR * largest)
        errors.append(_distance(a, b) / scale if scale else _distance(a, b))
    worst = max(range(len(errors)), key=errors.__getitem__)
    return errors[worst], max(worst - 1, 0)


def _small(form: "ResidualForm") -> bool:
    """Whether there is room for the weights in float64, and nothing that would be drawn anew in another type."""
    learned = sum(like(form.state, name).numel() for name in form.state)
    return learned <= _ROOM and not drawn(form.graph)


def _distance(a: Tensor | None, b: Tensor | None) -> float:
    """‖a − b‖∞, where nothing stands for zero; numbers that are not finite must be the same."""
    if a is None or b is None:
        other = a if b is None else b
        return 0.0 if other is None else _distance(other, torch.zeros_like(other))
    if not a.numel():
        return 0.0
    x, y = a.to(_widest(a)), b.to(_widest(b))
    same = (x == y) | (torch.isnan(x) & torch.isnan(y))
    away = torch.where(same, torch.zeros_like(x), x - y).abs()
    return float(away.max()) if bool(torch.isfinite(away).all()) else math.inf


def _widest(tensor: Tensor) -> torch.dtype:
    return torch.complex128 if tensor.is_complex() else torch.float64


def _size(tensor: Tensor | None) -> float:
    """The largest number, of those that are finite."""
    return 0.0 if tensor is None or not tensor.numel() else float(tensor.abs().nan_to_num(0.0, 0.0, 0.0).max())
