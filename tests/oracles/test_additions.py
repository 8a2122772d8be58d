"""Every spelling of an addition is seen, with its place in the source; what adds no data is not."""

import pytest
import torch
from torch import nn

from networks import Does, normal
from oracles.additions import Additions
from oracles.origins import parts, to_be_told

LINEAR = nn.Linear(4, 4, dtype=torch.float64)
TABLE = nn.Embedding(3, 4, dtype=torch.float64)
X = normal(3, 4)


def in_place(x, y):
    y = y.clone()
    y += x
    return y


def on_a_slice(x, y):
    y = y.clone()
    y[:, :2] += x[:, :2]
    return y


def in_a_buffer(x, y):
    buffer = torch.zeros(3, 4, dtype=x.dtype)
    buffer.copy_(x)
    return buffer.add_(y)


ADDITIONS = {
    "x + y": (lambda x, y: x + y, 1),
    "y.add(x, alpha=2)": (lambda x, y: y.add(x, alpha=2), 1),
    "x - y": (lambda x, y: x - y, 1),
    "torch.rsub(x, y)": (lambda x, y: torch.rsub(x, y), 1),
    "x - (-y)": (lambda x, y: x - -y, 1),
    "sum([x, y, x])": (lambda x, y: sum([x, y, x]), 2),
    "+=": (in_place, 1),
    "+= on a slice": (on_a_slice, 1),
    "add_ to a buffer that x was copied into": (in_a_buffer, 1),
    "out=": (lambda x, y: torch.add(x, y, out=torch.empty_like(x)), 1),
    "torch.addmm": (lambda x, y: torch.addmm(x, y, torch.eye(4, dtype=x.dtype)), 1),
    "torch.baddbmm": (lambda x, y: torch.baddbmm(x[None], y[None], torch.eye(4, dtype=x.dtype)[None]), 1),
    "torch.addmv": (lambda x, y: torch.addmv(x[:, 0], y, torch.ones(4, dtype=x.dtype)), 1),
    "torch.addr": (lambda x, y: torch.addr(x, y[:, 0], torch.ones(4, dtype=x.dtype)), 1),
    "torch.addcmul": (lambda x, y: torch.addcmul(x, y, torch.ones(4, dtype=x.dtype)), 1),
    "torch.addcdiv": (lambda x, y: torch.addcdiv(x, y, torch.ones(4, dtype=x.dtype)), 1),
    "torch.lerp": (lambda x, y: torch.lerp(x, y, 0.3), 1),
    "index_add": (lambda x, y: x.index_add(0, torch.arange(3), y), 1),
    "scatter_add": (lambda x, y: x.scatter_add(0, torch.zeros(3, 4, dtype=torch.long), y), 1),
    "scatter_reduce": (lambda x, y: x.scatter_reduce(0, torch.zeros(3, 4, dtype=torch.long), y, "sum"), 1),
    "index_put, accumulated": (lambda x, y: x.index_put((torch.arange(3),), y, accumulate=True), 1),
    "stacked and summed": (lambda x, y: torch.stack([x, y, x]).sum(0), 2),
    "stacked at the end, weighted, averaged": (lambda x, y: (torch.stack([x, y], -1) * 2).mean(-1), 1),
    "torch._foreach_add": (lambda x, y: torch._foreach_add([x], [y])[0], 1),
    "of another size": (lambda x, y: x + y.mean(0), 1),
    "through a choice": (lambda x, y: x + TABLE(y.argmax(-1) % 3), 1),
    "scores and a mask of data, in one operator": (
        lambda x, y: nn.functional.scaled_dot_product_attention(x, x, x, attn_mask=y @ y.T), 1,
    ),
}  # fmt: skip
NOT = {
    "a bias": lambda x: LINEAR(x),
    "a parameter": lambda x: x + LINEAR.weight[0],
    "a number": lambda x: x + 1,
    "positions": lambda x: x + torch.arange(4),
    "zeros of its size": lambda x: x + torch.zeros_like(x),
    "a table, spread to its size": lambda x: x + TABLE(torch.tensor(1)).expand_as(x),
    "a sum over positions": lambda x: x.sum(0),
    "a product": lambda x: x @ x.T,
    "stacked and not summed": lambda x: torch.stack([x, x]).sum(-1),
    "whole numbers": lambda x: x.argmax(-1) + x.argmax(-1),
}


@pytest.mark.parametrize(("adds", "times"), ADDITIONS.values(), ids=ADDITIONS)
def test_every_spelling_is_seen(adds, times):
    with torch.no_grad(), Additions(X) as seen:
        adds(X, LINEAR(X).tanh())
    assert sum(seen.ran.values()) == times
    assert {place.file for place in seen.ran} == {"tests/oracles/test_additions.py"}


@pytest.mark.parametrize("adds", NOT.values(), ids=NOT)
def test_what_adds_no_data_is_not(adds):
    with torch.no_grad(), Additions(X) as seen:
        adds(X)
    assert not seen.ran


def halves(x):
    return x + x.tanh() + x.sin()


def test_the_place_is_the_expression_not_the_call():
    model = Does(lambda self, x: halves(x))
    with Additions(X) as seen:
        model(X)
    (inner, outer), line = sorted(seen.ran, key=lambda place: len(place.text)), halves.__code__.co_firstlineno + 1
    assert (inner.text, outer.text) == ("x + x.tanh()", "x + x.tanh() + x.sin()")
    assert (inner.function, inner.where) == ("halves", f"test_additions.py:{line}")


def test_a_layer_of_torch_is_a_model_like_any_other():
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, dtype=torch.float64)
    with Additions(X) as seen:
        layer(X)
    assert {(place.file, place.function) for place in seen.ran} == {
        ("torch/nn/modules/transformer.py", "TransformerEncoderLayer.forward")
    }
    assert sum(seen.ran.values()) == 2


CONCATENATIONS = {
    "torch.cat": (lambda x: torch.cat([x, x.tanh()]), 1),
    "torch.stack": (lambda x: torch.stack([x, x.tanh()]), 1),
    "torch.hstack": (lambda x: torch.hstack([x, x.tanh()]), 1),
    "beside a table": (lambda x: torch.cat([x, TABLE.weight]), 0),
    "whole numbers": (lambda x: torch.cat([x.argmax(-1), x.argmax(-1)]), 0),
}


@pytest.mark.parametrize(("puts", "times"), CONCATENATIONS.values(), ids=CONCATENATIONS)
def test_tensors_of_data_put_side_by_side_are_seen(puts, times):
    with torch.no_grad(), Additions(X) as seen:
        puts(X)
    assert sum(seen.concatenated.values()) == times


TIMES = torch.ones(4, dtype=torch.float64)
IDS = torch.tensor([[1, 2, 0]])
TOLD = {
    "a branch": (lambda x: x + LINEAR(x), 1),
    "a branch over an embedding": (lambda ids: TABLE(ids) + LINEAR(TABLE(ids)), 1),
    "a branch over a mask": (lambda ids: LINEAR(TABLE(ids)) + (ids > 0).double()[..., None], 0),
    "embeddings of tokens and of positions": (lambda ids: TABLE(ids) + TABLE((ids > 0).cumsum(1) % 3), 0),
    "a bias of positions": (lambda ids: LINEAR(TABLE(ids)) + TABLE((ids > 0).cumsum(1) % 3), 0),
    "a bias that ids look up": (lambda ids: LINEAR(TABLE(ids)) + TABLE(2 - ids), 1),
    "an angle that positions give": (lambda ids: LINEAR(TABLE(ids)) - ids.double()[..., None].cos(), 0),
    "the time, read by a network": (lambda ids: LINEAR(TABLE(ids)) + LINEAR(TIMES * ids.double()[..., None]), 0),
    "a choice": (lambda x: x + x.argmax(-1, keepdim=True).double(), 0),
    "what nothing reads": (lambda x: (x + LINEAR(x), x)[1], 0),
}  # fmt: skip


@pytest.mark.parametrize(("adds", "times"), TOLD.values(), ids=TOLD)
def test_a_form_must_speak_of_streams_that_lead_to_an_output(adds, times):
    data = X if adds.__code__.co_varnames[0] == "x" else IDS
    with torch.no_grad(), Additions(data) as seen:
        returned = adds(data)
    assert sum(to_be_told(seen.log, returned).values()) == times


def twice(x):
    inner = LINEAR(x) + x.tanh()
    middle = (2 * inner).reshape(x.shape)
    return x + middle


def chain(x):
    inner = LINEAR(x) + x
    middle = inner.tanh()
    return inner + middle


@pytest.mark.parametrize(("adds", "part"), [(twice, True), (chain, False)])
def test_a_sum_that_another_sum_alone_reads_is_part_of_it(adds, part):
    with torch.no_grad(), Additions(X) as seen:
        returned = adds(X)
    first = adds.__code__.co_firstlineno
    expected = {f"test_additions.py:{first + 1}": {f"test_additions.py:{first + 3}"}} if part else {}
    assert parts(seen.log, returned) == expected
