"""`trace` on any model: what it says about it, that it changes nothing, and that the form is the model."""

import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from networks import Chain, Does, Residual, error, lively, mlp, normal
from unbraid.errors import NotResidualError, TraceError
from unbraid.form import trace

X = normal(3, 6)


class TwoInOne(nn.Module):
    """The usual transformer block: attention and MLP, both added in one forward."""

    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(6), nn.LayerNorm(6)
        self.attn, self.mlp = mlp(6), mlp(6)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


@pytest.fixture(scope="module")
def transformer():
    model = lively(Chain(TwoInOne(), TwoInOne()))
    return model, trace(model, X)


def test_a_block_is_named_by_its_branch_where_one_module_adds_twice(transformer):
    _, form = transformer
    names = ["blocks.0.attn", "blocks.0.mlp", "blocks.1.attn", "blocks.1.mlp"]
    assert [b.name for b in form.blocks] == names
    assert [b.branches for b in form.blocks] == [(name,) for name in names]
    assert [b.index for b in form.blocks] == [0, 1, 2, 3]


def test_a_block_is_named_by_the_module_that_adds():
    form = trace(lively(Chain(Residual(mlp(6)), nn.Sequential(nn.LayerNorm(6), Residual(mlp(6))))), X)
    assert [b.name for b in form.blocks] == ["blocks.0", "blocks.1.1"]
    assert [b.branches for b in form.blocks] == [("blocks.0.branch",), ("blocks.1.1.branch",)]


def test_branches_side_by_side_have_their_own_names():
    parts = {"norm": nn.LayerNorm(6), "attn": mlp(6), "mlp": mlp(6)}
    block = Does(lambda net, x: net.attn(net.norm(x)) + net.mlp(net.norm(x)) + x, **parts)
    form = trace(lively(Chain(block)), X)
    assert [(b.name, b.branches) for b in form.blocks] == [("blocks.0", ("blocks.0.attn", "blocks.0.mlp"))]


class Lists(nn.Module):
    """A container is never called, so it stands in no stack of modules; its members do."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([mlp(6), mlp(6)])

    def forward(self, x):
        for f in self.layers:
            x = x + f(x)
        return x


def test_members_of_a_list_have_names_of_their_own():
    assert [b.name for b in trace(lively(Lists()), X).blocks] == ["layers.0", "layers.1"]


def test_a_block_says_where_it_is_added(transformer):
    """The very line of TwoInOne.forward above, from Python's own record of it."""
    first = TwoInOne.forward.__code__.co_firstlineno + 1
    _, form = transformer
    assert [b.where for b in form.blocks] == [f"test_trace.py:{first + k % 2}" for k in range(4)]
    assert form.blocks[0].source == f"{__file__}:{first}"


def test_a_block_counts_its_parameters(transformer):
    model, form = transformer
    for k, b in enumerate(form.blocks):
        block = model.blocks[k // 2]
        branch, norm = (block.attn, block.norm1) if k % 2 == 0 else (block.mlp, block.norm2)
        assert b.parameters == sum(p.numel() for part in (branch, norm) for p in part.parameters())


def test_what_follows_an_addition_is_named():
    relu = Does(lambda net, x: torch.relu(x + net.f(x)), f=mlp(6))
    form = trace(lively(Chain(relu, nn.Sequential(Residual(mlp(6)), nn.LayerNorm(6)), Residual(mlp(6)), mlp(6))), X)
    assert [b.after for b in form.blocks] == [("relu",), ("layer_norm",), ()]


def test_a_fixed_size_is_a_number_and_a_free_one_a_letter(transformer):
    _, form = transformer
    batch, width = form.blocks[0].shape
    assert isinstance(batch, str)
    assert not batch.isdigit()
    assert width == 6


def test_nested_blocks_are_listed_in_their_outer_block():
    inner = nn.Sequential(nn.Linear(6, 6), Residual(Chain(Residual(mlp(6)), mlp(6))), nn.Linear(6, 6))
    form = trace(lively(Chain(Residual(inner), Residual(mlp(6)))), X)
    assert [b.name for b in form.blocks] == ["blocks.0", "blocks.1"]
    (outer,) = form.blocks[0].nested
    (innermost,) = outer.nested
    assert outer.name == "blocks.0.branch.1"
    assert innermost.name == "blocks.0.branch.1.branch.blocks.0"
    assert sorted([0, 1, outer.index, innermost.index]) == [0, 1, 2, 3]
    assert form.path_counts() == [1, 2, 1]


def test_what_a_form_prints(transformer):
    _, form = transformer
    lines = str(form).splitlines()
    assert lines[0] == "4 blocks (skips: 4 identity)"
    assert lines[3].split()[:4] == ["1", "blocks.0.mlp", "identity", "1"]
    assert lines[-1].startswith("form(x) equals model(x) to ")
    assert ">blocks.0.mlp</td>" in form._repr_html_()
    assert [b["name"] for b in form.to_dict()["blocks"]] == [b.name for b in form.blocks]


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_any_batch_size(transformer, batch):
    model, form = transformer
    x = normal(batch, 6, seed=batch)
    assert error(form(x), model(x)) < 1e-12


def test_a_batch_of_one_is_no_constant():
    model = lively(Chain(TwoInOne()))
    form = trace(model, X[:1])
    for x in (X[:1], X):
        assert error(form(x), model(x)) < 1e-12


def test_a_sequential_model():
    """Its input is called `input`, which is also the name of a Python function."""
    model = lively(nn.Sequential(Residual(mlp(6)), nn.Linear(6, 2)))
    form = trace(model, X)
    assert [b.name for b in form.blocks] == ["0"]
    assert error(form(X), model(X)) < 1e-12


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.f, self.g = mlp(6), mlp(6)

    def forward(self, a, b):
        return a + self.f(a) + self.g(torch.cat([a, b], 1)[:, 3:9])


def test_one_tensor_given_twice_is_two_inputs():
    model = lively(Pair())
    form = trace(model, (X, X))
    other = normal(3, 6, seed=1)
    assert error(form(X, other), model(X, other)) < 1e-12


def test_a_batch_size_that_the_code_fixes():
    """len() must return an int, so the exporter builds the size in: it works there, and refuses another."""
    model = lively(Does(lambda net, x: x + net.f(x) * len(x), f=mlp(6)))
    form = trace(model, X)
    assert error(form(X), model(X)) < 1e-12
    with pytest.raises(Exception, match=r"\[3, 6\](.|\n)*\[2, 6\]"):
        form(X[:2])


class Answer(NamedTuple):
    logits: Tensor
    hidden: tuple


def outputs(kind):
    def forward(net, x):
        h = x + net.f(x)
        return {
            "dict": {"logits": h, "rest": [h.mean(), x], "none": None, "number": 3},
            "tuple": (h, (h.sum(1), {"x": x})),
            "named tuple": Answer(h, (x, h * 2)),
            "twice": (h, h),
        }[kind]

    return lively(Does(forward, f=mlp(6)))


@pytest.mark.parametrize("kind", ["dict", "tuple", "named tuple", "twice"])
def test_outputs_keep_their_structure(kind):
    model = outputs(kind)
    form = trace(model, X)
    expected, found = model(X), form(X)
    assert type(found) is type(expected)
    a, structure = torch.utils._pytree.tree_flatten(expected)
    b, other = torch.utils._pytree.tree_flatten(found)
    assert structure == other
    for x, y in zip(a, b, strict=True):
        assert error(y, x) < 1e-12 if isinstance(x, Tensor) else x == y


@pytest.mark.parametrize(
    ("dtype", "bound"),
    [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 2e-2)],
)
def test_every_precision(dtype, bound):
    model = lively(Chain(TwoInOne(), TwoInOne()), dtype=dtype)
    form = trace(model, normal(3, 6, dtype=dtype))
    assert form.dtype is dtype
    assert form.error <= bound
    x = normal(5, 6, seed=1, dtype=dtype)
    assert form(x).dtype is dtype
    assert error(form(x).double(), model(x).double()) <= bound


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.branch = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 6), nn.Dropout(0.5), nn.Linear(6, 6))
        self.frozen = nn.Linear(6, 6).requires_grad_(False)

    def forward(self, x):
        return self.frozen(x + self.branch(x))


@pytest.mark.parametrize("training", [False, True])
def test_tracing_changes_nothing(training):
    model = lively(Chain(Normed(), Normed())).train(training)
    model.blocks[1].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    flags = [module.training for module in model.modules()]
    wants = [p.requires_grad for p in model.parameters()]
    identities = [(id(p), p.data_ptr()) for p in model.parameters()]
    x = X.clone()
    torch.manual_seed(7)
    random = torch.get_rng_state()

    form = trace(model, x)
    form.verify(x)
    form(x)
    form.tape(x)

    assert [module.training for module in model.modules()] == flags
    assert [p.requires_grad for p in model.parameters()] == wants
    assert [(id(p), p.data_ptr()) for p in model.parameters()] == identities
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(x, X)
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module._backward_hooks
        assert not module._backward_pre_hooks
    if not training:
        assert torch.equal(torch.get_rng_state(), random)
    trace(model, x)
    torch.manual_seed(7)
    random = torch.get_rng_state()
    trace(model, x)
    assert torch.equal(torch.get_rng_state(), random)


def test_train_mode_is_honoured():
    """Batch norm with the batch's own statistics, dropout with the same draws."""
    model = lively(Chain(Normed(), Normed())).train()
    form = trace(model, X)
    statistics = {name: tensor.clone() for name, tensor in model.named_buffers()}
    torch.manual_seed(3)
    found = form(X)
    assert all(torch.equal(tensor, statistics[name]) for name, tensor in model.named_buffers())
    torch.manual_seed(3)
    assert error(found, model(X)) < 1e-12
    assert error(found, model.eval()(X)) > 1e-2


def test_parameters_are_shared_by_reference(transformer):
    model, form = transformer
    for name, parameter in model.named_parameters():
        if name in form.state:
            assert form.state[name].data_ptr() == parameter.data_ptr()
    with torch.no_grad():
        weight = model.blocks[0].mlp[0].weight
        saved = weight.clone()
        weight.mul_(2)
        assert error(form(X), model(X)) < 1e-12
        weight.copy_(saved)


def test_a_form_has_gradients():
    """Called like the model, it trains like the model."""
    model = lively(Chain(TwoInOne()))
    form = trace(model, X)
    x, y = X.clone().requires_grad_(), X.clone().requires_grad_()
    form(x).square().sum().backward()
    model(y).square().sum().backward()
    assert error(x.grad, y.grad) < 1e-10


def test_tied_weights():
    first, second = Residual(mlp(6)), Residual(mlp(6))
    second.branch[0].weight = first.branch[0].weight
    model = lively(Chain(first, second))
    form = trace(model, X)
    assert len(form.blocks) == 2
    assert error(form(X), model(X)) < 1e-12


def test_no_grad_inside_the_model():
    def forward(net, x):
        with torch.no_grad():
            h = net.stem(x)
        return h + net.f(h)

    model = lively(Does(forward, stem=nn.Linear(6, 6), f=mlp(6)))
    form = trace(model, X)
    assert len(form.blocks) == 1
    assert error(form(X), model(X)) < 1e-12


def test_the_meta_device_gives_structure_only():
    with torch.device("meta"):
        model = Chain(TwoInOne(), TwoInOne()).eval()
        form = trace(model, torch.empty(3, 6))
    assert [b.name for b in form.blocks] == ["blocks.0.attn", "blocks.0.mlp", "blocks.1.attn", "blocks.1.mlp"]
    assert form.blocks[0].shape == (3, 6)
    assert math.isnan(form.error)
    assert form.path_counts() == [1, 4, 6, 4, 1]
    assert str(form).splitlines()[-1] == "not run"


def test_a_model_that_depends_on_its_data_cannot_be_exported():
    def forward(net, x):
        return x + net.f(x) if x.sum() > 0 else x - net.f(x)

    model = lively(Does(forward, f=mlp(6)))
    with pytest.raises(TraceError, match=r"Does: its computation could not be captured") as caught:
        trace(model, X, tracer="export")
    assert any(tracer.startswith("export") and reason for tracer, reason in caught.value.reasons.items())


def test_a_model_without_data_is_refused():
    model = lively(Does(lambda net, x: net.p + net.f(net.p), f=mlp(6), p=nn.Parameter(torch.ones(3, 6))))
    with pytest.raises(NotResidualError, match="no residual addition among its 0 additions of data"):
        trace(model, X)
