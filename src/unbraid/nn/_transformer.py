"""Transformers: residual blocks of self-attention and of linear layers, in turn (Vaswani et al. 2017)."""

from collections.abc import Sequence

import torch

from unbraid.nn._checks import checked
from unbraid.nn._choice import choose, positive
from unbraid.nn._families import Attentive
from unbraid.nn._finish import finished
from unbraid.nn._network import ResidualNetwork
from unbraid.nn._order import Order
from unbraid.nn._recipe import Recipe

__all__ = ["transformer"]


def transformer(
    *,
    inputs: int = 1,
    vocabulary: int | None = None,
    positions: int = 40,
    classes: int = 10,
    width: int = 64,
    depth: int = 4,
    orders: Sequence[Order | str] = Order.PRE_NORM,
    heads: int = 4,
    expansion: int = 4,
    causal: bool = False,
    readout: str = "mean",
    activation: str = "gelu",
    norm: str | None = "layer",
    scale: float | str = 1.0,
    stochastic_depth: float = 0.0,
    bias: bool = True,
    init: str = "glorot",
    generator: torch.Generator | None = None,
) -> ResidualNetwork:
    """Make a transformer: an embedding, `depth` layers of one block for each order, and a linear head.

    `Order.PRE_NORM` has GPT-2's and ViT's blocks, "norm attention +" and "norm linear act linear +", and the head
    begins with a norm. `Order.POST_NORM` has those of Vaswani et al. (2017) and BERT, "attention + norm" and
    "linear act linear + norm", and a norm follows the embedding. With w features and both, a layer has 12 w² + 13 w
    parameters.

    Args:
        inputs: features of a position, where there is no vocabulary.
        vocabulary: the number of tokens, where the inputs are tokens, counted from 0; by default, features.
        positions: the longest sequence.
        classes: outputs.
        width: features of h.
        depth: layers, each one block for each order.
        orders: of the operations in the blocks of a layer, from the tokens attention, linear, mlp (linear act
            linear), norm, act and +.
        heads: of an attention; they divide the width.
        expansion: inner features of a branch of several linear layers, in widths.
        causal: whether a position sees those up to itself alone.
        readout: "mean", scores [batch, classes] of the mean over positions; or "each", scores [batch, positions,
            classes], such as those of the next token of a causal transformer with classes=vocabulary.
        activation: as for `mlp`.
        norm: what the token norm stands for: "layer", "rms", or None, which leaves it out.
        scale: of every branch, as for `mlp`; K counts blocks, `depth` times the orders. Not "fixup" or "nf".
        stochastic_depth: p_K, the probability of dropping the last branch; block k of K has p_k = (k/K) p_K.
        bias: whether the linear layers have biases.
        init: as for `mlp`, but not "looks_linear". Tables start at N(0, 1) for tokens, N(0, 0.02²) for positions.
        generator: where the first weights come from. With one, torch's own generator is neither read nor
            changed.
    Shape: the network maps [batch, positions, inputs] or, with a vocabulary, whole numbers [batch, positions] to
        scores, for up to `positions` positions.

    Returns:
        The network, in training mode, on torch's default device and in its default type; `config` remakes it
        with `build`.

    Raises:
        ValueError: an option that does not exist, no order, heads that do not divide the width, or a size below 1.

    Examples:
        >>> network = transformer(inputs=8, positions=8, depth=2, generator=torch.Generator().manual_seed(0))
        >>> network(torch.randn(3, 8, 8)).shape
        torch.Size([3, 10])
        >>> language = transformer(vocabulary=100, classes=100, causal=True, readout="each")
        >>> language(torch.zeros(3, 12, dtype=torch.long)).shape
        torch.Size([3, 12, 100])
    """
    positive(inputs=inputs, positions=positions, classes=classes, width=width, depth=depth)
    positive(vocabulary=1 if vocabulary is None else vocabulary, heads=heads, expansion=expansion)
    choose("readout", readout, {"mean": None, "each": None})
    if isinstance(orders, str) or not orders:
        raise ValueError(f"transformer: orders is a list, one order for each block of a layer; got {orders!r}")
    patterns = [str(Order(str(order))) for order in orders]
    family = Attentive(heads, causal, expansion, vocabulary, positions, readout)
    recipes = [
        checked(
            Recipe(
                constructor="transformer",
                family=family,
                blocks=depth * len(patterns),
                order=Order(pattern.replace("mlp", "linear act linear")),
                activation=activation,
                norm=norm,
                shortcut="identity",
                scale=scale,
                stochastic_depth=stochastic_depth,
                bias=bias,
                init=init,
            )
        )
        for pattern in patterns
    ]
    site = recipes[0].site(width, width)
    with torch.device("meta"):
        network = ResidualNetwork(
            recipes[0].stem(inputs, width),
            [recipe.block(number, site) for number, recipe in enumerate(recipes * depth, 1)],
            recipes[-1].head(width, classes),
            config={
                "constructor": "transformer",
                "inputs": inputs,
                "vocabulary": vocabulary,
                "positions": positions,
                "classes": classes,
                "width": width,
                "depth": depth,
                "orders": patterns,
                "heads": heads,
                "expansion": expansion,
                "causal": causal,
                "readout": readout,
                "activation": activation,
                "norm": norm,
                "scale": scale,
                "stochastic_depth": stochastic_depth,
                "bias": bias,
                "init": init,
            },
        )
    return finished(network, recipes[0], generator=generator)
