"""Sweeps lay images out with channels last where that changes no number, and as the model does where it would."""

import pytest
import torch
from torch import nn

from unbraid import lesion, trace
from unbraid.form import _part
from unbraid.walk import channels_last


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
    return h.view(h.shape[0], -1)  # there is no such view of channels last


def read_in_order(h):
    return torch.as_strided(h, h.shape, (4 * 5 * 6, 5 * 6, 6, 1))  # other numbers where they lie otherwise, no error


def size(output, labels):
    return output.square().mean()


def traced(*parts):
    torch.manual_seed(0)
    x = torch.randn(4, 3, 5, 6, dtype=torch.float64)
    return trace(Images(*parts).double().eval(), x), x


@pytest.fixture
def laid(monkeypatch):
    """Whether the weights of convolutions had channels last, in each run of variants."""
    found, before = [], _part.run_variants

    def run(merged, order, state, *rest):
        found.append(state["stem.weight"].is_contiguous(memory_format=torch.channels_last))
        return before(merged, order, state, *rest)

    monkeypatch.setattr(_part, "run_variants", run)
    return found


@pytest.mark.parametrize(
    ("parts", "tries"),
    [((flat,), [True]), ((viewed,), [True, False]), ((flat, read_in_order), [True, False])],
    ids=["as it is", "no view", "other numbers"],
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


def test_a_check_that_sees_nothing_would_let_other_numbers_pass(monkeypatch):
    """The same without the comparison: so it is the comparison that the tests above rely on."""
    form, x = traced(flat, read_in_order)
    monkeypatch.setattr(_part.Part, "_same", lambda *arguments: True)
    study = lesion(form, [(x, None)], size)
    with torch.no_grad():
        wanted = [float(size(form.without(k)(x), None)) for k in range(3)]
    assert study.metrics != pytest.approx(wanted, rel=1e-3)


def test_only_weights_of_image_convolutions_are_laid_out_anew():
    form, _ = traced(flat)
    state = channels_last(form.graph, form.state)
    changed = {name for name in form.state if state[name] is not form.state[name]}
    assert changed == {"stem.weight", *(f"blocks.{k}.weight" for k in range(3))}
    assert all(state[name].equal(form.state[name]) for name in form.state)
    assert form.state["stem.weight"].is_contiguous()  # the model's own is as it was


def test_a_model_without_images_keeps_its_tensors():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True).eval()
    form = trace(layer, torch.randn(2, 5, 8))
    assert channels_last(form.graph, form.state) is form.state


def test_weights_in_files_stay_there(tmp_path):
    from unbraid import ResidualForm

    form, _ = traced(flat)
    form.save(tmp_path / "form")
    streamed = ResidualForm.load(tmp_path / "form", stream=True)
    assert channels_last(streamed.graph, streamed.state) is streamed.state
