"""Small networks with hyper-connections: n streams, mixed before each block by weights that the data move.

    X ← R X + q ⊗ f(p X)        R [n, n] free (HC, Zhu et al. 2024) or doubly stochastic (mHC, DeepSeek 2025)

The twins differ in R alone. Both read with p = σ(·), write with q = 2σ(·), and take all weights from normed streams;
R begins near the identity, and block k begins by reading stream k mod n more than the others.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

STREAMS, WIDTH = 4, 32
SINKHORN = 20  # iterations, as in the paper


def doubly_stochastic(scores: Tensor) -> Tensor:
    """Rows and columns of exp(scores) that sum to one, by Sinkhorn's iterations: [..., n, n] -> [..., n, n]."""
    r = torch.exp(scores - scores.amax((-2, -1), keepdim=True))
    for _ in range(SINKHORN):
        r = r / r.sum(-1, keepdim=True)
        r = r / r.sum(-2, keepdim=True)
    return r


class Mix(nn.Module):
    """R, p and q of one block, each a learned part plus a part of the normed streams that begins small.

    Args:
        block: its number, from 0.
        free: whether R is any matrix.
    """

    def __init__(self, block: int, *, free: bool) -> None:
        super().__init__()
        self.free = free
        self.of = nn.Linear(STREAMS * WIDTH, STREAMS * (STREAMS + 2), bias=False)
        self.scale = nn.Parameter(torch.full((3,), 0.01))
        self.r = nn.Parameter(torch.eye(STREAMS) * (1.0 if free else 4.0))
        self.p = nn.Parameter(torch.full((STREAMS,), -2.0).index_fill(0, torch.tensor(block % STREAMS), 2.0))
        self.q = nn.Parameter(torch.zeros(STREAMS))

    def forward(self, streams: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[batch, n, width] -> R [batch, n, n], p [batch, n], q [batch, n]."""
        moved = self.of(F.rms_norm(streams.flatten(-2), (STREAMS * WIDTH,)))
        r, p, q = moved.split([STREAMS * STREAMS, STREAMS, STREAMS], -1)
        r = r.unflatten(-1, (STREAMS, STREAMS))
        r = self.r + self.scale[0] * (torch.tanh(r) if self.free else r)
        p, q = self.p + self.scale[1] * p, self.q + self.scale[2] * q
        return (r if self.free else doubly_stochastic(r)), torch.sigmoid(p), 2 * torch.sigmoid(q)


class HyperNetwork(nn.Module):
    """An embedding, K pre-norm blocks between mixed streams, and a linear head on their normed sum.

    Args:
        inputs: features of an example.
        classes: scores that it gives.
        depth: K.
        free: whether the mixes are free (HC) or doubly stochastic (mHC).
    """

    def __init__(self, inputs: int, classes: int, depth: int, *, free: bool) -> None:
        super().__init__()
        self.embed = nn.Linear(inputs, WIDTH)
        self.mix = nn.ModuleList(Mix(k, free=free) for k in range(depth))
        self.block = nn.ModuleList(branch() for _ in range(depth))
        self.norm = nn.RMSNorm(WIDTH)
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, inputs] -> [batch, classes]."""
        streams = self.embed(x)[:, None].expand(-1, STREAMS, -1)
        for mix, block in zip(self.mix, self.block, strict=True):
            r, p, q = mix(streams)
            read = (p[:, None] @ streams)[:, 0]
            streams = r @ streams + q[..., None] * block(read)[:, None]
        return self.head(self.norm(streams.sum(1)))

    def norm_of(self, h: Tensor) -> Tensor:
        """The root mean square that the last norm divides by: [batch, width] -> [batch, 1]."""
        return (h.square().mean(-1, keepdim=True) + torch.finfo(h.dtype).eps).sqrt()


class Residual(nn.Module):
    """The same blocks on one stream, h ← h + f(h)."""

    def __init__(self, inputs: int, classes: int, depth: int) -> None:
        super().__init__()
        self.embed = nn.Linear(inputs, WIDTH)
        self.block = nn.ModuleList(branch() for _ in range(depth))
        self.norm = nn.RMSNorm(WIDTH)
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, inputs] -> [batch, classes]."""
        h = self.embed(x)
        for block in self.block:
            h = h + block(h)
        return self.head(self.norm(h))


def branch() -> nn.Module:
    """Norm, then two layers with a GELU between."""
    return nn.Sequential(nn.RMSNorm(WIDTH), nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))
