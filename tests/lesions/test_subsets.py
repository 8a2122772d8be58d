"""Subnetworks against networks built of the blocks that are kept."""

from collections import Counter
from itertools import combinations
from math import comb

import pytest
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from networks import Chain, Residual, lively, mlp, normal
from unbraid import nn as ours
from unbraid import subsets, trace

X = normal(3, 6)


def square(output, labels):
    return (output.detach().double() - labels).square().mean()


@pytest.fixture(scope="module")
def model():
    return lively(Chain(*(Residual(mlp(6)) for _ in range(5)), nn.Linear(6, 4)))


@pytest.fixture(scope="module")
def form(model):
    return trace(model, X)


def some_batches():
    return [(normal(n, 6, seed=n), normal(n, 4, seed=50 + n)) for n in (4, 2)]


def built_of(model, kept):
    fewer = Chain(*(model.blocks[k] for k in kept), model.blocks[5])
    return sum(len(x) * float(square(fewer(x), labels)) for x, labels in some_batches()) / 6


@pytest.mark.parametrize("max_batch", [None, 1, 9])
def test_all_subnetworks(model, form, max_batch):
    study = subsets(form, some_batches(), square, max_batch=max_batch)
    assert sorted(study.kept) == sorted(kept for size in range(6) for kept in combinations(range(5), size))
    for kept, metric in zip(study.kept, study.metrics, strict=True):
        assert metric == pytest.approx(built_of(model, kept), rel=1e-12)
    assert study.whole == pytest.approx(built_of(model, range(5)), rel=1e-12)
    for size, mean in study.means.items():
        everyone = [built_of(model, kept) for kept in combinations(range(5), size)]
        assert mean == pytest.approx(sum(everyone) / comb(5, size), rel=1e-12)


def test_random_subnetworks_are_spread_over_the_numbers_of_blocks(model, form):
    study = subsets(form, some_batches(), square, count=12)
    assert [sum(len(kept) == size for kept in study.kept) for size in range(6)] == [2] * 6
    for kept, metric in zip(study.kept, study.metrics, strict=True):
        assert metric == pytest.approx(built_of(model, kept), rel=1e-12)
    again = subsets(form, some_batches(), square, count=12)
    assert again.kept == study.kept


def test_more_than_16_blocks_need_a_count():
    form = trace(lively(Chain(*(Residual(nn.Linear(3, 3)) for _ in range(17)))), normal(3, 3))
    data = [(normal(3, 3), normal(3, 3))]
    with pytest.raises(ValueError, match=r"17 blocks have 2\^17 subnetworks.* at most 16 blocks\. Give a count"):
        subsets(form, data, square)
    with pytest.raises(ValueError, match=r"count is at least 1; got 0"):
        subsets(form, data, square, count=0)
    assert len(subsets(form, data, square, count=20).metrics) == 20


def test_many_subnetworks_in_several_pieces(form, monkeypatch):
    from unbraid.sweep import _sweep

    whole = subsets(form, some_batches(), square)
    monkeypatch.setattr(_sweep, "_CHUNK", 7)
    pieces = subsets(form, some_batches(), square)
    assert pieces.metrics == pytest.approx(whole.metrics, rel=1e-12)
    assert pieces.stacked  # 33 variants in pieces of 7 and one of 5
    monkeypatch.setattr(_sweep, "_CHUNK", 32)
    assert subsets(form, some_batches(), square).stacked  # the last alone has nothing to be stacked with


def test_a_study_shows_a_row_for_each_number_of_blocks(form):
    study = subsets(form, some_batches(), square)
    rows = [list(column.cells) for column in study.table().columns]
    assert rows[0] == [str(size) for size in range(6)]
    assert rows[1] == [str(comb(5, size)) for size in range(6)]
    assert rows[2] == [f"{study.means[size]:.4g}" for size in range(6)]
    assert "32 subnetworks (all); 6 examples" in study.caption
    assert study._repr_html_().count("<tr>") == 7
    assert study.to_dict()["means"]["5"] == study.whole


class Calls(TorchDispatchMode):
    """How often each operator is called, and how many pieces are copied into larger tensors."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[func.overloadpacket.__name__] += 1
        if func.overloadpacket.__name__ == "cat":
            self.counts["pieces"] += len(args[0])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("max_batch", [None, 1600])
def test_rows_that_were_computed_together_need_no_copies(max_batch):
    """A branch gathers its rows once; to add what it gives to what it read copies nothing more."""
    x = normal(100, 40).float()
    form = trace(ours.mlp(depth=8, norm=None).eval(), x)
    with Calls() as calls:
        assert subsets(form, [(x, None)], lambda output, labels: output.mean(), max_batch=max_batch)
    products = 1 + (2**8 - 1) + 2**8  # in the stem, the blocks and the head
    assert products < 16 * calls.counts["addmm"] < 2 * products  # up to 16 together
    assert calls.counts["cat"] < calls.counts["addmm"]
    assert calls.counts["pieces"] < 0.8 * products  # rows side by side are one piece
