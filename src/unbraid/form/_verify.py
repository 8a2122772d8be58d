import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.fx.node import map_arg
from torch.utils import _pytree as pytree

from unbraid.errors import InexactError
from unbraid.form._alone import alone
from unbraid.form._exactness import relative_error, tolerance
from unbraid.form._signature import Expected, as_call
from unbraid.walk import joined, run

if TYPE_CHECKING:
    from unbraid.form._form import ResidualForm


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


@dataclass(frozen=True)
class Verification:
    """How closely a form follows its model.

    Attributes:
        error: the largest of all the errors below, relative in the largest norm.
        outputs: ‖form(x) − model(x)‖∞ / ‖model(x)‖∞ at the given input.
        other_batch: the same at an input of another batch size; nan where the graph has the batch size built in.
            For one recorded run: at another input of its sizes; nan where the model's code goes another way there.
        additions: for each block ‖skip + Σ branches − sum‖∞ / ‖sum‖∞ in the captured graph.
        ratios: for each block ‖branches‖∞ / ‖skip‖∞, the smallest of its branches.
        tolerance: the largest error that is rounding alone.
    """

    error: float
    outputs: float
    other_batch: float
    additions: tuple[float, ...]
    ratios: tuple[float, ...]
    tolerance: float

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
    with alone():
        outputs = _distance(form, form.origin, positional, keywords)
        additions, ratios = _additions(form, form.origin, form.inputs(positional, keywords))
        other = _elsewhere(form, form.origin, positional, keywords)
    errors = [outputs, *additions, *([] if math.isnan(other) else [other])]
    checked = Verification(max(errors), outputs, other, additions, ratios, bound)
    if not checked.error <= bound:
        raise _inexact(form, checked, _departure(form, form.origin, form.inputs(positional, keywords), bound))
    return checked


def _distance(form: "ResidualForm", origin: Origin, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float:
    """Form against model from one random state."""
    return _apart(*_both(form, origin, args, kwargs))


def _both(
    form: "ResidualForm", origin: Origin, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[list[Tensor], list[Tensor]]:
    """The outputs of the form and of the model from one random state."""
    devices = [*{tensor.device for tensor in _tensors((args, kwargs)) if tensor.is_cuda}]
    with torch.no_grad(), torch.random.fork_rng(devices):
        state = torch.get_rng_state()
        there = _reference(form, origin, args, kwargs)
        torch.set_rng_state(state)
        here = form(*args, **kwargs)
    return _tensors(here), _tensors(there)


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


def _reference(form: "ResidualForm", origin: Origin, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The model itself, with copies of its buffers so that nothing of it changes; else its graph before the cut."""
    if origin.model is not None:
        buffers = {name: buffer.clone() for name, buffer in origin.model.named_buffers(remove_duplicate=False)}
        return torch.func.functional_call(origin.model, buffers, args, kwargs, tie_weights=False)
    wanted = set(form.signature.streams())
    return form.signature.result(_uncut(form, origin, form.inputs(args, kwargs), wanted))


def _uncut(form: "ResidualForm", origin: Origin, inputs: Mapping[str, Any], wanted: set[str]) -> dict[str, Tensor]:
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
    with torch.no_grad(), torch.random.fork_rng():
        Watch(fx.GraphModule(nn.Module(), origin.graph)).run(*feed)
    return values


def _additions(
    form: "ResidualForm", origin: Origin, inputs: Mapping[str, Any]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Look at every addition where the model makes it."""
    named = {name for skip, branches, total in origin.operands for name in (skip, *branches, total)}
    values = _uncut(form, origin, inputs, {name for name in named if name is not None})
    errors, ratios = [], []
    for skip, branches, total in origin.operands:
        summed = reduce(torch.add, [values[name] for name in (skip, *branches) if name is not None])
        errors.append(relative_error(summed, values[total]))
        size = _size(values[skip]) if skip else 1.0
        ratios.append(min(_size(values[name]) for name in branches) / size if size else 1.0)
    return tuple(errors), tuple(ratios)


def _departure(form: "ResidualForm", origin: Origin, inputs: Mapping[str, Any], bound: float) -> int | None:
    """The first block whose sum is not the model's, or not that of its operands; None where all of them are."""
    totals = [total for _, _, total in origin.operands]
    known = {} if origin.model is None else dict(origin.model.state_dict(keep_vars=True))
    there = _uncut(replace(form, state=joined(form.state, known)), origin, inputs, set(totals))
    kept = tuple(total for total in totals if any(add.output == total for add in form.adds))
    with torch.no_grad(), torch.random.fork_rng():
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
        "  If the model's output depends on its batch size or on chance, trace it in eval mode at the size you need.",
        where=where,
        error=checked.error,
    )


def _free_batch(form: "ResidualForm") -> bool:
    leaves = [leaf for leaf in pytree.tree_leaves(dict(form.signature.inputs)) if isinstance(leaf, Expected)]
    return bool(leaves) and all(leaf.sizes and isinstance(leaf.sizes[0], str) for leaf in leaves)


def _elsewhere(form: "ResidualForm", origin: Origin, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float:
    """Form against model at another input; nan where the sizes are fixed and the graph is not a single run's.

    A recorded run may hide a choice that the tracer did not see, so it is compared at an input of its own sizes; where
    it is known that the model's code would go another way there, that proves nothing.
    """
    if _free_batch(form):
        return _distance(form, origin, *_another(args, kwargs, more=1))
    if form.tracer != "dispatch":
        return math.nan
    try:
        outputs = _both(form, origin, *_another(args, kwargs, more=0))
    except InexactError:  # a decision falls otherwise
        return math.nan
    return _apart(*outputs)


def _another(args: tuple[Any, ...], kwargs: dict[str, Any], *, more: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Other examples: floats drawn afresh, ids and masks by turning the given rows around and repeating the first."""
    generator = torch.Generator().manual_seed(0)

    def other(tensor: Tensor) -> Tensor:
        if not tensor.ndim:
            return tensor
        rows = [*reversed(range(len(tensor))), *([0] * more)]
        if not (tensor.is_floating_point() or tensor.is_complex()):
            return tensor[rows]
        drawn = torch.randn((len(rows), *tensor.shape[1:]), generator=generator, dtype=torch.float64)
        return drawn.to(tensor)

    made: tuple[tuple[Any, ...], dict[str, Any]] = pytree.tree_map_only(Tensor, other, (args, kwargs))
    return made


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]


def _size(tensor: Tensor) -> float:
    return tensor.abs().max().item() if tensor.numel() else 0.0
