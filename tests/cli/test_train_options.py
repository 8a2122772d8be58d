"""`unbraid train` names shortcuts, scales and initialisations, and learns from a folder of images."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from cli._run import invoke
from unbraid import train


@pytest.mark.parametrize(
    ("options", "config"),
    [
        (["--shortcut", "half", "--scale", "0.5"], {"shortcut": "half", "scale": 0.5}),
        (["--scale", "fixup", "--order", "act linear act linear +"], {"scale": "fixup"}),
        (["--scale", "nf"], {"scale": "nf"}),
        (["--scale", "layerscale", "--init", "orthogonal"], {"scale": "layerscale", "init": "orthogonal"}),
        (["--init", "looks_linear", "--kind", "plain"], {"init": "looks_linear", "plain": True}),
    ],
)
def test_what_is_named_is_built(tmp_path, options, config):
    result = invoke(
        "train", str(tmp_path / "run"), "--depth", "2", "--epochs", "1", "--width", "10", "--json", *options
    )
    assert result.status == 0, result.stderr
    built = train.load(tmp_path / "run").network.config
    assert {key: built[key] for key in config} == config


def test_checkpointing_changes_no_weight(tmp_path):
    options = ["--depth", "7", "--epochs", "1", "--width", "10", "--json"]
    for name, more in (("a", []), ("b", ["--checkpointing"])):
        assert invoke("train", str(tmp_path / name), *options, *more).status == 0
    weights = [train.load(tmp_path / name).network.state_dict() for name in "ab"]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_what_cannot_go_together_is_said(tmp_path):
    options = ["--scale", "fixup", "--norm", "batch", "--order", "norm act linear +"]
    result = invoke("train", str(tmp_path / "run"), *options)
    assert result.status == 2
    assert 'scale="fixup" replaces norms, but norm="batch"' in result.stderr


def test_a_folder_of_images(tmp_path, monkeypatch):
    draws = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for index in range(10):
            pixels = draws.integers(0, 256, (4, 3, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pets" / name / f"{index}.png")
    monkeypatch.chdir(tmp_path)
    result = invoke("train", "run", "--data", "pets", "--depth", "1", "--epochs", "1", "--width", "8", "--json")
    assert result.status == 0, result.stderr
    assert json.loads(result.stdout)["data"] == "pets"
    assert train.load("run").network(torch.randn(2, 36)).shape == (2, 2)
    assert invoke("trace", "run").status == 0
