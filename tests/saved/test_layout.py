"""A form that was saved and loaded computes the same bits, however the model's tensors lie in memory."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from networks import Chain, Residual
from unbraid import trace
from unbraid.form import load
from unbraid.saved._layout import PLAIN, Layout

SIZES = [(1, 128), (1, 33), (3, 40)]  # a row times a matrix is where kernels differ most


def _numbers(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def _transposed(tensor):
    return tensor.t().contiguous().t()


def _sliced(tensor):
    return torch.cat([tensor, tensor], 1)[:, : tensor.shape[1]]


def _shifted(by):
    def moved(tensor):
        raw = torch.empty(tensor.nbytes + 128, dtype=torch.uint8)
        begin = (by - raw.data_ptr()) % 64
        return raw[begin : begin + tensor.nbytes].view(tensor.dtype).view(tensor.shape).copy_(tensor)

    return moved


PLACES = {"plain": lambda t: t, "transposed": _transposed, "sliced": _sliced} | {
    f"at {by} bytes": _shifted(by) for by in (4, 8, 60)
}


def _model(width, place):
    linears = nn.Linear(width, width), nn.Linear(width, width)
    for linear in linears:
        linear.weight = nn.Parameter(place(_numbers(width, width)))
    return Chain(*(Residual(nn.Sequential(linear, nn.ReLU())) for linear in linears)).eval()


@pytest.mark.parametrize("place", PLACES)
def test_a_loaded_form_computes_the_same_bits(tmp_path, place):
    for rows, width in SIZES:
        x = _numbers(rows, width)
        model = _model(width, PLACES[place])
        form = trace(model, x)
        assert torch.equal(form(x), model(x))
        folder = form.save(tmp_path / f"{rows} {width}")
        for stream in (False, True):
            loaded = load(folder, stream=stream)
            assert torch.equal(loaded(x), model(x))
            again = load(loaded.save(tmp_path / "again"))
            assert torch.equal(again(x), model(x))


@pytest.mark.parametrize("place", [_transposed, _shifted(8)])
def test_tensors_that_lie_otherwise_give_other_bits(place):
    """Why it matters, and that the comparison above can fail: somewhere, on the machine where this was written."""
    differ = []
    for rows, width in SIZES:
        x, weight = _numbers(rows, width), _numbers(width, width)
        differ.append(not torch.equal(x @ place(weight).t(), x @ _shifted(0)(weight).t()))
    if not any(differ):
        pytest.skip("this machine's kernels round alike wherever tensors lie")


def test_weights_mapped_from_a_file_by_another_library(tmp_path):
    """As transformers reads them: the library leaves them at any multiple of 8 bytes."""
    x, model = _numbers(1, 128), _model(128, lambda t: t)
    save_file({"odd": torch.ones(2), **model.state_dict()}, tmp_path / "model.safetensors")
    mapped = {name: tensor for name, tensor in load_file(tmp_path / "model.safetensors").items() if name != "odd"}
    model.load_state_dict(mapped, assign=True)
    form = trace(model, x)
    loaded = load(form.save(tmp_path / "form"))
    assert torch.equal(loaded(x), model(x))
    for name, tensor in form.state.items():
        assert loaded.state[name].data_ptr() % 64 == tensor.data_ptr() % 64


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("kernel", [1, 3])
def test_channels_last_is_kept(tmp_path, layout, kernel):
    model = Chain(Residual(nn.Conv2d(8, 8, kernel, padding="same"))).to(memory_format=layout).eval()
    x = _numbers(2, 8, 6, 6).contiguous(memory_format=layout)
    loaded = load(trace(model, x).save(tmp_path / "form"))
    weight = model.blocks[0].branch.weight
    assert [tuple(t.stride()) for t in loaded.state.values() if t.shape == weight.shape] == [weight.stride()]
    assert torch.equal(loaded(x), model(x))


def test_what_is_plain_is_noted_as_such():
    assert Layout.of(torch.ones(3, 4)) == PLAIN
    assert Layout.of(torch.ones(3, 1).expand(3, 4)) == PLAIN  # its copy has places of its own
    assert Layout.of(torch.ones(4, 3).t()) == Layout((1, 3))
    assert Layout.of(torch.ones(1000, 3)[:, :1]) == Layout((3, 1))
    assert Layout.of(torch.ones(10, 100)[:, :1]) == PLAIN  # a hundred times its size
    assert Layout.of(torch.empty(0, 3).t()) == PLAIN
