"""How a network is trained: the hyperparameters, and the optimiser and learning rates they stand for."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

__all__ = ["STANDARD", "Recipe"]


@dataclass(frozen=True)
class Recipe:
    """The hyperparameters of a run. The defaults are those of the README's table.

    Attributes:
        epochs: passes over the training part.
        batch_size: examples per step.
        lr: the learning rate of the first epoch.
        momentum: of SGD; for AdamW the decay of its mean of gradients, β1.
        weight_decay: L2 penalty of SGD; AdamW's decoupled decay.
        optimizer: "sgd" or "adamw" (Loshchilov and Hutter 2019).
        schedule: "step" halves the rate `halvings` times at equal distances; "cosine" lowers it along half a
            cosine (Loshchilov and Hutter 2017); "constant" leaves it.
        halvings: how often "step" halves.

    Raises:
        ValueError: where a value is out of its range.
    """

    epochs: int = 40
    batch_size: int = 100
    lr: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 0.0
    optimizer: Literal["sgd", "adamw"] = "sgd"
    schedule: Literal["step", "cosine", "constant"] = "step"
    halvings: int = 5

    def __post_init__(self) -> None:
        rules = {
            "epochs is at least 1": self.epochs >= 1,
            "batch_size is at least 1": self.batch_size >= 1,
            "lr is finite and above 0": 0 < self.lr < math.inf,
            "momentum is at least 0 and below 1": 0 <= self.momentum < 1,
            "weight_decay is finite and at least 0": 0 <= self.weight_decay < math.inf,
            'optimizer is "sgd" or "adamw"': self.optimizer in ("sgd", "adamw"),
            'schedule is "step", "cosine" or "constant"': self.schedule in ("step", "cosine", "constant"),
            "halvings is at least 0": self.halvings >= 0,
        }
        for rule, holds in rules.items():
            if not holds:
                raise ValueError(f"Recipe: {rule}; got {getattr(self, rule.split()[0])!r}")

    def rate(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0; of E epochs and H halvings.

        step:   lr · 2^−⌊epoch · (H + 1) / E⌋
        cosine: lr · (1 + cos(π · epoch / E)) / 2
        """
        if self.schedule == "step":
            halved = epoch * (self.halvings + 1) // self.epochs
            return math.ldexp(self.lr, -halved)
        if self.schedule == "cosine":
            return self.lr * (1 + math.cos(math.pi * epoch / self.epochs)) / 2
        return self.lr

    def optimizer_of(self, network: nn.Module) -> torch.optim.Optimizer:
        """A fresh optimiser of the network's parameters."""
        parameters = list(network.parameters())
        if self.optimizer == "adamw":
            betas = (self.momentum, 0.999)
            return torch.optim.AdamW(parameters, lr=self.lr, betas=betas, weight_decay=self.weight_decay)
        return torch.optim.SGD(parameters, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)


STANDARD = Recipe()
