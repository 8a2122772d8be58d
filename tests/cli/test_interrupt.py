"""Ctrl-C ends the command with status 130 and one line, at whatever moment it comes."""

import pytest

from cli._interrupted import interrupted, lifetime
from marks import slow

MODEL = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.linear, self.conv = nn.LayerNorm(8), nn.Linear(8, 8), nn.Conv1d(4, 4, 3, padding=1)

    def forward(self, x):
        x = x + torch.relu(self.linear(self.norm(x)))
        return x + self.conv(x[:, :4]).mean(1, keepdim=True)

def make():
    return nn.Sequential(*[Block() for _ in range(4)]), torch.ones(3, 4, 8)
"""


@pytest.fixture(scope="module")
def life(tmp_path_factory):
    """The folder of a model, what traces it, and how long that takes."""
    folder = tmp_path_factory.mktemp("interrupt")
    (folder / "model.py").write_text(MODEL)
    arguments = ("trace", "model.py:make")
    return folder, arguments, lifetime(arguments, folder)


def ends_well(life, part):
    folder, arguments, seconds = life
    status, out, said = interrupted(arguments, folder, part * seconds)
    # At the very end it may have been done by then.
    assert (status, said) in [(130, "unbraid: interrupted\n"), (0, "")], said
    return status, out


@pytest.mark.parametrize("part", [0.0, slow(0.3), 0.6])
def test_at_some_moment_of_its_life(life, part):
    while ends_well(life, part)[0] != 130:  # quicker this time than when it was timed: done before the moment came
        assert part
        part /= 2


@pytest.mark.slow
@pytest.mark.parametrize("part", [number / 30 for number in range(30)])
def test_at_many_moments_of_its_life(life, part):
    ends_well(life, part)
