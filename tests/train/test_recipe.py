import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from unbraid.train import Recipe


def test_the_step_schedule_halves_five_times_at_equal_distances():
    rates = [Recipe(epochs=60, lr=0.5).rate(epoch) for epoch in range(60)]
    assert rates == [0.5 / 2**k for k in range(6) for _ in range(10)]


def test_forty_epochs_halve_exactly_five_times():
    rates = [Recipe().rate(epoch) for epoch in range(40)]
    assert rates[0] == 0.05
    assert rates[-1] == 0.05 / 32
    assert sum(later == earlier / 2 for earlier, later in pairwise(rates)) == 5


def test_the_cosine_schedule_is_torchs():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=17)
    for epoch in range(17):
        assert math.isclose(Recipe(epochs=17, lr=0.3, schedule="cosine").rate(epoch), theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()


def test_constant():
    assert {Recipe(schedule="constant", lr=0.2).rate(epoch) for epoch in range(40)} == {0.2}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs is at least 1; got 0"),
        ({"batch_size": -3}, "batch_size is at least 1; got -3"),
        ({"lr": math.nan}, "lr is finite and above 0; got nan"),
        ({"momentum": 1.0}, r"momentum is at least 0 and below 1; got 1\.0"),
        ({"weight_decay": -0.1}, r"weight_decay is finite and at least 0; got -0\.1"),
        ({"halvings": -1}, "halvings is at least 0; got -1"),
    ],
)
def test_values_out_of_range(changes, message):
    with pytest.raises(ValueError, match=f"Recipe: {message}"):
        Recipe(**changes)
