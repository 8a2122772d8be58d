"""The gradient of every example by itself."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree

from unbraid.discover import by_chance
from unbraid.errors import InexactError
from unbraid.form import ResidualForm, explained
from unbraid.results import loss_target
from unbraid.sweep import Batch
from unbraid.walk import run

Loss = Callable[[Any, Any], Tensor]
EPS = 1e-30


def parameters_by_block(form: ResidualForm) -> dict[int, tuple[str, ...]]:
    """The learned parameters of each top-level block's branches and skip, nested blocks included."""
    top = {block.index for block in form.blocks}
    parents = {block.index: block.parent[0] for block in form.all_blocks if block.parent is not None}
    by_block: dict[int, dict[str, None]] = {}
    for segment in form.segments:
        block = segment.block
        while block is not None and block not in top:
            block = parents[block]
        if block is not None:
            by_block.setdefault(block, {}).update(dict.fromkeys(n for n in segment.params if n in form.learned))
    return {block: tuple(names) for block, names in sorted(by_block.items()) if names}


def gradients_of(form: ResidualForm, batch: Batch, parameters: Mapping[str, Tensor], loss: Loss) -> dict[str, Tensor]:
    """The gradient of each example's loss by the parameters, [examples, *parameter] each.

    Raises:
        InexactError: an operator cannot be differentiated for one example at a time, or draws random numbers.
    """
    inputs = form.inputs(batch.args, batch.kwargs)
    # An input that does not begin with the size of the first one has no batch: positions, a matrix of edges.
    begins = {n: form.streams[n].shape[0] for n, value in inputs.items() if isinstance(value, Tensor) and value.ndim}
    moving = {name for name, size in begins.items() if size == next(iter(begins.values()))}
    state = {name: tensor.detach() for name, tensor in form.state.items()}

    def of_one(values: dict[str, Tensor], example: dict[str, Tensor], label: Any) -> Tensor:
        fed = {**inputs, **{name: value[None] for name, value in example.items()}}
        outputs = run(form.graph, {**state, **values}, fed)
        target = loss_target(loss, pytree.tree_map(lambda leaf: leaf[None], label))
        return explained(form, outputs, target).sum()

    examples = {name: inputs[name] for name in moving}
    # The fused kernels of attention have no rule for vmap: it would run them example by example, and warn each time.
    try:
        with sdpa_kernel(SDPBackend.MATH):
            each = vmap(grad(of_one), in_dims=(None, 0, 0))
            gradients: dict[str, Tensor] = each(dict(parameters), examples, batch.labels)
    except RuntimeError as error:
        recorded = f"\n  The form is one recorded run, because {why}" if (why := form.signature.recorded) else ""
        raise InexactError(
            f"gradients of single examples cannot be taken: {str(error).splitlines()[0]}"
            f"{by_chance(form.graph)}{recorded}",
            where="the gradient",
        ) from error
    return gradients


def rows_of(batch: Batch, rows: list[int]) -> Batch:
    args, kwargs, labels = pytree.tree_map(
        lambda leaf: leaf[rows] if isinstance(leaf, Tensor) and leaf.ndim and len(leaf) == batch.size else leaf,
        (batch.args, dict(batch.kwargs), batch.labels),
    )
    return Batch(args, kwargs, labels, len(rows), batch.number)


def norms_of(gradients: Mapping[str, Tensor]) -> Float[Tensor, " examples"]:
    return sum(
        (g.abs().double().flatten(1).square().sum(1) for g in gradients.values()), start=torch.zeros((), device="cpu")
    ).sqrt()


def cosines_of(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> Float[Tensor, " examples"]:
    products = ((a[name] * b[name].conj()).real.double().flatten(1).sum(1) for name in a)
    return sum(products, start=torch.zeros((), device="cpu")) / (norms_of(a) * norms_of(b)).clamp_min(EPS)
