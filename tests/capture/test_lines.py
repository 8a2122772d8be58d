"""`where` is the line of the addition itself, wherever that stands; lines are looked up in the tests' own source."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn

from networks import Chain, Does, lively, mlp, normal
from unbraid import NotResidualError, trace
from unbraid.form import load

X = normal(3, 6)
HERE = Path(__file__)


def line_of(mark: str, file: Path = HERE) -> str:
    """The only line of a file that ends in a mark."""
    (number,) = [n for n, line in enumerate(file.read_text().splitlines(), start=1) if line.endswith(f"# {mark}")]
    return f"{file.name}:{number}"


def added(x, y):
    return x + y  # function


class Processor:
    """An object that the module calls, as diffusers' attention processors."""

    def __call__(self, net, x):
        return torch.add(
            x,
            net.g(x),  # the call's first line counts
        )


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.f, self.g, self.processor = mlp(6), mlp(6), Processor()

    def in_a_method(self, x):
        return x + self.f(x)  # method

    def in_place(self, x):
        x = x * 1
        x[:, :4] += self.g(x)[:, :4]  # slice
        return x

    def forward(self, x):
        x = added(x, self.f(x))
        x = self.processor(self, self.in_a_method(x))
        x = (lambda h: h + self.g(h))(x)  # lambda
        with torch.no_grad():
            gate = torch.sigmoid(self.f(x))
        return self.in_place(x) * gate


@pytest.mark.parametrize("tracer", ["export", "dispatch"])
def test_the_addition_names_its_own_line(tracer, tmp_path):
    form = trace(lively(Network()), X, tracer=tracer)
    processor = int(line_of("the call's first line counts").partition(":")[2])
    lines = [line_of("function"), line_of("method"), "processor", line_of("lambda"), line_of("slice")]
    found = [block.where for block in form.blocks]
    assert int(found[2].partition(":")[2]) in range(processor - 2, processor + 2)  # Python 3.11 and later tell it apart
    assert [*found[:2], "processor", *found[3:]] == lines
    if tracer == "export":
        form.save(tmp_path / "form")
        assert [block.source for block in load(tmp_path / "form").blocks] == [b.source for b in form.blocks]


def test_a_layer_of_torch_names_torch_s_line():
    form = trace(lively(Chain(nn.TransformerEncoderLayer(6, 2, 12, batch_first=True))), normal(2, 3, 6))
    source = Path(nn.modules.transformer.__file__)
    for block in form.blocks:
        file, _, number = block.source.rpartition(":")
        assert file == str(source)
        assert "+" in "".join(source.read_text().splitlines()[int(number) - 1 : int(number) + 1])


def test_a_model_may_live_in_a_folder_called_torch(tmp_path):
    folder = tmp_path / "torch" / "nn"
    folder.mkdir(parents=True)
    file = folder / "network.py"
    file.write_text(
        "from torch import nn\n"
        "def helper(x, y):\n    return x + y  # here\n"
        "class Network(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n"
        "        self.f = nn.Sequential(nn.Linear(6, 6), nn.Tanh())\n"
        "    def forward(self, x):\n        return helper(x, self.f(x))\n"
    )
    spec = importlib.util.spec_from_file_location("network_in_torch", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (block,) = trace(lively(module.Network()), X).blocks
    assert block.source == f"{file}:3"
    assert block.where == line_of("here", file)


def test_a_refusal_names_the_line_too():
    def scores(net, x):
        return added(net.a(x), net.b(x))

    with pytest.raises(NotResidualError) as caught:
        trace(lively(Does(scores, a=nn.Linear(6, 2), b=nn.Linear(6, 2))), X)
    assert [refusal.where for refusal in caught.value.refusals] == [line_of("function")]


def test_an_addition_in_an_autocast_region_has_its_line_and_its_module():
    """torch traces such a region once more, from code that it has generated itself."""

    def inside(net, x):
        with torch.autocast("cpu", enabled=False):
            x = x + net.f(x)  # autocast
            return added(x, net.g(x))

    form = trace(lively(Chain(Does(inside, f=mlp(6), g=mlp(6)))), X)
    assert [block.where for block in form.blocks] == [line_of("autocast"), line_of("function")]
    assert [block.name for block in form.blocks] == ["blocks.0.f", "blocks.0.g"]
