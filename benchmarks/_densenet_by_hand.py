"""The gradient of a DenseNet by path length, by the best loop that knows timm's: what the library's is held against.

Cotangents are kept for all features of a dense block side by side, lengths first: [lengths, batch, channels, ...].
Layer k's new channels lie behind the C_k that it reads, so its branch pulls back one slice and adds into another, in
place and one length further; nothing is concatenated and nothing copied. The products are the library's: one per length
and layer.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

Tape = list[tuple[Tensor, Tensor]]  # of each segment its leaf and what it gives


def densenet_by_hand(model: Any, x: Tensor) -> Tensor:
    """The coefficients of ∂ score of class 1 / ∂ image, one per length: [K + 1, *x.shape]."""
    leaf = x.detach().requires_grad_()
    parts = dict(model.features.named_children())
    stem = parts["pool0"](parts["norm0"](parts["conv0"](leaf)))
    h, ways_back = stem.detach(), list[Callable[[Tensor], Tensor]]()
    for name, part in parts.items():
        if name.startswith("denseblock"):
            h, tape = _dense(part, h)
            ways_back.append(partial(_through_layers, tape))
        elif name.startswith("transition"):
            into = h.requires_grad_()
            made = part(into)
            ways_back.append(partial(_pulled, into, made))
            h = made.detach()
    last = h.requires_grad_()
    score = model.forward_head(parts["norm5"](last))[:, 1].sum()
    stack = torch.autograd.grad(score, last)[0][None]
    for back in reversed(ways_back):
        stack = back(stack)
    return _pulled(leaf, stem, stack)


def _dense(block: Any, h: Tensor) -> tuple[Tensor, Tape]:
    tape: Tape = []
    for layer in block.values():
        into = h.requires_grad_()
        made = layer(into)
        tape.append((into, made))
        h = torch.cat([into.detach(), made.detach()], 1)
    return h, tape


def _through_layers(tape: Tape, stack: Tensor) -> Tensor:
    """G_m ← G_m's part of what the layer reads + Jᵀ G_{m−1}'s part of what it gives."""
    lengths = len(stack)
    wide = torch.cat([stack, stack.new_zeros(len(tape), *stack.shape[1:])])
    for into, made in reversed(tape):
        read, new = into.shape[1], made.shape[1]
        for m in reversed(range(lengths)):
            wide[m + 1, :, :read] += _pull(into, made, wide[m, :, read : read + new])
        lengths += 1
    return wide[:, :, : tape[0][0].shape[1]]


def _pulled(leaf: Tensor, made: Tensor, stack: Tensor) -> Tensor:
    return torch.stack([_pull(leaf, made, g) for g in stack])


def _pull(leaf: Tensor, made: Tensor, cotangent: Tensor) -> Tensor:
    return torch.autograd.grad(made, leaf, cotangent, retain_graph=True)[0]
