"""What hyper-connections mix with: R between the streams, p for what a branch reads, q for what it writes."""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from kinds.known import WIDTH
from networks import normal

# Three streams: doubly stochastic of two would be symmetric, and hide what is transposed.
STREAMS = 3


def parameter(*shape, seed):
    return nn.Parameter(normal(*shape, seed=seed))


class Fixed(nn.Module):
    """R, p and q are learned."""

    def __init__(self):
        super().__init__()
        self.r, self.p, self.q = (parameter(*shape, seed=0) for shape in ((STREAMS, STREAMS), (STREAMS,), (STREAMS,)))

    def forward(self, streams):
        batch = streams.shape[:-2]
        return tuple(w.expand(*batch, *w.shape) for w in (self.r, self.p, self.q))


class Dynamic(Fixed):
    """Zhu et al. 2024: of each a learned part, and one computed from the normed streams."""

    def __init__(self):
        super().__init__()
        self.norm, self.of = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, STREAMS + 2)
        self.scale = parameter(3, seed=1)

    def forward(self, streams):
        r, p, q = torch.tanh(self.of(self.norm(streams))).split([STREAMS, 1, 1], -1)
        return (
            self.r + self.scale[0] * r,
            self.p + self.scale[1] * p.squeeze(-1),
            self.q + self.scale[2] * q.squeeze(-1),
        )


class DoublyStochastic(nn.Module):
    """mHC: R by Sinkhorn's iterations, so that rows and columns sum to one; p and q by sigmoids."""

    def __init__(self):
        super().__init__()
        self.of = nn.Linear(STREAMS * WIDTH, STREAMS * (STREAMS + 2))

    def forward(self, streams):
        every = self.of(F.rms_norm(streams.flatten(-2), (STREAMS * WIDTH,), eps=1e-3))
        r, p, q = every.split([STREAMS * STREAMS, STREAMS, STREAMS], -1)
        r = torch.exp(r.unflatten(-1, (STREAMS, STREAMS)))
        for _ in range(4):
            r = r / r.sum(-1, keepdim=True)
            r = r / r.sum(-2, keepdim=True)
        return r, torch.sigmoid(p), 2 * torch.sigmoid(q)
