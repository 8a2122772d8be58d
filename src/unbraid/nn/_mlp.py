"""Fully connected residual networks."""

import torch

from unbraid.nn._checks import checked
from unbraid.nn._choice import positive
from unbraid.nn._families import Dense
from unbraid.nn._finish import finished
from unbraid.nn._network import ResidualNetwork
from unbraid.nn._order import Order
from unbraid.nn._recipe import Recipe

__all__ = ["mlp"]


def mlp(
    *,
    inputs: int = 40,
    classes: int = 10,
    width: int = 100,
    depth: int = 10,
    order: Order | str = Order.ACT_LINEAR,
    activation: str = "relu",
    norm: str | None = "batch",
    shortcut: str = "identity",
    scale: float | str = 1.0,
    stochastic_depth: float = 0.0,
    bias: bool | None = None,
    init: str = "he",
    generator: torch.Generator | None = None,
) -> ResidualNetwork:
    """Make a fully connected residual network (Equation 11.4): linear stem, `depth` blocks, linear head.

    What the first block does not do before its first linear layer follows the stem: nothing for the default
    order, an activation for `"linear act +"`. A norm and an activation precede the head where the order
    begins with them.

    Args:
        inputs: features of an example.
        classes: outputs.
        width: features of h.
        depth: K, the number of blocks. How many layers a branch has is a matter of the order, such as
            `Order("act linear +").repeat(3)`.
        order: of the operations in a block, from the tokens linear, norm, act and +.
        activation: "relu", "leaky_relu", "elu", "gelu", "silu" or "tanh".
        norm: what the token norm stands for: "batch", "layer", "rms", "group", or None, which leaves it out.
        shortcut: "identity", or one that He et al. (2016) found harmful, as for `conv2d`.
        scale: of every branch: a constant; "1/sqrt(2)"; "1/sqrt(K)"; "learned", one scalar per block that
            starts at 0 (SkipInit, ReZero); "zero", the branch's last layer starts at 0; "layerscale", "fixup" or
            "nf", as for `conv2d`.
        stochastic_depth: p_K, the probability of dropping the last branch; block k of K has p_k = (k/K) p_K.
        bias: whether layers have biases. By default those of stem and blocks have none where the order has a norm
            with a shift of its own; the head's always has one, except with False.
        init: "he", "he_normal", "glorot" or "glorot_normal" (the short names are uniform), "orthogonal", or
            "looks_linear", with which the network begins as a linear map of its input as far as no norm bends it.
            Biases start at 0.
        generator: where the first weights come from. With one, torch's own generator is neither read nor
            changed.
    Shape: the network maps [batch, inputs] to [batch, classes].

    Returns:
        The network, in training mode, on torch's default device and in its default type; `config` remakes it
        with `build`.

    Raises:
        ValueError: an option that does not exist, a token that is not for features, or a size below 1.

    Examples:
        >>> network = mlp(depth=20, scale="1/sqrt(K)", generator=torch.Generator().manual_seed(0))
        >>> network(torch.randn(3, 40)).shape
        torch.Size([3, 10])
    """
    positive(inputs=inputs, classes=classes, width=width, depth=depth)
    recipe = checked(
        Recipe(
            constructor="mlp",
            family=Dense(),
            blocks=depth,
            order=Order(str(order)),
            activation=activation,
            norm=norm,
            shortcut=shortcut,
            scale=scale,
            stochastic_depth=stochastic_depth,
            bias=bias,
            init=init,
        )
    )
    with torch.device("meta"):
        network = ResidualNetwork(
            recipe.stem(inputs, width),
            recipe.chain([recipe.site(width, width)] * depth),
            recipe.head(width, classes),
            config={
                "constructor": "mlp",
                "inputs": inputs,
                "classes": classes,
                "width": width,
                "depth": depth,
                "order": str(recipe.order),
                "activation": activation,
                "norm": norm,
                "shortcut": shortcut,
                "scale": scale,
                "stochastic_depth": stochastic_depth,
                "bias": bias,
                "init": init,
            },
        )
    return finished(network, recipe, generator=generator)
