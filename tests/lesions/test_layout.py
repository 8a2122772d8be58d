"""Sweeps lay images out with channels last where that changes no number, and as the model does where it would."""

import pytest
import torch
from torch import nn

from unbraid import lesion, reorderings, trace
from unbraid.form import load
from unbraid.graph.state import joined
from unbraid.sweep import _sweep, _variant_group
from unbraid.walk import weights_channels_last


class Images(nn.Module):
    """Three blocks of convolutions; `ending` makes a vector of each image."""

    def __init__(self, ending, inner=None):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))
        self.head = nn.Linear(4 * 5 * 6, 7)
        self.ending, self.inner = ending, inner

    def forward(self, x):
        x = self.stem(x)
        for number, block in enumerate(self.blocks):
            h = torch.tanh(block(x))
            x = x + (self.inner(h) if self.inner and number == 1 else h)
        return self.head(self.ending(x))


def flat(h):
    return h.flatten(1)


def viewed(h):
    return h.view(h.shape[0], -1)  # there is no such view of channels last: a form reads it as a reshape


def read_in_order(h):
    return torch.as_strided(h, h.shape, (4 * 5 * 6, 5 * 6, 6, 1))  # other numbers where they lie otherwise, no error


@torch.library.custom_op("unbraid_tests::opaque", mutates_args=())
def opaque(h: torch.Tensor) -> torch.Tensor:
    """What is not torch's own may read numbers in the order of memory, too."""
    return torch.as_strided(h, h.shape, (4 * 5 * 6, 5 * 6, 6, 1)).clone()


@opaque.register_fake
def _(h):
    return torch.empty_like(h)


def size(output, labels):
    return output.square().mean()


class Pictures(nn.Module):
    """Two blocks of convolutions, and images as outputs."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 3)
        self.blocks = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = x + torch.tanh(block(x))
        return self.head(x)


class Mixed(nn.Module):
    """Six blocks; after the third the usual order in memory comes back."""

    def __init__(self, inner):
        super().__init__()
        self.stem, self.inner = nn.Conv2d(3, 4, 3, padding=1), inner
        self.blocks = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(6))

    def forward(self, x):
        x = self.stem(x)
        for number, block in enumerate(self.blocks):
            h = self.inner(x) if self.inner and number == 3 else x
            x = x + torch.tanh(block(h))
            if number == 2:
                x = torch.tanh(x).clone(memory_format=torch.contiguous_format)
        return x.mean((2, 3))


def alone(form, x):
    with torch.no_grad():
        return [float(size(form.without(k)(x), None)) for k in range(len(form.blocks))]


def traced(*parts):
    torch.manual_seed(0)
    x = torch.randn(4, 3, 5, 6, dtype=torch.float64)
    return trace(Images(*parts).double().eval(), x), x


@pytest.fixture
def laid(monkeypatch):
    """Whether the weights of convolutions had channels last, in each run of variants."""
    found, before = [], _variant_group.run_variants

    def run(merged, order, state, *rest):
        found.append(state["stem.weight"].is_contiguous(memory_format=torch.channels_last))
        return before(merged, order, state, *rest)

    monkeypatch.setattr(_variant_group, "run_variants", run)
    return found


@pytest.mark.parametrize(
    ("parts", "tries"),
    [
        ((flat,), [True]),
        ((viewed,), [True]),
        ((flat, read_in_order), [False]),
        ((flat, opaque), [False]),
    ],
    ids=["as it is", "a view", "strides", "not torch's own"],
)
@pytest.mark.parametrize("room", [None, 4, 8])
def test_lesions_are_those_of_the_form_alone(parts, tries, room, laid):
    form, x = traced(*parts)
    study = lesion(form, [(x, None), (x[:2], None)], size, max_batch=room)
    with torch.no_grad():
        wanted = [
            (4 * float(size(f(x), None)) + 2 * float(size(f(x[:2]), None))) / 6 for f in map(form.without, (0, 1, 2))
        ]
    assert study.metrics == pytest.approx(wanted, rel=1e-12)
    assert study.stacked
    assert laid == [*tries, tries[-1]]  # what failed on the first batch is not tried on the second


def test_the_comparison_is_with_the_model_as_it_is(monkeypatch, laid):
    """Other weights in place of those laid out anew: the sweep notices, and takes the model's own."""
    form, x = traced(flat)

    def wrong(graph, state):
        return joined(state, {"blocks.1.weight": 1.001 * state["blocks.1.weight"]})

    monkeypatch.setattr(_sweep, "weights_channels_last", wrong)
    study = lesion(form, [(x, None)], size)
    assert study.metrics == pytest.approx(alone(form, x), rel=1e-12)
    assert len(laid) == 2
    monkeypatch.setattr(_variant_group.VariantGroup, "_same", lambda *arguments: True)
    assert lesion(form, [(x, None)], size).metrics != pytest.approx(alone(form, x), rel=1e-6)


def test_metrics_see_outputs_as_the_model_lays_them_out(laid):
    torch.manual_seed(0)
    form = trace(Pictures().double().eval(), torch.randn(4, 3, 5, 6, dtype=torch.float64))
    x = torch.randn(4, 3, 5, 6, dtype=torch.float64)
    study = lesion(form, [(x, None)], lambda output, labels: output.view(len(output), -1).square().mean())
    assert study.metrics == pytest.approx(alone(form, x), rel=1e-12)
    assert laid == [True]


@pytest.mark.parametrize("room", [None, 4, 16])
def test_orders_in_which_layouts_mix(room):
    """Between two blocks the usual order comes back, so that a block meets either, as blocks are swapped."""
    torch.manual_seed(0)
    x = torch.randn(4, 3, 5, 6, dtype=torch.float64)
    for inner in (None, opaque):
        form = trace(Mixed(inner).double().eval(), x)
        study = reorderings(form, [(x, None)], size, swaps=[1, 2], repeats=6, max_batch=room)
        with torch.no_grad():
            wanted = [float(size(form.reorder(order)(x), None)) for order in study.orders]
        assert study.metrics == pytest.approx(wanted, rel=1e-12)


def test_only_weights_of_image_convolutions_are_laid_out_anew():
    form, _ = traced(flat)
    state = weights_channels_last(form.graph, form.state)
    changed = {name for name in form.state if state[name] is not form.state[name]}
    assert changed == {"stem.weight", *(f"blocks.{k}.weight" for k in range(3))}
    assert all(state[name].equal(form.state[name]) for name in form.state)
    assert form.state["stem.weight"].is_contiguous()  # the model's own is as it was


def test_a_model_without_images_keeps_its_tensors():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True).eval()
    form = trace(layer, torch.randn(2, 5, 8))
    assert weights_channels_last(form.graph, form.state) is form.state


def test_weights_in_files_stay_there(tmp_path):
    form, _ = traced(flat)
    form.save(tmp_path / "form")
    streamed = load(tmp_path / "form", stream=True)
    assert weights_channels_last(streamed.graph, streamed.state) is streamed.state
