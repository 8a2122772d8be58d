"""One block: its equation, its derivative, and its refusal to add what does not fit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from unbraid.errors import ShapeError
from unbraid.nn import LearnedScale, Projection, ResidualBlock, ResidualNetwork, ZeroPad


def linear(inputs, outputs):
    return nn.Linear(inputs, outputs, dtype=torch.float64)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    width=st.integers(1, 6),
    batch=st.integers(1, 4),
    scale=st.sampled_from((None, 0.5, -2.0, 0.0)),
    after=st.sampled_from((None, torch.relu, torch.tanh)),
    projected=st.booleans(),
)
def test_the_block_is_its_equation(seed, width, batch, scale, after, projected):
    """h ← after(skip(h) + scale·branch(h)), with the weights read off and multiplied by hand."""
    outputs = width + 2 if projected else width
    branch = linear(width, outputs)
    skip = linear(width, outputs) if projected else None
    modules = {None: None, torch.relu: nn.ReLU(), torch.tanh: nn.Tanh()}
    block = ResidualBlock(branch, skip=skip, after=modules[after], scale=scale)

    h = torch.randn(batch, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    kept = h @ skip.weight.T + skip.bias if projected else h
    total = kept + (1.0 if scale is None else scale) * (h @ branch.weight.T + branch.bias)
    torch.testing.assert_close(block(h), total if after is None else after(total), rtol=1e-12, atol=1e-12)


def test_a_scale_may_be_a_module():
    scale = LearnedScale(start=0.25)
    block = ResidualBlock(nn.Linear(3, 3), scale=scale)
    h = torch.randn(2, 3)
    torch.testing.assert_close(block(h), h + 0.25 * block.branch(h))
    assert dict(block.named_parameters())["scale.alpha"] is scale.alpha


@pytest.mark.parametrize(
    ("branch", "given_shape", "skip", "branch_shape", "remedy"),
    [
        (
            nn.Conv2d(64, 128, 3, stride=2, padding=1),
            [8, 64, 32, 32],
            None,
            [8, 128, 16, 16],
            "skip=Projection(64, 128, stride=2)",
        ),
        (nn.Conv2d(4, 6, 1), [2, 4, 5, 5], None, [2, 6, 5, 5], "skip=Projection(4, 6)"),
        (
            nn.Conv1d(4, 6, 3, stride=2, padding=1),
            [2, 4, 7],
            None,
            [2, 6, 4],
            "skip=Projection(4, 6, stride=2, dims=1)",
        ),
        (nn.Linear(40, 100), [3, 40], None, [3, 100], "skip=Projection(40, 100, dims=0)"),
        # Broadcasting would add these three without a word.
        (nn.Linear(40, 1), [3, 40], None, [3, 1], "skip=Projection(40, 1, dims=0)"),
        (nn.Conv2d(4, 4, 5), [2, 4, 5, 5], None, [2, 4, 1, 1], "skip=Projection(4, 4, stride=5)"),
        (nn.Flatten(0, 1), [1, 5, 7], None, [5, 7], "as skip a module that maps [1, 5, 7] to [5, 7]"),
        # No stride keeps 5 of 7 positions, and none makes 9 of 7.
        (nn.Conv1d(4, 4, 3), [2, 4, 7], None, [2, 4, 5], "as skip a module that maps [2, 4, 7] to [2, 4, 5]"),
        (nn.Linear(7, 9), [2, 4, 7], None, [2, 4, 9], "as skip a module that maps [2, 4, 7] to [2, 4, 9]"),
        (nn.Linear(7, 9), [2, 7], nn.Linear(7, 8), [2, 9], "skip=Projection(7, 9, dims=0)"),
    ],
)
def test_a_mismatch_says_what_arrived_and_what_to_do(branch, given_shape, skip, branch_shape, remedy):
    h = torch.randn(given_shape)
    skip_shape = given_shape if skip is None else list(skip(h).shape)
    with pytest.raises(ShapeError) as error:
        ResidualBlock(branch, skip=skip)(h)
    assert str(error.value) == (
        "a block: skip and branch must have one shape to be added.\n"
        f"  input        {given_shape}\n"
        f"  skip gives   {skip_shape}\n"
        f"  branch gives {branch_shape}\n"
        f"  Keep the size in the branch, or pass {remedy}."
    )
    assert error.value.block == "a block"
    assert error.value.shapes == {
        "input": tuple(given_shape),
        "skip": tuple(skip_shape),
        "branch": tuple(branch_shape),
    }


@settings(max_examples=60, deadline=None)
@given(
    channels=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    size=st.integers(1, 12),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 4),
    dims=st.integers(1, 2),
)
def test_the_projection_that_is_suggested_fits(channels, size, kernel, stride, dims):
    """Take the remedy out of the message, run it, and the block runs."""
    convolution = {1: nn.Conv1d, 2: nn.Conv2d}[dims]
    branch = convolution(*channels, kernel, stride=stride, padding=kernel - 1)
    h = torch.randn(2, channels[0], *[size] * dims)
    try:
        ResidualBlock(branch)(h)
    except ShapeError as error:
        remedy = str(error).split("or pass ")[1]
        if remedy.startswith("skip="):
            skip = eval(remedy.removeprefix("skip=").removesuffix("."), {"Projection": Projection})
            assert ResidualBlock(branch, skip=skip)(h).shape == branch(h).shape


def test_the_network_names_the_block():
    blocks = [ResidualBlock(nn.Linear(4, 4)), nn.ReLU(), ResidualBlock(nn.Linear(4, 5))]
    network = ResidualNetwork(nn.Identity(), blocks, nn.Identity())
    with pytest.raises(ShapeError, match=r'^block 2 \("blocks\.2"\): skip .*\n.*\n.*\[3, 4\]\n.*\[3, 5\]') as error:
        network(torch.randn(3, 4))
    assert error.value.block == 'block 2 ("blocks.2")'


def test_the_network_names_a_block_inside_a_branch():
    inner = nn.Sequential(nn.ReLU(), ResidualBlock(nn.Linear(4, 5)))
    network = ResidualNetwork(nn.Identity(), [ResidualBlock(inner)], nn.Identity())
    with pytest.raises(ShapeError, match=r'^block 0\.branch\.1 \("blocks\.0\.branch\.1"\): '):
        network(torch.randn(3, 4))


def test_a_projection_lets_the_size_change():
    branch = nn.Conv2d(4, 6, 3, stride=2, padding=1)
    block = ResidualBlock(branch, skip=Projection(4, 6, stride=2))
    assert block(torch.randn(2, 4, 7, 8)).shape == (2, 6, 4, 4)


def convolution(dims):
    return {1: nn.Conv1d, 2: nn.Conv2d}[dims](2, 4, 3, stride=2, padding=1)


BLOCKS = {
    "identity": (ResidualBlock(nn.Sequential(nn.Tanh(), nn.Linear(3, 3))), (2, 3)),
    "scaled": (ResidualBlock(nn.Linear(3, 3), after=nn.Tanh(), scale=0.3), (2, 3)),
    "learned": (ResidualBlock(nn.Linear(3, 3), scale=LearnedScale(0.7)), (2, 3)),
    "features": (ResidualBlock(nn.Linear(3, 2), skip=Projection(3, 2, dims=0, norm="layer")), (2, 3)),
    "sequence": (
        ResidualBlock(convolution(1), Projection(2, 4, 2, dims=1, norm="rms"), nn.SiLU()),
        (2, 2, 5),
    ),
    "image": (ResidualBlock(convolution(2), Projection(2, 4, 2, norm="batch")), (2, 2, 3, 4)),
    "padding": (ResidualBlock(convolution(2), ZeroPad(2, 4, 2), nn.GELU()), (2, 2, 3, 4)),
}


@pytest.mark.parametrize("kind", BLOCKS)
def test_every_kind_of_block_has_the_right_derivative(kind):
    block, shape = BLOCKS[kind]
    block.double()
    draws = torch.Generator().manual_seed(0)
    h = torch.randn(shape, dtype=torch.float64, generator=draws, requires_grad=True)
    names, values = zip(*block.named_parameters(), strict=True)

    def forward(h, *values):
        return torch.func.functional_call(block, dict(zip(names, values, strict=True)), (h,))

    assert torch.autograd.gradcheck(forward, (h, *values), raise_exception=True)
