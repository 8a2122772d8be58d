"""The rules by which operators become affine at a given input: a function for each name that the table's rows give."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from torch import fx

from unbraid.freeze._freezer import Freezer
from unbraid.freeze._linear_in_one import cosine, glu, linear_in, mean_beside, scattered
from unbraid.freeze._maxima import both_ends, copied, maximum, maximum_along, picked, pooled, pooled_at_random, result
from unbraid.freeze._norms import (
    batch_norm,
    group_norm,
    instance_norm,
    layer_norm,
    legit_batch_norm,
    native_group_norm,
    rms_norm,
)
from unbraid.freeze._products_of_data import attention, division, dropout, lerp, log_softmax, product
from unbraid.graph.operators import Frozen
from unbraid.graph.questions import jointly_affine

Rule: TypeAlias = Callable[[Freezer, fx.Node], Any]


def linear(freezer: Freezer, node: fx.Node) -> Any:
    """The operator itself, in all operands that carry data, taken together."""
    data = freezer.data(node)
    if data and not jointly_affine(node, data):
        raise freezer.refusal(node, " in these operands, with these options")
    return freezer.call(node.target, *node.args, **node.kwargs)


def held(freezer: Freezer, node: fx.Node) -> Any:
    """The result's value."""
    return freezer.hold(freezer.value(node))


RULES: Mapping[Frozen, Rule] = {
    Frozen.LINEAR: linear,
    Frozen.CONJUGATE: linear,
    Frozen.DETACH: linear,
    Frozen.HELD: held,
    Frozen.PRODUCT: product,
    Frozen.DIVISION: division,
    Frozen.LERP: lerp,
    Frozen.QUOTIENT_ADDED: linear_in(0, 1),
    Frozen.FIRST_ALONE: linear_in(0),
    Frozen.SECOND_ALONE: linear_in(1),
    Frozen.DROPOUT: dropout,
    Frozen.LAYER_NORM: layer_norm,
    Frozen.RMS_NORM: rms_norm,
    Frozen.GROUP_NORM: group_norm,
    Frozen.NATIVE_GROUP_NORM: native_group_norm,
    Frozen.INSTANCE_NORM: instance_norm,
    Frozen.BATCH_NORM: batch_norm,
    Frozen.LEGIT_BATCH_NORM: legit_batch_norm,
    Frozen.ATTENTION: attention,
    Frozen.LOG_SOFTMAX: log_softmax,
    Frozen.COSINE: cosine,
    Frozen.GLU: glu,
    Frozen.LARGER: maximum,
    Frozen.LARGEST_ALONG: maximum_along,
    Frozen.SORTED: picked,
    Frozen.POOLED: pooled,
    Frozen.POOLED_AT_RANDOM: pooled_at_random,
    Frozen.SCATTERED: scattered,
    Frozen.MEAN_BESIDE: mean_beside,
    Frozen.BOTH_ENDS: both_ends,
    Frozen.COPIED: copied,
    Frozen.RESULT: result,
}
