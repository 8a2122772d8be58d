"""Every result has a table, plain values, a figure, and a table for notebooks in which names cannot run."""

import json
from html.parser import HTMLParser

import pytest
import torch
from matplotlib.figure import Figure
from rich.table import Table

import unbraid
from draw._geometry import assert_readable
from networks import Chain, Residual, lively, mlp, normal
from unbraid import gradients, paths
from unbraid.form import Result, as_html

F32 = torch.float32


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
    "Coherence": lambda form, _, batches: gradients.example_coherence(form, batches),
    "Predictiveness": lambda form, _, batches: gradients.update_predictiveness(form, batches, (1e-3, 1e-1)),
    "Autocorrelation": lambda form, *_: gradients.input_autocorrelation(
        [lambda x: x.sin()], torch.linspace(-1, 1, 9)[:, None]
    ),
    "DerivativeChain": lambda form, x, _: unbraid.derivative_chain(form, x),
    "Diagnosis": lambda form, _, batches: unbraid.diagnose(form, batches),
}


def kinds(parent):
    """The classes that stand below and have none below themselves."""
    return {kind for child in parent.__subclasses__() for kind in (kinds(child) or {child})}


def test_all_results_are_among_these():
    assert {kind.__name__ for kind in kinds(Result)} == set(MAKE)


@pytest.mark.parametrize("name", MAKE)
def test_a_result_shows_itself(name, setting):
    result = MAKE[name](*setting)
    assert type(result).__name__ == name
    table = result.table()
    assert isinstance(table, Table)
    assert table.row_count > 0
    json.dumps(result.to_dict())
    figure = result.plot()
    assert isinstance(figure, Figure)
    assert_readable(figure)
    cells = Cells()
    cells.feed(result._repr_html_())
    assert cells.count == table.row_count * len(table.columns)


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
    assert "64 paths" in found.plot()._suptitle.get_text()
