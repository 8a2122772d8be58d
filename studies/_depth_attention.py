"""A small network with attention residuals: each layer reads a weighted mean of all outputs before it.

z_l = Σ_b α_lb v_b        v_l = f_l(z_l)        α_l = softmax of ⟨w_l, norm(v_b)⟩ over b
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

WIDTH = 32


class AttentionResiduals(nn.Module):
    """An embedding and K layers, each of which reads all outputs before it by weights of its own; so does the head.

    Args:
        depth: K.
        sharpness: s; the larger, the faster weights leave the uniform ones with which they begin.
    """

    def __init__(self, depth: int, sharpness: float = 1.0) -> None:
        super().__init__()
        self.sharpness = sharpness
        self.embed = nn.Linear(40, WIDTH)
        self.query = nn.Parameter(torch.zeros(depth + 1, WIDTH))  # so that all weights begin equal
        self.layer = nn.ModuleList(
            nn.Sequential(nn.RMSNorm(WIDTH), nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))
            for _ in range(depth)
        )
        self.head = nn.Sequential(nn.RMSNorm(WIDTH), nn.Linear(WIDTH, 10))

    def weights(self, reader: int, stack: Tensor) -> Tensor:
        """α of a layer, or of the head behind all: [batch, outputs, width] -> [batch, outputs]."""
        return torch.softmax(F.rms_norm(stack, (WIDTH,)) @ (self.sharpness * self.query[reader]), -1)

    def read(self, reader: int, outputs: list[Tensor]) -> Tensor:
        """Σ_b α_b v_b."""
        stack = torch.stack(outputs, 1)
        return (self.weights(reader, stack)[:, None] @ stack)[:, 0]

    def outputs(self, x: Tensor, layers: int) -> list[Tensor]:
        """The embedding, and what the first layers give."""
        found = [self.embed(x)]
        for k in range(layers):
            found.append(self.layer[k](self.read(k, found)))
        return found

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 40] -> [batch, 10]."""
        depth = len(self.layer)
        return self.head(self.read(depth, self.outputs(x, depth)))


class UpTo(nn.Module):
    """The network as far as what one layer gives.

    Args:
        network: the whole.
        layer: its number, from 0.
    """

    def __init__(self, network: AttentionResiduals, layer: int) -> None:
        super().__init__()
        self.network, self.last = network, layer

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 40] -> [batch, width]."""
        outputs = self.network.outputs(x, self.last)
        return self.network.layer[self.last](self.network.read(self.last, outputs))
