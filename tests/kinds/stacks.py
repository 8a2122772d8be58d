"""Attention residuals: a stack of the outputs of all layers, read by weights over depth.

V ← [V, f(α V)]        the skip is a concatenation: the stack grows by one; α belongs to the branch, or to the head
"""

import torch
from torch import cat, nn
from torch.nn import functional as F  # noqa: N812

from kinds.known import WIDTH, Known
from kinds.told import Told
from kinds.trails import binomials
from networks import mlp, normal

LAYERS = 3
FS = "f0 f1 f2"


def weights(query, stack):
    return torch.softmax(F.rms_norm(stack, (WIDTH,), eps=1e-3) @ query, 1)


def growing(net, mark, x):
    """One stack that grows by what each layer gives."""
    stack = x[:, None]
    for k in range(LAYERS):
        alpha = weights(net.query[k], stack)
        z = (alpha.unsqueeze(-1) * stack).sum(1)
        stack = cat([stack, mark(f"f{k}", net.f[k](z)[:, None])], 1)
    alpha = mark.held(weights(net.query[LAYERS], stack))
    return net.head((alpha.unsqueeze(-1) * stack).sum(1))


def stacked_anew(net, mark, x):
    """A list that each layer stacks anew."""
    outputs = [x]
    for k in range(LAYERS):
        stack = torch.stack(outputs, 1)
        z = torch.einsum("bk,bkd->bd", weights(net.query[k], stack), stack)
        outputs.append(net.f[k](z))
    stack = torch.stack(outputs, 1)
    return net.head(torch.einsum("bk,bkd->bd", weights(net.query[LAYERS], stack), stack))


def by_matmul(net, mark, x):
    stack = x[:, None]
    for k in range(LAYERS):
        z = weights(net.query[k], stack)[:, None] @ stack
        stack = cat([stack, net.f[k](z)], 1)
    return net.head((weights(net.query[LAYERS], stack)[:, None] @ stack)[:, 0])


def stack_of(story):
    def make():
        f = nn.ModuleList(mlp(WIDTH) for _ in range(LAYERS))
        query = nn.Parameter(normal(LAYERS + 1, WIDTH))
        return Told(story, growing, f=f, query=query, head=nn.Linear(WIDTH, 3))

    return Known(make, FS, binomials(LAYERS), joins="concatenation")


CASES = {
    "growing": stack_of(growing),
    "stacked anew": stack_of(stacked_anew),
    "matmul": stack_of(by_matmul),
}
