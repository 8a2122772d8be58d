"""Networks for images keep channels last in memory, from the first convolution on; the numbers are the same."""

import pytest
import torch
from torch import nn

from unbraid.nn import conv2d

ORDERS = ("conv norm act conv norm + act", "norm act conv norm act conv +", "conv act conv + norm act")
WAYS = [
    *({"order": order, "norm": norm} for order in ORDERS for norm in ("batch", "layer", "rms", "group", None)),
    *({"shortcut": shortcut} for shortcut in ("projection", "projection_everywhere", "half", "exclusive_gate")),
    {"inputs": 1},  # images of one channel, which lie the same in either order
    {"norm": None, "scale": "fixup"},
    {"norm": None, "scale": "nf", "order": "act conv act conv +", "shortcut": "projection"},
]


def made(**options):
    torch.manual_seed(0)
    options = {"inputs": 2, "layers": 14, "width": 4} | options
    return conv2d(**options).double().eval(), torch.randn(3, options["inputs"], 8, 8).double()


@pytest.mark.parametrize("options", WAYS, ids=str)
def test_every_block_hands_on_channels_last(options):
    network, x = made(**options)
    seen = []
    for block in network.blocks:
        block.register_forward_hook(lambda module, inputs, output: seen.append(output))
    network(x)
    assert len(seen) == 6
    assert [h.is_contiguous(memory_format=torch.channels_last) for h in seen] == [True] * 6
    assert not any(h.is_contiguous() for h in seen)


@pytest.mark.parametrize("options", WAYS, ids=str)
def test_the_order_in_memory_changes_no_number(options):
    """Against the same network whose first layer is torch's own convolution, gradients included."""
    network, x = made(**options)
    twin = made(**options)[0]
    first = next(module for module in twin.modules() if isinstance(module, nn.Conv2d))
    first.forward = lambda h: nn.Conv2d.forward(first, h)
    found, wanted = network(x), twin(x)
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-13)
    for ours, theirs in zip(
        torch.autograd.grad(found.square().sum(), [*network.parameters()]),
        torch.autograd.grad(wanted.square().sum(), [*twin.parameters()]),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11 * theirs.abs().max().item())


def test_weights_keep_torchs_order_and_names():
    """So that optimisers, files and networks trained side by side see what they always saw."""
    network, _ = made()
    assert all(weight.is_contiguous() for weight in network.parameters())
    assert [name for name, _ in network.stem.named_parameters()] == ["0.weight", "1.weight", "1.bias"]
