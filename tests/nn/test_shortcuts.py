"""Skips that change the size."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unbraid.nn import Projection, ZeroPad


@settings(max_examples=30, deadline=None)
@given(
    inputs=st.integers(1, 5),
    extra=st.integers(0, 4),
    stride=st.integers(1, 3),
    dims=st.integers(0, 2),
    size=st.integers(1, 7),
)
def test_zero_padding_keeps_every_stride_th_position_and_adds_zeros(inputs, extra, stride, dims, size):
    stride = stride if dims else 1
    h = torch.randn(2, inputs, *[size] * dims)
    padded = ZeroPad(inputs, inputs + extra, stride, dims)(h)
    kept = list(range(0, size, stride))
    expected = h
    for axis in range(dims):
        expected = expected.index_select(2 + axis, torch.tensor(kept))
    assert padded.shape == (2, inputs + extra, *[len(kept)] * dims)
    assert torch.equal(padded[:, :inputs], expected)
    assert (padded[:, inputs:] == 0).all()


def test_zero_padding_has_no_parameters():
    assert not list(ZeroPad(2, 4).parameters())


def test_zero_padding_cannot_reduce():
    with pytest.raises(ValueError, match=r"ZeroPad\(4, 2\): .* channels\n  Use Projection\(4, 2\)\."):
        ZeroPad(4, 2)


def test_sizes_below_one_are_refused():
    with pytest.raises(ValueError, match="stride must be 1 or more, but is 0"):
        ZeroPad(2, 4, stride=0)
    with pytest.raises(ValueError, match="outputs must be 1 or more, but is 0"):
        Projection(2, 0)


@pytest.mark.parametrize(("dims", "axes"), [(0, ""), (1, "l"), (2, "hw")])
def test_a_projection_is_one_matrix_at_every_stride_th_position(dims, axes):
    stride = 2 if dims else 1
    skip = Projection(3, 5, stride=stride, dims=dims)
    h = torch.randn(2, 3, *[7] * dims)
    kept = h[(slice(None), slice(None), *[slice(None, None, stride)] * dims)]
    matrix = skip.linear.weight.reshape(5, 3)
    expected = torch.einsum(f"oi,bi{axes}->bo{axes}", matrix, kept)
    expected = expected + skip.linear.bias.reshape(-1, *[1] * dims)
    torch.testing.assert_close(skip(h), expected)


def test_a_norm_takes_the_place_of_the_bias():
    skip = Projection(3, 5, norm="batch")
    assert sum(p.numel() for p in skip.parameters()) == 3 * 5 + 2 * 5
    with pytest.raises(ValueError, match=r'norm: unknown name "bach"\n.*batch, layer, rms, group.*"batch"'):
        Projection(3, 5, norm="bach")


@pytest.mark.parametrize("shortcut", [Projection, ZeroPad])
def test_features_have_no_stride(shortcut):
    with pytest.raises(ValueError, match="stride=2 needs positions to step over, but dims=0"):
        shortcut(3, 5, stride=2, dims=0)
