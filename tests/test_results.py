"""Every result has a table, plain values, a figure, and a table for notebooks in which names cannot run."""

import functools
import importlib
import json
import math
from html.parser import HTMLParser

import matplotlib as mpl
import pandas
import pytest
import torch
from matplotlib.figure import Figure
from rich.table import Table

import unbraid
from draw._geometry import assert_readable
from kinds import mixes
from networks import Chain, Residual, lively, mlp, normal
from unbraid import data, gradients, paths, train
from unbraid.errors import UnbraidError
from unbraid.pruning import angular_distance, pruning
from unbraid.results import Result
from unbraid.results.rows import as_html, as_rows, fill

F32 = torch.float32


def mixed():
    """A form of hyper-connections, and its input."""
    case = mixes.CASES["dynamic, einsum"]
    return case.form, case.inputs


@pytest.fixture(scope="module")
def setting():
    network = lively(Chain(*(Residual(mlp(5)) for _ in range(3)), torch.nn.Linear(5, 3)), dtype=F32)
    x, labels = normal(6, 5, dtype=F32), torch.arange(6) % 3
    return unbraid.trace(network, x), x, [(x, labels)]


MAKE = {
    "GradientSpectrum": lambda form, x, _: unbraid.gradient_spectrum(form, x, target=1),
    "ValueSpectrum": lambda form, x, _: unbraid.value_spectrum(form, x, target=1),
    "MeanSpectrum": lambda form, _, batches: unbraid.mean_spectrum(form, batches),
    "GradientParts": lambda form, x, _: unbraid.gradient_parts(form, x, target=1, by="pair"),
    "Paths": lambda form, x, _: unbraid.all_paths(form, x, target=1),
    "Terms": lambda form, x, _: unbraid.unravel(form, x),
    "Attribution": lambda form, x, _: unbraid.attribute(form, x, target=1),
    "Lens": lambda form, x, _: unbraid.unravel(form, x).lens(),
    "Signal": lambda form, _, batches: unbraid.signal(form, batches),
    "SkipGain": lambda *_: gradients.skip_gain(*mixed()),
    "Coherence": lambda form, _, batches: gradients.example_coherence(form, batches),
    "Predictiveness": lambda form, _, batches: gradients.update_predictiveness(form, batches, (1e-3, 1e-1)),
    "Autocorrelation": lambda form, *_: gradients.input_autocorrelation(
        [lambda x: x.sin()], torch.linspace(-1, 1, 9)[:, None]
    ),
    "DerivativeChain": lambda form, x, _: unbraid.derivative_chain(form, x),
    "Diagnosis": lambda form, _, batches: unbraid.diagnose(form, batches),
    "ResidualForm": lambda form, *_: form,
    "LesionStudy": lambda form, _, batches: unbraid.lesion(form, batches, loss),
    "EdgeStudy": lambda form, x, _: unbraid.edges(form, x, x.flip(0), target=1),
    "PathEffect": lambda form, x, _: unbraid.path_effect(form, x, x.flip(0), ["input", "head"], target=1),
    "Faithfulness": lambda form, x, _: unbraid.edges(form, x, x.flip(0), target=1).faithfulness(
        [(x, x.flip(0), torch.arange(6) % 3)], lambda output, labels: output[range(6), labels]
    ),
    "Stability": lambda form, x, _: unbraid.edges(form, x, x.flip(0), target=1).stability(3, draws=9),
    "Comparison": lambda form, x, _: unbraid.edges(form, x, x.flip(0), target=1).compare(
        unbraid.edges(form, x, fill="zero", target=1)
    ),
    "ReorderStudy": lambda form, _, batches: unbraid.reorderings(form, batches, loss, swaps=[1, 2], repeats=2),
    "SubsetStudy": lambda form, _, batches: unbraid.subsets(form, batches, loss),
    "Ranking": lambda form, _, batches: unbraid.rank(form, batches, by="gradient", metric=loss),
    "AngularDistances": lambda form, _, batches: angular_distance(form, batches, span=2),
    "Pruning": lambda form, x, _: pruning(form.origin.model, form, [1]),
    "Run": lambda form, x, batches: trained(x, batches),
    "SpectrumLog": lambda form, _, batches: recorded(paths.SpectrumLog(form, batches)),
    "DiagnosisLog": lambda form, _, batches: recorded(gradients.DiagnosisLog(form, batches)),
}


def loss(output, labels):
    return torch.nn.functional.cross_entropy(output, labels)


def trained(x, batches):
    network = lively(Chain(Residual(mlp(5)), torch.nn.Linear(5, 3)), dtype=F32)
    labels = batches[0][1]
    part = data.Dataset("thirds", x, labels, x, labels, 3, torch.zeros(()), torch.ones(()))
    return train.fit(network, part, train.Recipe(epochs=2, batch_size=3))


def recorded(log):
    log(0)
    log(5)
    return log


@pytest.fixture(scope="module")
def made(setting):
    """Each result, made once."""
    return functools.cache(lambda name: MAKE[name](*setting))


def kinds(parent):
    """The classes that stand below and have none below themselves."""
    return {kind for child in parent.__subclasses__() for kind in (kinds(child) or {child})}


def test_all_results_are_among_these():
    # Packages are imported when first used, and this test may be the first.
    for package in ("circuits", "lesions", "pruning", "terms"):
        importlib.import_module(f"unbraid.{package}")
    assert {kind.__name__ for kind in kinds(Result)} == set(MAKE)


@pytest.mark.parametrize("name", MAKE)
def test_a_result_shows_itself(name, made):
    result = made(name)
    assert type(result).__name__ == name
    table = result.table()
    assert isinstance(table, Table)
    assert table.row_count > 0
    json.dumps(result.to_dict())
    cells = Cells()
    cells.feed(result._repr_html_())
    assert cells.count == table.row_count * len(table.columns)


@pytest.mark.parametrize("name", MAKE)
def test_a_result_draws_itself_on_a_page_or_where_it_is_told(name, made):
    result = made(name)
    figure = result.plot()
    assert isinstance(figure, Figure)
    assert_readable(figure)
    assert figure._repr_png_().startswith(b"\x89PNG")  # a notebook shows it
    whole = Figure(figsize=(13, 9), layout="constrained")
    ours, theirs = whole.subplots(1, 2)
    theirs.plot([0, 1])
    theirs.set_title("theirs")
    before = dict(mpl.rcParams)
    assert result.plot(ax=ours) is whole
    assert mpl.rcParams == before
    assert len(theirs.lines) == 1
    assert any(axes.has_data() for axes in (ours, *ours.child_axes))
    assert ours.get_title(loc="left") or ours.child_axes[0].get_title(loc="left")
    assert_readable(whole)


@pytest.mark.parametrize("name", MAKE)
def test_a_result_is_a_line_or_two(name, made):
    """Sizes, the error, how many names: not the numbers of tensors."""
    result = made(name)
    if name == "ResidualForm":  # which is its blocks, one a line
        assert len(repr(result).splitlines()) <= 3 + len(result.blocks)
        return
    text = repr(result)
    assert text.startswith(name)
    assert len(text) < 400
    assert "\n" not in text
    for word in ("tensor(", "dtype", "object at", "grad_fn"):
        assert word not in text


def test_what_results_hold_is_a_line_too(made):
    terms = made("Terms")
    assert (
        repr(terms) == f"Terms(names=4 entries, values=tensor[4, 6, 5], stream=tensor[6, 5], error={terms.error:.4g})"
    )
    found = [terms[1], made("DerivativeChain").factors[0], made("Signal").sum, made("Paths")[:2]]
    assert all(len(repr(one)) < 300 and "tensor(" not in repr(one) for one in found)
    assert repr(terms[1]).startswith("Term(name='blocks.0', value=tensor[6, 5], block=0, branch=None")


@pytest.mark.parametrize("name", MAKE)
def test_a_result_becomes_a_data_frame(name, made):
    result = made(name)
    frame, rows = result.to_pandas(), result.rows()
    assert len(frame) == len(rows)
    assert len(frame) or name == "Diagnosis"  # where nothing stands out
    for column in frame:
        for cell, row in zip(frame[column], rows, strict=True):
            assert pandas.api.types.is_scalar(cell)
            assert cell == row[column] or pandas.isna(cell) == pandas.isna(row[column])
    assert all(set(row) == set(frame.columns) for row in rows)


@pytest.mark.parametrize("name", MAKE)
def test_a_result_logs_its_single_numbers(name, made):
    result = made(name)
    found = {}
    result.log(Writer(found), 7)
    assert found == {f"unbraid/{name}": (7, value) for name, value in result.scalars().items()}
    assert found
    assert all(type(value) is float and math.isfinite(value) for _, value in found.values())


def test_tensorboard_keeps_what_is_logged(setting, tmp_path):
    tensorboard = pytest.importorskip("torch.utils.tensorboard")
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    terms = unbraid.unravel(setting[0], setting[1])
    with tensorboard.SummaryWriter(tmp_path) as writer:
        terms.log(writer, 3, under="model")
    kept = reader.EventAccumulator(str(tmp_path)).Reload().Scalars("model/error")
    assert [(event.step, event.value) for event in kept] == [(3, pytest.approx(terms.error))]


class Writer:
    def __init__(self, found):
        self.found = found

    def add_scalar(self, tag, scalar_value, global_step):
        self.found[tag] = global_step, scalar_value


def test_without_pandas_it_says_what_to_install(setting, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UnbraidError, match=r'needs the package pandas: pip install "unbraid\[pandas\]"'):
        unbraid.unravel(setting[0], setting[1]).to_pandas()


class Cells(HTMLParser):
    """Counts the cells of a table and remembers every tag."""

    def __init__(self):
        super().__init__()
        self.count, self.tags = 0, set()

    def handle_starttag(self, tag, attrs):
        self.count += tag == "td"
        self.tags.add(tag)


def test_names_cannot_run_in_a_notebook():
    table = Table("<img src=x onerror=alert(1)>", caption="<script>alert(1)</script>")
    table.add_row("<b>bold</b> & more")
    cells = Cells()
    cells.feed(as_html(table))
    assert cells.tags == {"table", "caption", "thead", "tbody", "tr", "th", "td"}
    assert "&lt;b&gt;bold&lt;/b&gt; &amp; more" in as_html(table)


def test_the_lens_says_how_soon_it_agrees(setting):
    form, x, _ = setting
    lens = unbraid.unravel(form, x).lens()
    assert lens.agreement[-1] == 1
    assert lens.divergence[-1] == pytest.approx(0, abs=1e-6)
    assert (lens.divergence >= -1e-9).all()
    own, early = form(x).double().softmax(-1), lens.outputs[1].double().softmax(-1)
    assert lens.divergence[1] == pytest.approx(float((own * (own / early).log()).sum(-1).mean()), rel=1e-5)
    assert lens.agreement[1] == pytest.approx(float((own.argmax(-1) == early.argmax(-1)).double().mean()))


def test_the_figure_of_many_paths_shows_the_largest(setting):
    network = lively(Chain(*(Residual(mlp(4)) for _ in range(7)), torch.nn.Linear(4, 2)), dtype=F32)
    x = normal(2, 4, dtype=F32)
    found = paths.all_paths(unbraid.trace(network, x), x, target=0)
    assert len(found) == 128
    assert "64 paths" in found.plot().get_suptitle()


def test_a_column_says_how_a_row_is_shown():
    columns = (("name", "{name}"), ("share", "{share:.1%}"), ("from", "{low:+.2f} to {high:+.2f}"))
    rows = as_rows({"name": ["a {b}"], "share": torch.tensor([0.125]), "low": [-1.0], "high": [2]})
    assert rows == [{"name": "a {b}", "share": 0.125, "low": -1.0, "high": 2}]
    table = fill(Table(), columns, rows)
    assert [list(column.cells) for column in table.columns] == [["a {b}"], ["12.5 %"], ["-1.00 to +2.00"]]
    assert [column.justify for column in table.columns] == ["left", "right", "right"]
    with pytest.raises(ValueError, match="shorter"):
        as_rows({"a": [1, 2], "b": [1]})
