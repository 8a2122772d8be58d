"""A small problem and networks for it, shared by the tests of training."""

import torch
from torch import nn

from unbraid import data
from unbraid import nn as unn
from unbraid.train import Recipe

SHORT = Recipe(epochs=4, batch_size=50, lr=0.05)


def examples(train=330, test=100):
    """Three classes: which third of 12 features is largest. 330 is no multiple of the batch size."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(train + test, 12, generator=generator)
    labels = inputs.reshape(-1, 3, 4).sum(2).argmax(1)
    inputs, labels = inputs.double().numpy(), labels.numpy()
    return data.from_arrays(inputs[:train], labels[:train], inputs[train:], labels[train:], name="thirds")


def network(seed=0, **options):
    """Four blocks with batch norm and stochastic depth: running statistics and draws are part of the run."""
    options = {"width": 16, "depth": 4, "order": "norm act linear +", "stochastic_depth": 0.3} | options
    return unn.mlp(inputs=12, classes=3, generator=torch.Generator().manual_seed(seed), **options)


def by_hand(seed=0):
    """A network that has no config, with dropout."""
    made = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))
    generator = torch.Generator().manual_seed(seed)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.2, generator=generator)
    return made


def same_bits(first, second):
    """Whether two networks hold the same parameters and buffers, to the bit."""
    one, two = first.state_dict(), second.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
