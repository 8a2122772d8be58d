"""What the cut says of each segment: its place, the streams it reads, and those that it reads for their sizes alone."""

import torch
from torch import nn

import unbraid
from unbraid.graph import Segment


class Sizes(nn.Module):
    """Later segments read the size of the input, and of what another segment has made within itself."""

    def __init__(self):
        super().__init__()
        self.stem, self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.skip, self.c, self.head = nn.Linear(6, 6, bias=False), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        h = self.stem(x)
        h = h + torch.tanh(self.a(h)) + torch.relu(self.b(h))
        inner = torch.relu(self.c(h))
        h = self.skip(h) + inner.reshape(x.shape[0], 2, 3).flatten(1)
        return self.head(h.reshape(inner.shape[0], -1))


def traced():
    torch.manual_seed(0)
    return unbraid.trace(Sizes().double().eval(), torch.randn(3, 4, dtype=torch.float64))


def test_each_segment_says_where_it_stands():
    segments = [step for step in traced().graph.steps if isinstance(step, Segment)]
    places = [(segment.role, segment.block, segment.branch) for segment in segments]
    assert places == [
        ("trunk", None, None),
        ("branch", 0, 0),
        ("branch", 0, 1),
        ("skip", 1, None),
        ("branch", 1, 0),
        ("trunk", None, None),
    ]


def test_sizes_are_read_from_streams_and_change_with_the_batch():
    form = traced()
    segments = [step for step in form.graph.steps if isinstance(step, Segment)]
    assert not any(segment.size_only for segment in segments)  # each finds the size in a stream that it reads anyway
    assert all(len(set(segment.inputs)) == len(segment.inputs) for segment in segments)
    for size in (1, 2, 7):
        x = torch.randn(size, 4, dtype=torch.float64)
        model = Sizes().double().eval()
        model.load_state_dict(form.state)
        torch.testing.assert_close(form(x), model(x), rtol=1e-13, atol=1e-13)


def test_a_skipped_block_leaves_no_reader_of_its_sizes():
    """Without a branch the form still runs at another batch size, though the next segment reads a size made in it."""
    form = traced()
    model = Sizes().double().eval()
    model.load_state_dict(form.state)
    x = torch.randn(5, 4, dtype=torch.float64)
    h = model.stem(x)
    h = h + torch.tanh(model.a(h)) + torch.relu(model.b(h))
    torch.testing.assert_close(form.without(1)(x), model.head(model.skip(h)), rtol=1e-13, atol=1e-13)
    h = model.stem(x)
    h = model.skip(h) + torch.relu(model.c(h))
    torch.testing.assert_close(form.without(0)(x), model.head(h), rtol=1e-13, atol=1e-13)


class Shared(nn.Module):
    """A block on the sum over the batch, and behind it something for each example again: only x knows how many."""

    def __init__(self):
        super().__init__()
        self.stem, self.a, self.head = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        h = self.stem(x).sum(0)
        h = h + torch.tanh(self.a(h))
        return self.head(h.expand(x.shape[0], 6)) / x.shape[0]


def test_a_stream_is_read_for_its_size_alone():
    torch.manual_seed(0)
    model = Shared().double().eval()
    form = unbraid.trace(model, torch.randn(3, 4, dtype=torch.float64))
    stem, branch, head = (step for step in form.graph.steps if isinstance(step, Segment))
    assert (stem.size_only, branch.size_only, head.size_only) == (set(), set(), {"x"})
    assert head.inputs[-1] == "x"
    for size in (1, 2, 7):
        x = torch.randn(size, 4, dtype=torch.float64)
        torch.testing.assert_close(form(x), model(x), rtol=1e-13, atol=1e-13)


class Weights(nn.Module):
    """Branches without modules of their own."""

    def __init__(self):
        super().__init__()
        self.u, self.v = nn.Parameter(torch.randn(6, 6)), nn.Parameter(torch.randn(6, 6))
        self.deep = nn.ModuleDict({"inner": nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))})

    def forward(self, x):
        x = x + torch.relu(x @ self.u) + torch.tanh(x @ self.v)
        return x + self.deep["inner"](x)


def test_branches_are_named_by_their_modules_or_weights():
    form = unbraid.trace(Weights().eval(), torch.randn(3, 6))
    assert [(block.name, block.branches) for block in form.blocks] == [
        ("u+v", ("u", "v")),
        ("deep.inner", ("deep.inner",)),
    ]


class Experts(nn.Module):
    """Each row goes to one expert: how many rows each gets is counted from the data, and read by all of them."""

    def __init__(self):
        super().__init__()
        self.router, self.experts = nn.Linear(4, 3), nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

    def forward(self, x):
        which = self.router(x).argmax(-1)
        order, counts = which.argsort(), nn.functional.one_hot(which, 3).sum(0)
        sizes = counts.tolist()
        for size in sizes:
            torch._check(size >= 0)
            torch._check(size <= x.shape[0])
        made = [expert(part) for expert, part in zip(self.experts, x[order].split(sizes), strict=True)]
        inner = [torch.tanh(part) + part * torch.sigmoid(self.router(part)[:, :1]) for part in made]
        return torch.zeros_like(x).index_add(0, order, torch.cat(inner))


class Routed(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = Experts(), Experts(), nn.Linear(4, 2)

    def forward(self, x):
        x = x + self.a(x)
        x = x + self.b(x)
        return self.head(x)


def test_sizes_that_are_counted_from_data_follow_the_data():
    torch.manual_seed(0)
    model = Routed().double().eval()
    x, other = 3 * torch.randn(2, 9, 4, dtype=torch.float64)
    form = unbraid.trace(model, x)
    assert form.tracer == "export"
    assert torch.allclose(form(other), model(other), rtol=0, atol=1e-12)
    # Without the first block other rows go to other experts of the second.
    routes = [model.b.router(y).argmax(-1) for y in (other, other + model.a(other))]
    assert not torch.equal(*routes)
    expected = model.head(other + model.b(other))
    assert torch.allclose(form.without(0)(other), expected, rtol=0, atol=1e-12)
