import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import product, zip_longest
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.fx.node import map_arg

from unbraid.errors import InexactError, TraceError, UnbraidError
from unbraid.form._alone import alone
from unbraid.form._aside import Draws, drawing
from unbraid.form._checkpoints import plain_checkpoints
from unbraid.form._exactness import relative_error, sum_error, tolerance
from unbraid.form._gradients import few_examples, gradients_against_model
from unbraid.form._signature import Expected, as_call
from unbraid.form._stateful import by_chance
from unbraid.form._trees import flatten, leaves_of
from unbraid.form._untouched import Run, runs
from unbraid.form._unwarned import unwarned
from unbraid.graph import runnable
from unbraid.walk import joined, run

if TYPE_CHECKING:
    from unbraid.form._form import ResidualForm


_OTHERWISE = (
    "without gradients the model computes something else (by {:.1e}), and the form is the model as it is with them. "
    "Where that is the fast path of nn.TransformerEncoder, which leaves padded positions out, "
    "torch.backends.mha.set_fastpath_enabled(False) switches it off."
)


@dataclass(frozen=True, eq=False)
class Origin:
    """What a form was made from; a check needs it, a run does not.

    Attributes:
        model: the model itself; None for a form that was loaded.
        program: the exported program, which a saved form keeps; None for a recorded run.
        layers: the names of the layers of a chain; empty for a traced model.
        graph: its captured graph before the cut.
        names: the name in the state of each placeholder that stands for a parameter, buffer or constant.
        operands: for each top-level block the names of the nodes of its skip (None in a plain layer), of its branches
            and of its sum.
        example: the inputs of the trace, positional and keyword; None for a form that was loaded.
        tied: groups of names of one tensor, such as an embedding and a head that share it.
        computed: the buffers that the model computes, which no file of weights holds.
        modes: the training flag of each of the model's modules when it was traced.
    """

    model: nn.Module | None
    program: ExportedProgram | None
    layers: tuple[str, ...]
    graph: fx.Graph
    names: Mapping[str, str]
    operands: tuple[tuple[str | None, tuple[str, ...], str], ...]
    example: tuple[tuple[Any, ...], Mapping[str, Any]] | None = None
    tied: tuple[tuple[str, ...], ...] = ()
    computed: frozenset[str] = frozenset()
    modes: tuple[bool, ...] = ()


@dataclass(frozen=True)
class Verification:
    """How closely a form follows its model.

    Attributes:
        error: the largest of all the errors below, relative in the largest norm.
        outputs: ‖form(x) − model(x)‖∞ / ‖model(x)‖∞ at the given input.
        other_batch: the same at an input of another batch size; nan where there is none: the graph has every size built
            in, or the model itself does not take another.
            For one recorded run: at another input of its sizes; nan where the model's code goes another way there.
        additions: for each block ‖skip + Σ branches − sum‖∞ in the captured graph, relative to the largest of them all.
        ratios: for each block ‖branches‖∞ / ‖skip‖∞, the smallest of its branches.
        tolerance: the largest error that is rounding alone.
        one_batch: why `other_batch` is nan; empty where it is not.
        gradients: ‖∂form − ∂model‖∞ / ‖∂model‖∞ of a random projection of the outputs, the largest over the inputs and
            parameters, by the model's own autograd; nan where it was not compared.
        unchecked: why it was not; None where it was.
        otherwise: what the model computes otherwise where no gradient is asked for; empty where it does not.
    """

    error: float
    outputs: float
    other_batch: float
    additions: tuple[float, ...]
    ratios: tuple[float, ...]
    tolerance: float
    one_batch: str = ""
    gradients: float = math.nan
    unchecked: str | None = None
    otherwise: str = ""

    @property
    def silent(self) -> tuple[int, ...]:
        """The blocks whose branch is so small beside the skip that the check could not see it go missing."""
        return tuple(block for block, ratio in enumerate(self.ratios) if not ratio > self.tolerance)


def verify(form: "ResidualForm", args: Any, kwargs: Mapping[str, Any] | None = None) -> Verification:
    """Check a form against its model; see `ResidualForm.verify`."""
    if form.origin is None or form.deletions or form.moved:
        raise ValueError("verify: this form was edited, so there is no model to check it against.")
    positional, keywords = as_call(args, kwargs)
    bound = tolerance("forward", form.dtype) if form.tolerance is None else form.tolerance
    form.inputs(positional, keywords)  # what does not fit is told before the model is asked
    checked = _as_with_gradients(form, form.origin, positional, keywords, bound)
    if not checked.error <= bound:
        raise _inexact(form, checked, _departure(form, form.origin, form.inputs(positional, keywords), bound))
    with alone():
        gradients = gradients_against_model(form, *few_examples(form, positional, keywords))
    return replace(checked, gradients=gradients.error, unchecked=gradients.unchecked)


def _as_with_gradients(
    form: "ResidualForm", origin: Origin, args: tuple[Any, ...], kwargs: dict[str, Any], bound: float
) -> Verification:
    """The comparison of values; a model that the form follows only where gradients are asked for is compared so.

    Its tracer asked for them. nn.TransformerEncoder is such a model: without, it leaves padded positions out, and hands
    back zeros there.
    """
    failure = None
    try:
        checked = _values(form, origin, args, kwargs, bound)
    except InexactError as error:
        failure, apart = error, error.error
    else:
        apart = checked.error
    if not apart <= bound and origin.model is not None:
        try:
            graded = _values(form, origin, args, kwargs, bound, graded=True)
        except UnbraidError:
            graded = None
        if graded is not None and graded.error <= bound:
            return replace(graded, otherwise=_OTHERWISE.format(apart))
    if failure is not None:
        raise failure
    return checked


def _values(
    form: "ResidualForm",
    origin: Origin,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    bound: float,
    *,
    graded: bool = False,
) -> Verification:
    nested = unwarned("The PyTorch API of nested tensors")  # of which the fast path of nn.TransformerEncoder makes use
    with alone(), nested, _reference(form, origin, args, kwargs, graded=graded) as reference:
        outputs = _distance(form, partial(_at_hand, origin, reference), args, kwargs)
        additions, ratios = _additions(form, origin, form.inputs(args, kwargs))
        other, alone_because = _elsewhere(form, reference, args, kwargs)
    errors = [outputs, *additions, *([] if math.isnan(other) else [other])]
    return Verification(max(errors), outputs, other, additions, ratios, bound, one_batch=alone_because)


def _at_hand(origin: Origin, reference: Run, args: tuple[Any, ...], kwargs: Mapping[str, Any], draws: Draws) -> Any:
    """The model at an input that somebody gave."""
    try:
        return reference(args, kwargs, draws)
    except UnbraidError:
        raise
    except Exception as error:
        name = "The saved model" if origin.model is None else type(origin.model).__name__
        raise TraceError(
            f"{name}: the model itself raises {type(error).__name__} at this input, run without gradients: {error}"
        ) from error


def _distance(form: "ResidualForm", reference: Run, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float:
    """Form against model from one random state."""
    return _apart(*_both(form, reference, args, kwargs))


def _both(
    form: "ResidualForm", reference: Run, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[list[Tensor], list[Tensor]]:
    """The outputs of the form and of the model from one random state."""
    draws = Draws()
    with torch.no_grad():
        there = _comparable(reference(args, kwargs, draws))
        try:
            with drawing(draws.again()):
                here = form(*args, **kwargs)
        except UnbraidError:
            raise
        except Exception as error:
            other = "export" if form.tracer == "dispatch" else "dispatch"
            raise InexactError(
                "The form must follow the model, which runs at this input; the form raises "
                f"{type(error).__name__} there: {error}\n  Try tracer={other!r}.",
                where="the output",
                error=math.inf,
            ) from error
    return _comparable(here), there


def _comparable(result: Any) -> list[Tensor]:
    """Tensors, and numbers as such."""
    leaves = [
        torch.tensor(leaf, device="cpu") if isinstance(leaf, bool | int | float) else leaf for leaf in leaves_of(result)
    ]
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def _apart(here: list[Tensor], there: list[Tensor]) -> float:
    """The largest error of any output; other sizes and types are no rounding."""
    kinds = [[f"{tensor.dtype} {list(tensor.shape)}" for tensor in tensors] for tensors in (here, there)]
    if kinds[0] != kinds[1]:
        pairs = enumerate(zip_longest(*kinds, fillvalue="nothing"))
        number, (ours, models) = next((n, pair) for n, pair in pairs if pair[0] != pair[1])
        raise InexactError(
            f"The form must give tensors of the model's sizes and types; output {number} is {ours} in the form, and "
            f"{models} in the model.",
            where="the output",
            error=math.inf,
        )
    return max(map(relative_error, here, there), default=0.0)


@contextmanager
def _reference(
    form: "ResidualForm", origin: Origin, args: tuple[Any, ...], kwargs: dict[str, Any], *, graded: bool = False
) -> Iterator[Run]:
    """Runs of the model itself, of which nothing changes; else of its graph before the cut."""
    if origin.model is None:
        wanted = set(form.signature.streams())
        yield lambda args, kwargs, draws: form.signature.result(
            _uncut(form, origin, form.inputs(args, dict(kwargs)), wanted, draws)
        )
        return
    with (
        plain_checkpoints(),
        runs(origin.model, args, kwargs, graded=graded) as model,
    ):  # without gradients they would warn
        yield lambda args, kwargs, draws: model(args, form.signature.completed(args, kwargs), draws)


def _uncut(
    form: "ResidualForm", origin: Origin, inputs: Mapping[str, Any], wanted: set[str], draws: Draws | None = None
) -> dict[str, Tensor]:
    """Run the captured graph as it was before the cut, and keep some of its values."""
    values: dict[str, Tensor] = {}

    class Watch(fx.Interpreter):
        def fetch_args_kwargs_from_env(self, n: fx.Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
            # A parameter is read when an operator asks for it: with weights in files, all at once may not fit.
            return map_arg((n.args, n.kwargs), self._fetched)

        def _fetched(self, n: fx.Node) -> Any:
            return form.state[origin.names[n.name]] if n.name in origin.names else self.env[n]

        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if n.name in wanted:
                values[n.name] = value
            return value

    placeholders = [node.name for node in origin.graph.nodes if node.op == "placeholder"]
    feed = [None if name in origin.names else inputs[name] for name in placeholders]
    with torch.no_grad(), drawing(draws or Draws()):
        Watch(runnable(origin.graph)).run(*feed)
    return values


def _additions(
    form: "ResidualForm", origin: Origin, inputs: Mapping[str, Any]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Look at every addition where the model makes it."""
    named = {name for skip, branches, total in origin.operands for name in (skip, *branches, total)}
    values = _uncut(form, origin, inputs, {name for name in named if name is not None})
    errors, ratios = [], []
    for skip, branches, total in origin.operands:
        whole = values[total]
        operands = [values[name].to(whole.dtype).expand(whole.shape) for name in (skip, *branches) if name is not None]
        errors.append(sum_error(torch.stack(operands), whole))
        size = _size(values[skip]) if skip else 1.0
        ratios.append(min(_size(values[name]) for name in branches) / size if size else 1.0)
    return tuple(errors), tuple(ratios)


def _departure(form: "ResidualForm", origin: Origin, inputs: Mapping[str, Any], bound: float) -> int | None:
    """The first block whose sum is not the model's, or not that of its operands; None where all of them are."""
    totals = [total for _, _, total in origin.operands]
    known = {} if origin.model is None else dict(origin.model.state_dict(keep_vars=True))
    there = _uncut(replace(form, state=joined(form.state, known)), origin, inputs, set(totals))
    kept = tuple(total for total in totals if any(add.output == total for add in form.adds))
    with torch.no_grad(), drawing(Draws()):
        here = run(form.graph, form.state, inputs, keep=kept)
    sums = _additions(form, origin, inputs)[0]
    for block, (total, error) in enumerate(zip(totals, sums, strict=True)):
        if not error <= bound or total not in here or not relative_error(here[total], there[total]) <= bound:
            return block
    return None


def _inexact(form: "ResidualForm", checked: Verification, block: int | None) -> InexactError:
    nothing = "  Infinite: nan and infinity cannot be compared. Look for them in the weights.\n"
    where = "the output" if block is None else f"block {block} ({form.blocks[block].name!r})"
    return InexactError(
        f"The form must follow the model to {checked.tolerance:g}; it departs at {where}.\n"
        f"  at the given input        {checked.outputs:.2e}\n"
        f"  at another batch size     {checked.other_batch:.2e}\n"
        f"  worst of the additions    {max(checked.additions, default=0.0):.2e}\n"
        f"{nothing if math.isinf(checked.error) else ''}"
        f"{_cause(form, checked)}{by_chance(form.graph)}",
        where=where,
        error=checked.error,
    )


def _cause(form: "ResidualForm", checked: Verification) -> str:
    """What is known of why: the model itself is asked once more before it is blamed."""
    assert form.origin is not None
    if form.origin.model is not None and form.origin.example is not None:
        args, kwargs = form.origin.example
        draws = Draws()
        with torch.no_grad(), _reference(form, form.origin, args, dict(kwargs)) as reference:
            first = _comparable(reference(args, kwargs, draws))
            second = _comparable(reference(args, kwargs, draws.again()))
        error = max(map(relative_error, first, second), default=0.0)
        if not error <= checked.tolerance:
            return f"  Two runs of the model at one input differ by {error:.2e}: it keeps something between runs."
    if checked.outputs <= checked.tolerance < checked.other_batch:
        return (
            "  At the given sizes the form is exact; at others the model's own code takes another way.\n"
            "  Trace it with tracer='dispatch' at the sizes you need: that form holds for them alone."
        )
    other = "export" if form.tracer == "dispatch" else "dispatch"
    return f"  The form is at fault: the model repeats itself. Trace it again, or try tracer={other!r}."


def _elsewhere(
    form: "ResidualForm", reference: Run, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[float, str]:
    """Form against model at another input of other sizes; or nan, and why there was none.

    Which sizes vary together is what the exporter found: all dimensions of one symbol grow by one. Whether they may
    vary at all the model itself tells, by running or not. A recorded run may hide a choice that the tracer did not see,
    so it is compared at an input of its own sizes; where it is known that the model's code would go another way there,
    that proves nothing.
    """
    why = "every size is built into the graph"
    sizes: list[Grown | None] = [*_growing(form, args, kwargs)]
    sizes = sizes or ([None] if form.tracer == "dispatch" else [])
    broken = None
    for grown, gently in product(sizes, (False, True)):
        other = _another(args, kwargs, more=0 if grown is None else 1, grown=grown, gently=gently)
        try:
            here, there = _both(form, partial(_asked, reference), *other)
        except _RefusedError as refusal:
            why = str(refusal)
        except InexactError as error:  # a recorded run would go another way, or the form itself fails
            why, broken = str(error), error if error.__cause__ is not None else broken
        else:
            if any(bool(tensor.isfinite().any()) for tensor in there) or not any(t.numel() for t in there):
                return _apart(here, there), ""
            why = "the model gives nothing finite at other values"
    if broken is not None:
        raise broken
    return math.nan, why


class _RefusedError(Exception):
    """The model itself fails at an input that nobody gave."""


def _asked(reference: Run, args: tuple[Any, ...], kwargs: Mapping[str, Any], draws: Draws) -> Any:
    """The model at an input that it may refuse."""
    try:
        return reference(args, kwargs, draws)
    except Exception as error:
        raise _RefusedError(f"the model itself refuses another input: {type(error).__name__}: {error}") from error


Grown: TypeAlias = tuple[frozenset[int], ...]  # for each leaf of the arguments the dimensions that grow


def _growing(form: "ResidualForm", args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Grown]:
    """Which dimensions may grow together: those of the sizes with which inputs begin, of all and then of each."""
    leaves = _sizes(form, args, kwargs)
    free = {size for sizes in leaves for size in sizes if isinstance(size, str)}
    if not all(size.isidentifier() for size in free):  # one is computed from others
        return
    begins = [*dict.fromkeys(sizes[0] for sizes in leaves if sizes and sizes[0] in free)]
    for growing in [begins, *([size] for size in begins if len(begins) > 1)]:
        if growing:
            yield tuple(frozenset(d for d, size in enumerate(sizes) if size in growing) for sizes in leaves)


def _sizes(form: "ResidualForm", args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[tuple[int | str, ...]]:
    """The sizes of each leaf of a call's arguments as they were traced; none for what is no tensor."""
    named = [*zip(form.signature.forward, args, strict=False), *kwargs.items()]
    traced = [leaf for name, _ in named for leaf in leaves_of(form.signature.inputs.get(name))]
    return [leaf.sizes if isinstance(leaf, Expected) else () for leaf in traced]


def _another(
    args: tuple[Any, ...], kwargs: dict[str, Any], *, more: int, grown: Grown | None = None, gently: bool = False
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Other examples of an input.

    Floats are drawn afresh; gently they are the given ones times numbers near one, so that signs and zeros stay. Ids
    and masks are turned around, and their first row repeated; gently they stay, and the last is repeated.

    Args:
        args: the positional arguments.
        kwargs: the keyword arguments.
        more: by how many rows dimensions grow.
        grown: which do, by leaf; the first of each where nothing is said.
        gently: whether to stay near the given values.
    """
    generator = torch.Generator().manual_seed(0)
    leaves, structure = flatten((args, kwargs))
    chosen = grown if grown is not None and len(grown) == len(leaves) else tuple(frozenset({0}) for _ in leaves)

    def other(tensor: Tensor, growing: frozenset[int]) -> Tensor:
        for dimension in {0, *growing} if tensor.ndim else ():
            rows = torch.arange(tensor.shape[dimension], device="cpu")
            rows = rows.flip(0) if dimension == 0 and not gently else rows
            last = rows[-1:] if gently else torch.zeros_like(rows[:1])
            rows = torch.cat([rows, *([last] * more if dimension in growing else [])])
            tensor = tensor.index_select(dimension, rows.to(tensor.device))
        if not tensor.ndim or not (tensor.is_floating_point() or tensor.is_complex()):
            return tensor
        drawn = torch.randn(tensor.shape, generator=generator, dtype=torch.float64, device="cpu")
        return tensor * torch.exp(drawn / 4).to(tensor) if gently else drawn.to(tensor)

    pairs = zip(leaves, chosen, strict=True)
    made = [other(leaf, growing) if isinstance(leaf, Tensor) else leaf for leaf, growing in pairs]
    remade: tuple[tuple[Any, ...], dict[str, Any]] = structure.filled(iter(made))
    return remade


def _size(tensor: Tensor) -> float:
    return tensor.abs().max().item() if tensor.numel() else 0.0
