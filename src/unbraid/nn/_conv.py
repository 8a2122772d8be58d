"""Convolutional residual networks, for images and sequences (He et al. 2015, section 4.2)."""

import torch

from unbraid.nn._network import ResidualNetwork
from unbraid.nn._order import Order
from unbraid.nn._stages import Stages

__all__ = ["conv1d", "conv2d"]


def conv2d(
    *,
    inputs: int = 3,
    classes: int = 10,
    layers: int = 20,
    width: int = 16,
    stages: int = 3,
    order: Order | str = Order.ORIGINAL,
    bottleneck: int = 1,
    activation: str = "relu",
    norm: str | None = "batch",
    shortcut: str = "pad",
    scale: float | str = 1.0,
    stochastic_depth: float = 0.0,
    bias: bool | None = None,
    init: str = "he",
    generator: torch.Generator | None = None,
) -> ResidualNetwork:
    """Make a residual network for images: the CIFAR networks of He et al. (2015), of 6n + 2 layers.

    A 3x3 convolution, `stages` stages of n blocks, the mean over positions, and a linear layer. Each stage
    after the first halves the height and width and doubles the channels, in the first convolution of its
    first block. Norm and activation follow the stem as far as the first block does not begin with them; where
    the order begins with a norm (full pre-activation), norm and activation precede the head. With the
    defaults, 20, 32, 44, 56 and 110 layers have 0.27, 0.46, 0.66, 0.85 and 1.7 million parameters.

    Args:
        inputs: channels of an image.
        classes: outputs.
        layers: those with weights from input to output: stem, head and n blocks per stage. With c convolutions
            in the order, stages·c·n + 2.
        width: channels of the first stage.
        stages: number of stages.
        order: of the operations in a block, from the tokens conv, norm, act and +.
        bottleneck: with 4 and three convolutions in the order, the bottleneck blocks of He et al. (2016): 1x1 to
            `width` channels, 3x3, and 1x1 to 4·width, the channels of the stage. The stem keeps to `width`. With
            `Order("norm act conv +").repeat(3)`, 9n + 2 layers; 164 and 1001 have 1.7 and 10.3 million parameters.
        activation: "relu", "leaky_relu", "elu", "gelu", "silu" or "tanh".
        norm: what the token norm stands for: "batch", "layer" and "rms" (over channels and positions),
            "group" (at most 8 groups of at least 4 channels), or None, which leaves it out.
        shortcut: where the size changes: "pad", every second position and zeros for the new channels (option
            A), or "projection", a 1x1 convolution (option B). Elsewhere the skip is the identity. Or, in every
            block, what He et al. (2016, section 3) found harmful: "projection_everywhere" (option C), "half" (the
            skip times 0.5; take scale=0.5 with it), "exclusive_gate", "shortcut_gate" (gates of 1x1 convolutions
            whose bias starts at −6), and "dropout" (at 0.5); these four pad.
        scale: of every branch: a constant; "1/sqrt(2)"; "1/sqrt(K)"; "learned", one scalar per block that
            starts at 0 (SkipInit, ReZero); "zero", the branch's last layer or norm starts at 0; "layerscale", a
            factor for each channel that starts at 0.1 or less (`LayerScale`). Two do without norms, and need
            norm=None: "fixup" (Zhang et al. 2019: scalar biases and multipliers, see `fixup_`) and "nf"
            (Brock et al. 2021: h + 0.2 f(h/β), β predicted, weights standardised, activations scaled).
        stochastic_depth: p_K, the probability of dropping the last branch; block k of K has p_k = (k/K) p_K.
        bias: whether layers have biases. By default those of stem and blocks have none where the order has a norm
            with a shift of its own; the head's always has one, except with False.
        init: "he", "he_normal", "glorot" or "glorot_normal" (the short names are uniform), "orthogonal", or
            "looks_linear", with which the network begins as a linear map of its input as far as no norm bends it.
            Biases start at 0.
        generator: where the first weights come from. With one, torch's own generator is neither read nor
            changed.
    Shape: the network maps [batch, inputs, height, width] to [batch, classes], at any height and width.

    Returns:
        The network, in training mode, on torch's default device and in its default type; `config` remakes it
        with `build`.

    Raises:
        ValueError: an option that does not exist, a token that is not for images, a size below 1, or a number
            of layers that does not fit, with the nearest that do.

    Examples:
        >>> network = conv2d(inputs=1, layers=8, generator=torch.Generator().manual_seed(0))
        >>> network(torch.randn(3, 1, 8, 8)).shape
        torch.Size([3, 10])
    """
    design = Stages(
        constructor="conv2d",
        inputs=inputs,
        classes=classes,
        layers=layers,
        width=width,
        stages=stages,
        order=Order(str(order)),
        bottleneck=bottleneck,
        activation=activation,
        norm=norm,
        shortcut=shortcut,
        scale=scale,
        stochastic_depth=stochastic_depth,
        bias=bias,
        init=init,
    )
    return design.network(dims=2, generator=generator)


def conv1d(
    *,
    inputs: int = 1,
    classes: int = 10,
    layers: int = 20,
    width: int = 16,
    stages: int = 3,
    order: Order | str = Order.ORIGINAL,
    bottleneck: int = 1,
    activation: str = "relu",
    norm: str | None = "batch",
    shortcut: str = "pad",
    scale: float | str = 1.0,
    stochastic_depth: float = 0.0,
    bias: bool | None = None,
    init: str = "he",
    generator: torch.Generator | None = None,
) -> ResidualNetwork:
    """Make a residual network for sequences: `conv2d` with kernels of 3 positions along one axis.

    Args:
        inputs: channels of a sequence.
        classes: outputs.
        layers: as for `conv2d`: stages·c·n + 2, with c convolutions in the order and n blocks per stage.
        width: channels of the first stage.
        stages: number of stages.
        order: as for `conv2d`.
        bottleneck: as for `conv2d`.
        activation: as for `conv2d`.
        norm: as for `conv2d`.
        shortcut: as for `conv2d`.
        scale: as for `conv2d`.
        stochastic_depth: as for `conv2d`.
        bias: as for `conv2d`.
        init: as for `conv2d`.
        generator: as for `conv2d`.
    Shape: the network maps [batch, inputs, length] to [batch, classes], at any length.

    Returns:
        The network, as from `conv2d`.

    Raises:
        ValueError: as for `conv2d`.

    Examples:
        >>> network = conv1d(layers=8, order="norm act conv norm act conv +")
        >>> network(torch.randn(3, 1, 40)).shape
        torch.Size([3, 10])
    """
    design = Stages(
        constructor="conv1d",
        inputs=inputs,
        classes=classes,
        layers=layers,
        width=width,
        stages=stages,
        order=Order(str(order)),
        bottleneck=bottleneck,
        activation=activation,
        norm=norm,
        shortcut=shortcut,
        scale=scale,
        stochastic_depth=stochastic_depth,
        bias=bias,
        init=init,
    )
    return design.network(dims=1, generator=generator)
