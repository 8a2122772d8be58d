"""Reading a data set as calls of a form."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from unbraid import nn, trace
from unbraid.errors import DataError
from unbraid.results import classification_loss
from unbraid.sweep import each_batch


@pytest.fixture(scope="module")
def form():
    return trace(nn.mlp(inputs=2, classes=2, width=4, depth=2), torch.randn(3, 2))


def test_inputs_are_a_tensor_a_tuple_or_a_dict(form):
    x = torch.randn(5, 2)
    tensor, positional, named = each_batch(form, [(x, 0), ((x, 1), 0), ({"x": x}, 0)])
    assert tensor.args == (x,)
    assert positional.args == (x, 1)
    assert named.kwargs == {"x": x}
    assert {batch.size for batch in (tensor, positional, named)} == {5}


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "there was none.*give a list or a DataLoader"),
        ([torch.zeros(4, 2, 3)], r"batch 0 is a tensor \[4, 2, 3\]"),
        ([(torch.zeros(4, 2),)], r"batch 0 is a tuple of 1"),
        ([(torch.zeros(4, 2), 0), ("text", 0)], r"batch 1 must hold a tensor of inputs"),
        ([(torch.zeros(0, 2), 0)], r"batch 0 must hold a tensor of inputs.*\[0, 2\]"),
    ],
)
def test_what_is_no_batch_is_said(form, batches, message):
    with pytest.raises(DataError, match=message):
        list(each_batch(form, batches))


def test_the_loss_of_sequences_is_a_mean_over_positions():
    scores, labels = torch.randn(3, 4, 5), torch.randint(5, (3, 4))
    each = [[cross_entropy(scores[i, j], labels[i, j]) for j in range(4)] for i in range(3)]
    assert torch.allclose(classification_loss(scores, labels), torch.tensor(each).mean(1))
    assert torch.allclose(classification_loss(scores[:, 0], labels[:, 0]), torch.tensor(each)[:, 0])
    with pytest.raises(ValueError, match=r"the output is \[3, 4, 5\] and the labels are \[3\]\. Give loss="):
        classification_loss(scores, labels[:, 0])


def test_a_spent_iterator_is_said(form):
    spent = iter([(torch.zeros(1, 2), 0)])
    next(spent)
    with pytest.raises(DataError, match="read once is empty"):
        list(each_batch(form, spent))
