"""`unbraid.report`: every analysis of a model on one page, and what cannot be run named with its reason."""

import json
import sys

import pytest
import torch

import unbraid
from unbraid import nn
from unbraid.errors import DataError
from unbraid.reports import NAMES, Subject, page, to_dict
from unbraid.reports._analyses import ANALYSES
from unbraid.results import largest

F64 = torch.float64


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def labelled(*shape, examples=6, dtype=torch.float32):
    generator = seeded(1)
    inputs = torch.randn(examples, *shape, generator=generator).to(dtype)
    return [(inputs, torch.randint(10, (examples,), generator=generator)) for _ in range(2)]


@pytest.fixture(scope="module")
def five():
    network = nn.mlp(depth=5, width=12, norm=None, scale="1/sqrt(K)", generator=seeded(0)).eval().double()
    batches = labelled(40, dtype=F64)
    return unbraid.trace(network, batches[0][0]), batches


@pytest.fixture(scope="module")
def said(five):
    form, batches = five
    return to_dict(page(Subject.of(form, batches, "five")))


def braid(said):
    return next(part for part in said["sections"][0]["parts"] if part["kind"] == "braid")


def not_run(said):
    return {s["title"]: s["finding"] for s in said["sections"] if s["finding"].startswith("This was not run")}


def test_the_names_are_those_of_the_analyses():
    assert tuple(analysis.name for analysis in ANALYSES) == NAMES


def test_everything_runs_on_an_ordinary_network(said):
    assert not_run(said) == {}
    assert len(said["sections"]) == 1 + len(NAMES)
    assert all(section["finding"] for section in said["sections"])


def test_the_paths_of_the_page_sum_to_the_target(five, said):
    """Two ways of its own lead to the same numbers: the model's output, and the sums by length."""
    form, batches = five
    paths, lengths = braid(said)["paths"], braid(said)["lengths"]
    assert paths["complete"]
    assert len(set(paths["masks"])) == len(paths["masks"]) == 2**5
    target = form(batches[0][0]).max(1).values.mean()
    assert sum(paths["values"]) + paths["constants"] == pytest.approx(float(target), rel=1e-10)
    assert [abs(value) for value in paths["values"]] == sorted(map(abs, paths["values"]), reverse=True)
    for length, value in enumerate(lengths["values"]):
        chosen = [v for mask, v in zip(paths["masks"], paths["values"], strict=True) if mask.count("0") == length]
        assert len(chosen) == int(lengths["counts"][length])
        assert sum(chosen) == pytest.approx(value, rel=1e-9, abs=1e-12)


def test_what_a_block_is_worth_is_what_its_lesion_costs(five, said):
    form, batches = five
    measures = {measure["title"]: measure["values"] for measure in braid(said)["measures"]}

    def loss(model):
        return torch.stack([torch.nn.functional.cross_entropy(model(x), y) for x, y in batches]).mean()

    for block in range(5):
        change = float(loss(form.without(block)) - loss(form))
        assert measures["Loss without it, change"][block] == pytest.approx(change, rel=1e-9)
    parts = unbraid.gradient_parts(form, batches[0][0], target=largest)
    assert measures["Gradient through it"] == pytest.approx([100 * share for share in parts.signed.tolist()])
    assert len(measures["Size of its term"]) == 5


def test_without_labels_the_models_own_predictions_stand_for_them(five):
    form, batches = five
    unlabelled = to_dict(page(Subject.of(form, [(x, None) for x, _ in batches], "five"), skip={"orders", "lens"}))
    own = [(x, form(x).argmax(1)) for x, _ in batches]
    same = to_dict(page(Subject.of(form, own, "five"), skip={"orders", "lens"}))
    assert braid(unlabelled)["measures"] == braid(same)["measures"]
    lesions = next(s for s in unlabelled["sections"] if s["title"] == "Lesions")
    assert "No labels were given" in lesions["parts"][0]["text"]


def test_an_iterator_of_batches_is_read_once_and_kept(five, said):
    form, batches = five
    again = to_dict(page(Subject.of(form, iter(batches), "five")))
    assert braid(again) == braid(said)


def test_a_long_network_shows_its_largest_paths(monkeypatch):
    monkeypatch.setattr(sys.modules["unbraid.reports._analyses"], "_LISTED", 8)
    network = nn.mlp(depth=14, width=8, norm=None, scale="1/sqrt(K)", generator=seeded(0)).eval().double()
    batches = labelled(40, dtype=F64)
    form = unbraid.trace(network, batches[0][0])
    wanted = {"terms", "spectrum", "values", "paths"}
    found = braid(to_dict(page(Subject.of(form, batches, "long"), skip=set(NAMES) - wanted)))
    assert not found["paths"]["complete"]
    assert len(found["paths"]["masks"]) == 8
    masks = torch.tensor([["·0".index(letter) - 1 for letter in mask] for mask in found["paths"]["masks"]])
    along = unbraid.paths.chosen_paths(form, batches[0][0], masks=masks, target=largest)
    assert along.values.mean(1).tolist() == pytest.approx(found["paths"]["values"], rel=1e-9)
    counts = [int(count) for count in found["lengths"]["counts"]]
    assert counts == form.path_counts()


def test_stages_are_runs_of_one_shape():
    images = labelled(1, 16, 16)
    network = nn.conv2d(layers=20, inputs=1, generator=seeded(0)).eval()
    form = unbraid.trace(network, images[0][0])
    found = braid(to_dict(page(Subject.of(form, images, "conv"), skip=NAMES)))
    assert [(stage["first"], stage["last"]) for stage in found["stages"]] == [(0, 2), (3, 5), (6, 8)]
    assert found["paths"] is None
    assert found["measures"] == []
    assert [block["skip"] for block in found["blocks"]].count("projection") == 2


def test_a_language_model_with_two_branches_a_block():
    network = nn.transformer(
        depth=2, vocabulary=11, positions=5, classes=11, width=8, heads=2, readout="each", generator=seeded(0)
    ).eval()
    ids = torch.randint(11, (3, 5), generator=seeded(1))
    form = unbraid.trace(network, ids)
    found = to_dict(page(Subject.of(form, [(ids, ids)], "language")))
    assert list(not_run(found)) == ["Shattering: neighbouring inputs"]
    assert "tokens have nothing in between" in not_run(found)["Shattering: neighbouring inputs"]


def test_a_plain_network_has_a_page_too():
    network = nn.mlp(depth=3, width=12, norm=None, generator=seeded(0)).plain().eval()
    batches = labelled(40)
    form = unbraid.chain(network, batches[0][0], layers=["layers"])
    found = to_dict(page(Subject.of(form, batches, "plain")))
    assert braid(found)["lengths"]["counts"][-1] == "1"
    assert "Other orders" not in not_run(found)


def test_one_analysis_that_fails_does_not_cost_the_page(five):
    form, batches = five

    def loss(output, labels):
        raise ValueError("this loss takes nothing")

    found = to_dict(page(Subject.of(form, batches, "five", loss=loss)))
    assert set(not_run(found)) == {"Lesions", "Other orders", "Signal propagation", "Gradients of examples"}
    assert "this loss takes nothing" in not_run(found)["Lesions"]


def test_what_is_wrong_is_said_before_the_work(five, tmp_path):
    form, batches = five
    with pytest.raises(ValueError, match=r'no analysis "spectra" to skip; there are terms, lens, spectrum'):
        unbraid.report(form, batches, path=tmp_path / "a.html", skip={"spectra"})
    with pytest.raises(ValueError, match=r"ends in \.html"):
        unbraid.report(form, batches, path=tmp_path / "a.pdf", step=pytest.fail)
    with pytest.raises(DataError, match="there was none"):
        unbraid.report(form, [], path=tmp_path / "a.html")
    assert list(tmp_path.iterdir()) == []


def test_the_function_writes_the_page_and_its_numbers(five, tmp_path):
    form, batches = five
    steps = []
    path = unbraid.report(
        form, batches, path=str(tmp_path / "a.html"), name="five", target=lambda out: out[:, 3], step=steps.append
    )
    assert path == tmp_path / "a.html"
    assert steps == [analysis.title for analysis in ANALYSES]
    found = json.loads((tmp_path / "report.json").read_text())
    assert braid(found)["target"] == "the target"
    assert "target=target" in json.dumps(found)
    assert "results.largest" not in json.dumps([s["parts"] for s in found["sections"] if s["title"] == "Single paths"])
    whole = braid(found)["paths"]["target"]
    assert whole == pytest.approx(float(form(batches[0][0])[:, 3].mean()), rel=1e-10)
    assert path.stat().st_size < 8_000_000
