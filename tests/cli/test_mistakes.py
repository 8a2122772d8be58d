"""What strangers' hands do to the command: wrong sizes, closed and narrow outputs, numbers without measure."""

import os
import subprocess
import sys

import pytest

from cli._run import invoke
from marks import slow

FACTORY = """
import torch
from torch import nn

class Vision(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.conv, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 2)

    def forward(self, x):
        assert x.shape[-1] == 16, "a size of its own"
        x = self.stem(x)
        x = x + torch.relu(self.conv(x))
        return self.head(x.mean((2, 3)))

def vision():
    torch.manual_seed(0)
    return Vision(), torch.randn(2, 3, 16, 16)

def red():
    torch.manual_seed(0)
    block = nn.Module()
    block.add_module("\\x1b[31mred", nn.Linear(6, 6))
    block.add_module("plain", nn.Linear(6, 6))
    class Red(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = block
        def forward(self, x):
            for layer in self.inner.children():
                x = x + torch.tanh(layer(x))
            return x
    return Red(), torch.randn(3, 6)
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder of images 24 high and wide, and a model that takes those of 16."""
    image = pytest.importorskip("PIL.Image")
    folder = tmp_path_factory.mktemp("here")
    (folder / "model.py").write_text(FACTORY)
    for kind in ("cat", "dog"):
        (folder / "images" / kind).mkdir(parents=True)
        for number in range(6):
            image.effect_noise((24, 24), 50).convert("RGB").save(folder / "images" / kind / f"{number}.png")
    return folder


@pytest.mark.parametrize("verb", [["prune", "--drop", "0"], ["lesion"], ["paths"]])
def test_images_of_another_size_are_the_users_and_size_scales_them(here, verb):
    model, images = f"{here / 'model.py'}:vision", str(here / "images")
    wrong = invoke(verb[0], model, *verb[1:], "--data", images)
    assert (wrong.status, wrong.stdout) == (2, "")
    assert wrong.stderr.count("\n") == 1
    assert "does not take the inputs of images, [2, 3, 24, 24]" in wrong.stderr
    assert "t was loaded with inputs of [2, 3, 16, 16]. Give --size 16,16 to scale the images" in wrong.stderr
    assert invoke(verb[0], model, *verb[1:], "--data", images, "--size", "16").status == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--data", "mnist1d"], "loaded with inputs of [2, 3, 16, 16]. Give --input-shape 2,40 where the model takes"),
        (["--data", "mnist1d", "--size", "16"], 'a size scales the images of a folder; "mnist1d" is none'),
        (
            ["--data", "images", "--size", "16,16,16"],
            "--size is HEIGHT,WIDTH, or one number for both, such as 224; got",
        ),
        (["--data", "images", "--size", "0"], '--size is HEIGHT,WIDTH, or one number for both, such as 224; got "0".'),
    ],
)
def test_other_mistakes_of_size_are_one_line(here, monkeypatch, arguments, said):
    monkeypatch.chdir(here)
    result = invoke("lesion", "model.py:vision", *arguments)
    assert (result.status, result.stdout) == (2, "")
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


def test_numbers_without_measure_are_one_line(tmp_path):
    (tmp_path / "wide.toml").write_text("width = 1000000000\nepochs = 1\n")
    (tmp_path / "seeds.toml").write_text(f"seeds = [{2**70}]\n")
    for arguments, said in [
        (["sweep", tmp_path / "wide.toml"], "it does not fit into memory: "),
        (["train", tmp_path / "run", "--width", "1000000000"], "it does not fit into memory: "),
        (["sweep", tmp_path / "seeds.toml"], f"seeds are whole numbers from 0 to 2^63 − 1; got {2**70}"),
        (["train", tmp_path / "run", "--seed", 2**70], "--seed"),
    ]:
        result = invoke(*map(str, arguments))
        assert (result.status, result.stdout) == (2, ""), arguments
        assert said in result.stderr
        assert result.stderr.count("\n") == 1, result.stderr


def test_control_characters_in_a_name_reach_no_terminal_and_no_page(here, tmp_path):
    model = f"{here / 'model.py'}:red"
    result = invoke("trace", model)
    assert "\x1b" not in result.stdout
    assert r"inner.\x1b[31mred" in result.stdout
    assert invoke("trace", model, "--json").stdout.count(r"inner.\\x1b[31mred") == 2
    page = tmp_path / "page.html"
    assert invoke("report", model, "-o", str(page), "--skip", "lesions,orders,signal,examples,neighbours").status == 0
    assert "\x1b" not in page.read_text(encoding="utf-8")


def _shell(here, text, **environment):
    command = f"{sys.executable} -m unbraid"
    return subprocess.run(
        ["bash", "-c", text.format(command, model=f"{here / 'model.py'}:vision")],
        capture_output=True, check=False, env={**os.environ, "PYTHONWARNINGS": "", **environment},
    )  # fmt: skip


@pytest.mark.parametrize("option", ["", slow(" --json")])
def test_an_output_that_is_closed_is_one_line(here, option):
    done = _shell(here, "{} trace {model}" + option + " >&-")
    assert done.returncode == 2
    assert done.stderr.decode() == "unbraid: standard output is closed, so the result has nowhere to go.\n"
    done = _shell(here, "{} trace {model}" + option + " | true; exit ${{PIPESTATUS[0]}}")
    assert done.returncode == 2
    assert done.stderr.decode() == "unbraid: standard output was closed before all of the result was written.\n"


def test_help_that_nobody_gets_is_no_success(here):
    for asked in ("--help", "trace --help", "--version"):
        done = _shell(here, "{} " + asked + " >&-")
        assert done.returncode == 2
        assert done.stderr.decode() == "unbraid: standard output is closed, so the result has nowhere to go.\n"


@pytest.mark.slow
def test_an_output_of_ascii_gets_letters_that_it_has(here):
    plain, ascii_ = (_shell(here, "{} trace {model}", PYTHONIOENCODING=name) for name in ("utf-8", "ascii"))
    assert plain.returncode == ascii_.returncode == 0
    assert "batch×4×16×16" in plain.stdout.decode("utf-8")
    assert "batchx4x16x16" in ascii_.stdout.decode("ascii")
    done = _shell(here, "{} trace {model} --json", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert done.stdout.decode("ascii").startswith("{")
