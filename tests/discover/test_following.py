"""Which blocks go on from which: found near each sum, as if every later fork had been asked."""

import pytest
import torch
from torch import nn

import unbraid
from networks import mlp
from unbraid.discover._anatomy import Anatomy
from unbraid.discover._dataflow import Dataflow

WIDTH = 6


class Chain(nn.Module):
    def __init__(self, depth):
        super().__init__()
        self.f = nn.ModuleList(mlp(WIDTH) for _ in range(depth))

    def forward(self, x):
        for f in self.f:
            x = x + f(x)
        return x


class TwoTrunks(Chain):
    """A reversible network whose first trunk is left by a norm before each of its blocks."""

    def forward(self, x):
        a = b = x
        for f in self.f:
            a = torch.relu(a) + f(b)
            b = b + f(torch.tanh(a))
        return a + b


@pytest.mark.parametrize("network", [Chain(4), TwoTrunks(3)])
def test_following_is_what_asking_every_fork_gives(network, monkeypatch):
    seen = []
    following = Anatomy.__dict__["following"].func

    def asked(self):
        found = following(self)
        forks = {number: self.blocks[number].fork for number in self.top_level}
        every = {n: [other for other, f in forks.items() if other != n and self._leads(n, f)] for n in self.top_level}
        seen.append((found, every))
        return found

    monkeypatch.setattr(Anatomy, "following", property(asked))
    unbraid.trace(network, torch.randn(2, WIDTH))
    assert seen
    assert any(any(others for others in found.values()) for found, _ in seen)
    for found, every in seen:
        assert found == every


def test_ways_between_blocks_are_searched_once_per_block(monkeypatch):
    """Twice the depth, about twice the searches: four times as many made a trace of 64 layers take minutes."""
    searches, region = [0], Dataflow.region

    def counted(self, fork, end):
        searches[0] += 1
        return region(self, fork, end)

    monkeypatch.setattr(Dataflow, "region", counted)
    counts = []
    for depth in (6, 12):
        searches[0] = 0
        unbraid.trace(Chain(depth), torch.randn(2, WIDTH))
        counts.append(searches[0])
    assert counts[0] > 6
    assert counts[1] <= 2.2 * counts[0]
