"""What a form says of places: names of blocks and branches, sources, what is shared; and what is no block."""

import pytest
import torch
from torch import nn

import unbraid
from unbraid.graph import Segment


class Attention(nn.Module):
    """All its weights lie two modules further down."""

    def __init__(self):
        super().__init__()
        self.inner = nn.ModuleDict({"proj": nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))})

    def forward(self, x):
        return self.inner["proj"](x)


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.by = nn.Parameter(torch.ones(4))

    def forward(self, x):
        return self.by * x


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.attn, self.fc, self.act = nn.LayerNorm(4), Attention(), nn.Linear(4, 4), nn.GELU()
        self.mlp = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
        self.first, self.second, self.scale = nn.Tanh(), nn.Softplus(), Scale()

    def forward(self, x):
        x = x + self.attn(self.norm(x))
        x = x + self.act(self.fc(x))
        x = x + self.mlp(x)
        return x + self.scale(self.second(self.first(x)))


class Layers(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.layers = nn.Linear(4, 4), nn.ModuleList(Layer() for _ in range(2))

    def forward(self, x):
        x = self.stem(x)
        for layer in self.layers:
            x = layer(x)
        return x


def traced(model, *inputs):
    torch.manual_seed(0)
    return unbraid.trace(model.double().eval(), *inputs)


def x(*sizes):
    return torch.randn(*(sizes or (3, 4)), dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_a_block_has_the_name_of_the_first_module_that_holds_its_weights():
    """Neither of a norm before them nor of an activation behind; without weights of a matrix, of its last module."""
    form = traced(Layers(), (x(),))
    parts = ("attn", "fc", "mlp", "scale")
    assert [block.name for block in form.blocks] == [f"layers.{i}.{part}" for i in range(2) for part in parts]
    assert [block.parameters for block in form.blocks] == 2 * [8 + 20 + 20, 20, 20, 4]


class Masked(nn.Module):
    """A float mask enters branches alone: beside a stem, and before a block within a branch."""

    def __init__(self):
        super().__init__()
        self.stem, self.a, self.b, self.c = (nn.Linear(4, 4) for _ in range(4))

    def forward(self, x, mask):
        h = self.stem(x)
        h = h + torch.tanh(self.a(h)) * mask
        inner = torch.tanh(self.b(h)) * mask
        return h + self.b(inner + torch.tanh(self.c(inner)))


def test_what_enters_branches_alone_is_no_source():
    form = traced(Masked(), (x(), x()))
    assert (len(form.blocks), form.sources) == (2, ("x",))
    assert len(form.all_blocks) == 3


class Token(nn.Module):
    """The trunk begins with a learned token, which carries no data."""

    def __init__(self):
        super().__init__()
        self.token, self.a, self.b = nn.Parameter(torch.ones(1, 4)), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        h = self.token.expand(x.shape[0], -1) + self.a(x)
        return h + torch.tanh(self.b(h))


def test_a_learned_token_is_no_source():
    form = traced(Token(), (x(),))
    assert (len(form.blocks), form.sources) == (1, ("x",))
    assert not form.refusals  # what carries no data is nobody's skip


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.common, self.a, self.b = (nn.Linear(4, 4) for _ in range(3))

    def forward(self, x):
        y = torch.tanh(self.common(x))
        return x + torch.tanh(self.a(y)) + torch.relu(self.b(y))


def test_what_two_branches_share_is_in_no_single_one():
    segments = [step for step in traced(Shared(), (x(),)).graph.steps if isinstance(step, Segment)]
    assert [(s.role, s.block, s.branch) for s in segments] == [
        ("branch", 0, None),
        ("branch", 0, 0),
        ("branch", 0, 1),
    ]


class Halves(nn.Module):
    """After a block a coupling: some channels are added to what is computed from others, those from `begin` on."""

    def __init__(self, begin, steps):
        super().__init__()
        self.stem, self.fc, self.begin, self.steps = nn.Linear(8, 8), nn.Linear(4, 4), begin, steps

    def forward(self, x):
        h = x + torch.tanh(self.stem(x))
        skip = h[:, :4]
        for _ in range(self.steps):
            skip = skip.unsqueeze(1).squeeze(1)
        return skip + torch.tanh(self.fc(h[:, self.begin : self.begin + 4]))


def test_disjoint_parts_of_a_tensor_make_no_block_and_overlapping_ones_do():
    for steps in (0, 1):
        apart, overlap = (traced(Halves(begin, steps), (x(3, 8),)) for begin in (4, 2))
        assert (len(apart.blocks), len(overlap.blocks)) == (1, 2)
        (refusal,) = apart.refusals
        assert refusal.reason == "the operands are computed from disjoint parts of the tensor that they share"


class Reused(nn.Module):
    """The sum of two functions is added to the stream, and read once more."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = (nn.Linear(4, 4) for _ in range(3))

    def forward(self, x):
        both = torch.tanh(self.a(x)) + torch.relu(self.b(x))
        return self.head(x + both) * both


def test_a_sum_that_someone_else_reads_stays_one_branch():
    (block,) = traced(Reused(), (x(),)).blocks
    assert len(block.branches) == 1


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)

    def forward(self, x, unused):
        return x + torch.tanh(self.a(x))


def test_an_input_that_nobody_reads_stays_an_input():
    form = traced(Unused(), (x(), x(3, 2)))
    assert "unused" in form.graph.streams
    assert torch.equal(form(x(5, 4), x(5, 2)), form(x(5, 4), x(5, 2) + 1))


class Chunks(nn.Module):
    """Two results of one operator begin a trunk each; the second trunk has two blocks."""

    def __init__(self):
        super().__init__()
        self.stem, self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        first, second = torch.tanh(self.stem(x)).split(4, -1)
        first = first + torch.tanh(self.a(first))
        between = second + torch.tanh(self.b(second))
        return torch.cat([between + torch.tanh(self.c(between)), first], -1)


def test_several_results_of_one_operator_come_from_one_segment():
    form = traced(Chunks(), (x(),))
    segments = [step for step in form.graph.steps if isinstance(step, Segment)]
    assert [len(segment.outputs) for segment in segments if segment.role == "trunk"] == [2, 1]
    assert len(form.blocks) == 3
    assert form.end == form.output  # where the last sum and the first meet
    assert form(x(7, 4)).shape == (7, 8)


class Shares(nn.Module):
    """Two results of one operator, each read inside one branch alone."""

    def __init__(self):
        super().__init__()
        self.side, self.a, self.b = nn.Linear(4, 8), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x, y):
        one, two = torch.tanh(self.side(y)).split(4, -1)
        x = x + torch.tanh(self.a(x)) * one
        return x + torch.tanh(self.b(x)) * two


def test_results_of_one_operator_inside_two_branches():
    model = Shares()
    form = traced(model, (x(), x()))
    assert [block.skip for block in form.blocks] == ["identity"] * 2
    args = x(7, 4), x(7, 4).flip(0)
    torch.testing.assert_close(form(*args), model(*args), rtol=1e-13, atol=1e-13)


class Chosen(nn.Module):
    """A branch needs the number of rows that a condition chooses, a size that no input has."""

    def __init__(self, inside):
        super().__init__()
        self.inside, self.head, self.a = inside, nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        h = self.head(x)
        rows = h[h[:, 0] > -1e9]
        branch = torch.tanh(self.a(rows)).sum(0).expand_as(h) if self.inside else torch.tanh(self.a(h))
        return h + branch / torch.ones(rows.shape[0], dtype=h.dtype).sum()


@pytest.mark.parametrize(("inside", "streams"), [(True, 4), (False, 5)], ids=["read anyway", "for its size alone"])
def test_a_size_that_no_input_has(inside, streams):
    """The rows are a stream of their own only where the branch does not compute them."""
    model = Chosen(inside)
    form = traced(model, (x(),))
    assert len(form.graph.streams) == streams
    torch.testing.assert_close(form(x(7, 4)), model(x(7, 4)), rtol=1e-13, atol=1e-13)


class Inner(nn.Module):
    """A branch reads the size of a tensor that the stem makes and keeps to itself; the head does not."""

    def __init__(self):
        super().__init__()
        self.stem, self.a, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        wide = torch.cat([x, x, x[:1]])
        h = self.stem(wide)[: x.shape[0]]
        h = h + torch.tanh(self.a(h)) / torch.ones(wide.shape[0], dtype=h.dtype).sum()
        return self.head(h)


def test_a_size_of_an_inner_tensor_is_read_where_it_is_needed():
    model = Inner()
    form = traced(model, (x(),))
    for size in (2, 7):
        torch.testing.assert_close(form(x(size, 4)), model(x(size, 4)), rtol=1e-13, atol=1e-13)
