"""The form adds and lays out as the model does: equal to the last bit, and a view that works there works here."""

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from networks import Does, lively, mlp, normal
from unbraid.form import trace

CHANNELS_LAST = torch.channels_last


def conv():
    return nn.Conv2d(4, 4, 3, padding=1)


def transposed(net, x):
    """Branch first, and it lies in memory as its own code left it: only then is the view one."""
    n, c, h, w = x.shape
    rows = x.flatten(2).transpose(1, 2)
    branch = net.f(rows).transpose(1, 2).unflatten(2, (h, w))
    y = branch + x
    return y.permute(0, 2, 3, 1).view(n, h * w, c)


def three_in_brackets(net, x):
    return (net.f(x.mT).mT + (x + net.g(x.mT).mT)).mT.view(-1)


def twice(net, x):
    h = net.a(x) + x
    h = torch.relu(h) + net.b(h)
    return h.permute(0, 2, 3, 1).reshape(h.shape[0], -1)


def in_place(net, x):
    h = net.a(x)
    h += x
    return h + net.b(h)


def check(model, x, others=()):
    model.requires_grad_(False)  # torch multiplies matrices in another way where a gradient is wanted
    form = trace(model, x, tracer="export")
    for given in (x, *others):
        found, expected = form(given), model(given)
        assert torch.equal(found, expected)
        assert found.stride() == expected.stride()
    return form


def test_a_view_that_relies_on_the_branch_being_first():
    model = lively(Does(transposed, f=mlp(4)), dtype=torch.float32)
    check(model, normal(3, 4, 5, 5, dtype=torch.float32), [normal(2, 4, 5, 5, seed=1, dtype=torch.float32)])


def test_three_operands_in_the_models_brackets():
    model = lively(Does(three_in_brackets, f=mlp(4), g=mlp(4)), dtype=torch.float32)
    form = check(model, normal(3, 4, 5, dtype=torch.float32))
    assert len(form.adds[0].branches) == 2


@pytest.mark.parametrize("function", [twice, in_place])
@pytest.mark.parametrize("layout", [torch.contiguous_format, CHANNELS_LAST])
def test_images_in_either_layout(function, layout):
    model = lively(Does(function, a=conv(), b=conv()), dtype=torch.float32)
    x, other = (normal(n, 4, 6, 6, seed=n, dtype=torch.float32).to(memory_format=layout) for n in (3, 2))
    check(model, x, [other])


def test_weights_with_channels_last():
    model = lively(Does(twice, a=conv(), b=conv()), dtype=torch.float32).to(memory_format=CHANNELS_LAST)
    check(model, normal(3, 4, 6, 6, dtype=torch.float32))


def test_a_branch_without_its_skip_still_adds():
    """The order names operands that an edit may take away."""
    model = lively(Does(lambda net, x: net.f(x) + (x + net.g(x)), f=mlp(4), g=mlp(4)))
    x = normal(3, 4)
    form = trace(model, x)
    without = [form.without((0, j))(x) for j in (0, 1)]
    left = [x + model.g(x), model.f(x) + x]  # whichever branch comes first
    for found in without:
        assert any(torch.equal(found, expected) for expected in left)
    assert torch.equal(form.without(0)(x), x)


def heads(net, x):
    """Something has a type of its own, so torch writes what is reshaped as the views that they are in its run."""
    with torch.autocast("cpu", enabled=False):
        parts = 2 * net.qkv(x)
    return [part.unflatten(-1, (2, 3)).transpose(1, 2) for part in parts.chunk(3, -1)]


def masked_by_what_is_learned(net, x):
    """A mask with a gradient takes another kernel, whose result lies otherwise in memory."""
    attended = scaled_dot_product_attention(*heads(net, x), attn_mask=net.places[: x.shape[1], : x.shape[1]])
    return x + attended.transpose(1, 2).reshape(*x.shape[:2], -1)


def masked_by_data(net, x):
    scores = net.places[: x.shape[1], :6] @ x.mT
    attended = scaled_dot_product_attention(*heads(net, x), attn_mask=scores[:, None])
    return x + attended.transpose(1, 2).flatten(2)


@pytest.mark.parametrize("function", [masked_by_what_is_learned, masked_by_data])
def test_a_layout_that_is_another_where_gradients_are_asked_for(function):
    model = lively(Does(function, qkv=nn.Linear(6, 18), places=nn.Parameter(normal(7, 7))))
    x = normal(3, 5, 6)
    form = check(model, x, [normal(2, 6, 6)])
    assert form.tracer == "export"
    assert len(form.blocks) == 1
