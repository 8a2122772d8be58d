"""Other orders against networks built in that order, and Kendall's tau against scipy's."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from networks import Chain, Residual, lively, mlp, normal
from unbraid import chain, reorderings, trace
from unbraid import nn as ours
from unbraid.lesions._reorder import kendall

kendalltau = pytest.importorskip("scipy.stats").kendalltau  # scikit-learn brings scipy
X = normal(3, 6)


def square(output, labels):
    return (output.detach().double() - labels).square().mean()


@pytest.fixture(scope="module")
def model():
    return lively(Chain(*(Residual(mlp(6)) for _ in range(6)), nn.Linear(6, 4)))


@pytest.fixture(scope="module")
def form(model):
    return trace(model, X)


def some_batches():
    return [(normal(n, 6, seed=n), normal(n, 4, seed=50 + n)) for n in (4, 2)]


@pytest.mark.parametrize("max_batch", [None, 1])
def test_every_order_is_the_network_built_in_that_order(model, form, max_batch):
    data = some_batches()
    study = reorderings(form, data, square, swaps=[0, 1, 4], repeats=3, max_batch=max_batch)
    assert study.stacked
    assert study.swaps == (0, 0, 0, 1, 1, 1, 4, 4, 4)
    for order, metric in zip(study.orders, study.metrics, strict=True):
        other = copy.deepcopy(model)
        other.blocks = nn.ModuleList([*(model.blocks[k] for k in order), model.blocks[6]])
        values = [(len(x), float(square(other(x), labels))) for x, labels in data]
        assert metric == pytest.approx(sum(n * v for n, v in values) / 6, rel=1e-12)
    assert study.metrics[:3] == (study.whole,) * 3
    assert study.tau[:3] == (1.0,) * 3
    assert len(set(study.orders[6:])) == 3


@given(st.permutations(range(7)))
def test_kendall_is_scipys(order):
    assert kendall(order) == pytest.approx(kendalltau(range(7), order).statistic, abs=1e-12)


def test_kendall_at_its_ends():
    assert kendall([0, 1, 2, 3]) == 1
    assert kendall([3, 2, 1, 0]) == -1
    assert kendall([0]) == kendall([]) == 1


def test_tau_is_that_of_the_order_against_the_form_as_it_came(form):
    """Against what was handed in, which may itself be reordered."""
    turned = form.reorder([5, 4, 3, 2, 1, 0])
    study = reorderings(turned, some_batches(), square, swaps=[0, 1], repeats=2)
    assert study.tau[0] == 1.0
    assert study.orders[0] == (5, 4, 3, 2, 1, 0)
    assert all(tau < 1 for tau in study.tau[2:])


def test_one_swap_exchanges_two_blocks(form):
    study = reorderings(form, some_batches(), square, swaps=1, repeats=30)
    for order in study.orders:
        assert sum(place != block for place, block in enumerate(order)) == 2
    assert len(set(study.orders)) > 8  # of 15 pairs


def test_a_generator_decides(form):
    def orders(seed):
        generator = torch.Generator().manual_seed(seed)
        return reorderings(form, some_batches(), square, swaps=3, repeats=4, generator=generator).orders

    assert orders(1) == orders(1) != orders(2)
    assert reorderings(form, some_batches(), square, swaps=3, repeats=4).orders == orders(0)


def test_only_blocks_of_one_shape_swap():
    network = lively(ours.conv1d(layers=20, width=4, norm="group", shortcut="projection"), scale=0.3)
    form = trace(network, normal(3, 1, 16))
    data = [(normal(3, 1, 16), normal(3, 10))]
    study = reorderings(form, data, square, swaps=5, repeats=6)
    assert all(sorted(order[:3]) == [0, 1, 2] and order[3] == 3 and order[6] == 6 for order in study.orders)
    assert len(set(study.orders)) > 1


def test_what_cannot_be_swapped():
    form = trace(lively(Chain(Residual(mlp(6)), nn.Linear(6, 4))), X)
    with pytest.raises(ValueError, match=r"no two blocks of this form lie on one trunk and have one shape"):
        reorderings(form, some_batches(), square, swaps=1)
    plain = lively(Chain(mlp(6), mlp(6), nn.Linear(6, 4)))
    layers = chain(plain, X, layers=["blocks.0", "blocks.1"])
    assert reorderings(layers, some_batches(), square, swaps=1, repeats=1).orders == ((1, 0),)
    with pytest.raises(ValueError, match=r"swaps are numbers from 0 and repeats at least 1; got \[-1\] and 10"):
        reorderings(layers, some_batches(), square, swaps=-1)
    noisy = trace(lively(Chain(Residual(nn.Sequential(mlp(6), nn.BatchNorm1d(6))), Residual(mlp(6)))).train(), X)
    with pytest.raises(ValueError, match=r"reorderings: .*batch_norm\w* at \S+ \(in training mode"):
        reorderings(noisy, some_batches(), square, swaps=1)


def test_a_study_shows_a_row_for_each_number_of_swaps(form):
    study = reorderings(form, some_batches(), square, swaps=[1, 3], repeats=4)
    html = study._repr_html_()
    assert html.count("<tr>") == 3
    assert [list(column.cells) for column in study.table().columns][:2] == [["1", "3"], ["4", "4"]]
    plain = study.to_dict()
    assert [row["tau"] for row in plain["orders"]] == list(study.tau)
    assert plain["orders"][0]["order"] == list(study.orders[0])
