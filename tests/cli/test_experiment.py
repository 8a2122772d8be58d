"""The comparison behind `unbraid report`."""

import json

import pytest

from cli._run import invoke
from unbraid import data
from unbraid.cli._experiment import compare
from unbraid.reports import sections
from unbraid.train import Recipe

TITLES = [
    "The network",
    "The terms",
    "The lens",
    "The gradient by path length",
    "The target by path length",
    "Single paths",
    "Lesions",
    "Other orders",
    "Signal propagation",
    "Gradients of examples",
    "Shattering: neighbouring inputs",
]


@pytest.fixture(scope="module")
def done():
    steps = []
    comparison = compare(data.mnist1d(), [1, 2], [0], Recipe(epochs=1), steps.append)
    return comparison, steps


def test_every_kind_depth_and_epoch_is_told(done):
    comparison, steps = done
    assert [(trial.kind, trial.depth) for trial in comparison.trials] == [
        ("plain", 1), ("residual", 1), ("plain", 2), ("residual", 2)
    ]  # fmt: skip
    assert len(steps) == 4


def test_the_numbers_reach_the_sections(done):
    comparison, _ = done
    curves = comparison.curves()
    assert [curve.depths for curve in curves] == [(1, 2), (1, 2)]
    assert curves[1].errors[1] == (comparison.deepest.run.test_error,)
    table = sections.training(comparison.training()).parts[0]
    assert [row[5] for row in table.rows] == [trial.run.test_error for trial in comparison.trials]


def test_the_deepest_residual_network_is_taken_apart(done):
    comparison, _ = done
    assert (comparison.deepest.kind, comparison.deepest.depth) == ("residual", 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "mlp3"
    result = invoke("train", str(path), "--depth", "3", "--epochs", "1", "--width", "20")
    assert result.status == 0, result.stderr
    return path


def test_trace_prints_every_block(folder):
    data = json.loads(invoke("trace", str(folder), "--json").stdout)
    assert [block["name"] for block in data["blocks"]] == ["blocks.0", "blocks.1", "blocks.2"]
    text = invoke("trace", str(folder)).stdout
    assert all(block["name"] in text for block in data["blocks"])


def test_unravel_prints_every_term(folder):
    result = invoke("unravel", str(folder), "--examples", "5")
    assert result.status == 0, result.stderr
    assert all(name in result.stdout for name in ("input", "blocks.0", "blocks.1", "blocks.2"))


def test_paths_prints_the_spectrum_and_draws_it(folder, tmp_path):
    figure = tmp_path / "paths.svg"
    options = ["--data", "mnist1d", "--target", "3", "--examples", "6", "--per-length", "4"]
    result = invoke("paths", str(folder), *options, "-o", str(figure))
    assert result.status == 0, result.stderr
    assert "6 examples, class 3" in result.stdout
    assert [line.split()[:2] for line in result.stdout.splitlines()[3:7]] == [
        ["0", "1"],
        ["1", "3"],
        ["2", "3"],
        ["3", "1"],
    ]
    assert str(figure) in result.stderr
    assert figure.read_text().startswith("<?xml")


def test_paths_as_json_are_the_library_s_numbers(folder):
    from unbraid import gradient_spectrum, trace, train

    said = json.loads(
        invoke("paths", str(folder), "--target", "3", "--examples", "5", "--per-length", "2", "--json").stdout
    )
    network = train.load(folder).network
    x = data.mnist1d().flat().test.inputs[:5]
    found = gradient_spectrum(trace(network, (x,)), x, target=3)
    assert said["counts"] == [1, 3, 3, 1] == list(found.counts)
    assert said["norms"] == pytest.approx(found.norms.tolist(), rel=1e-5)
    assert said["examples"] == 5
    assert said["error"] < 1e-4
    # There is one path of length 0, so its sampled norm is that of the sum.
    assert said["sampled"][0] == pytest.approx(said["norms"][0], rel=1e-4)
    alone = json.loads(invoke("paths", str(folder), "--per-length", "0", "--json").stdout)
    assert alone["sampled"] is None
    assert alone["target"] == "the largest output"


@pytest.mark.slow
def test_paths_of_the_loss_on_labels(folder):
    from unbraid import mean_spectrum, trace, train

    options = ["--data", "mnist1d", "--target", "loss", "--examples", "5", "--per-length", "0", "--json"]
    said = json.loads(invoke("paths", str(folder), *options).stdout)
    test = data.mnist1d().flat().test
    x, labels = test.inputs[:5], test.labels[:5]
    found = mean_spectrum(trace(train.load(folder).network, (x,)), [(x, labels)])
    assert said["target"] == "the loss"
    assert said["norms"] == pytest.approx(found.norms.tolist(), rel=1e-5)


def test_paths_by_head(tmp_path):
    """A head is a branch: two ways through the block's attention, and its skip."""
    (tmp_path / "one.py").write_text(
        "import torch\n"
        "class Block(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.attention = torch.nn.MultiheadAttention(6, 2, batch_first=True)\n"
        "    def forward(self, h):\n"
        "        return h + self.attention(h, h, h, need_weights=False)[0]\n"
        "def build():\n"
        "    return Block(), torch.randn(2, 3, 6)\n"
    )
    options = ["--heads", "--per-length", "0", "--json"]
    result = invoke("paths", f"{tmp_path}/one.py:build", *options)
    assert result.status == 0, result.stderr
    assert json.loads(result.stdout)["counts"] == [1, 2]


def test_paths_refuses_a_class_that_is_not_there(folder):
    result = invoke("paths", str(folder), "--target", "10")
    assert result.status == 2
    assert "values below 10; 10 came" in result.stderr
    assert result.stdout == ""


def test_a_plain_network_is_refused_with_the_reason(tmp_path):
    path = tmp_path / "plain"
    invoke("train", str(path), "--depth", "2", "--epochs", "1", "--width", "20", "--kind", "plain")
    result = invoke("trace", str(path))
    assert result.status == 2
    assert result.stderr.count("\n") == 1
    assert "chain" in result.stderr


def test_a_report_on_one_model(folder, tmp_path):
    result = invoke("report", str(folder), "-o", str(tmp_path / "a.html"))
    assert (result.status, result.stdout) == (0, f"{tmp_path / 'a.html'}\n")
    said = json.loads((tmp_path / "report.json").read_text())
    assert [section["title"] for section in said["sections"]] == ["What was trained", *TITLES]
    assert "3 residual blocks and 8 paths" in said["sections"][1]["finding"]
    assert not any("was not run" in section["finding"] for section in said["sections"])
    assert "512 examples of the test part of mnist1d" in said["summary"]


@pytest.mark.slow
def test_a_report_leaves_out_what_is_not_wanted(folder, tmp_path):
    options = ("--skip", "lens,orders", "--data", "mnist1d", "--examples", "64", "-o", str(tmp_path / "a.html"))
    assert invoke("report", str(folder), *options).status == 0
    said = json.loads((tmp_path / "report.json").read_text())
    left_out = [s["title"] for s in said["sections"] if s["finding"] == "This was not run: it was left out."]
    assert left_out == ["The lens", "Other orders"]
    result = invoke("report", str(folder), "--skip", "lense", "-o", str(tmp_path / "b.html"))
    assert result.status == 2
    assert 'no analysis "lense" to skip; there are terms, lens' in result.stderr


def test_the_default_report(tmp_path):
    result = invoke("report", "--quick", "-o", str(tmp_path / "new" / "index.html"), "--json")
    assert result.status == 0, result.stderr
    assert result.stderr == "", "no bar where stderr is no terminal"
    said = json.loads(result.stdout)
    titles = [section["title"] for section in said["sections"]]
    assert titles == ["What was trained", "Depth: plain against residual", *TITLES]
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"index.html", "report.json"}
