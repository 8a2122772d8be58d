"""One HTML page on a model: each analysis is a section, and one that cannot be run says why.

Everything that takes long to import, figures and templates, is imported inside.
"""

from collections.abc import Callable, Collection, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unbraid.form import ResidualForm
    from unbraid.reports._content import Page, Section
    from unbraid.reports._subject import Loss, Subject
    from unbraid.results import Target
    from unbraid.sweep import Batches

NAMES = ("terms", "lens", "spectrum", "values", "paths", "lesions", "orders", "signal", "examples", "neighbours")


def report(
    form: "ResidualForm",
    batches: "Batches",
    *,
    path: str | PathLike[str] = "report/index.html",
    name: str = "model",
    loss: "Loss | None" = None,
    target: "Target | None" = None,
    skip: Collection[str] = (),
    step: Callable[[str], None] = lambda text: None,
) -> Path:
    """Take a model apart and write what was found as one self-contained HTML page, its numbers beside it.

    The page asks no host for anything. It holds the braid, whose paths can be picked; the form and its check; terms and
    lens; gradient and value by path length; single paths; lesions and other orders; signal propagation and shattering.
    What cannot be run on a model is named on the page with the reason. Gradients are split for the first examples of
    the first batch, as many as is cheap; the page says how many.

    Args:
        form: a traced model, or a chain.
        batches: (inputs, labels), read several times; an iterator is kept as a list. Labels None: the model's own most
            likely classes stand for them.
        path: the page, ending in .html; report.json is written beside it.
        name: what to call the model.
        loss: a function (what the model returns, labels) -> [batch]; by default the cross-entropy of class scores.
        target: the scalar whose gradient and value are split; by default the largest output of each example.
        skip: analyses to leave out, of `report.NAMES`: terms, lens, spectrum, values, paths, lesions, orders, signal,
            examples, neighbours.
        step: called with the title of each analysis before it is run.

    Returns:
        The path of the page.

    Raises:
        ValueError: the path does not end in .html, or `skip` names no analysis.
        DataError: there is no batch, or one is no pair of inputs and labels.
        OSError: a file cannot be written.
    """
    from unbraid.reports._subject import Subject
    from unbraid.reports._write import check_path, write
    from unbraid.results import classification_loss

    check_path(path)
    subject = Subject.of(form, batches, name, loss or classification_loss, target)
    return write(page(subject, skip=skip, step=step), path)


def page(
    subject: "Subject",
    *,
    skip: Collection[str] = (),
    before: Sequence["Section"] = (),
    python: str = "",
    title: str = "",
    summary: str = "",
    step: Callable[[str], None] = lambda text: None,
) -> "Page":
    """The page that `report` writes, with sections of one's own before its own.

    Args:
        subject: the form and the data on which it is looked at.
        skip: analyses to leave out, of `report.NAMES`.
        before: sections to begin with, on how the model was trained, say.
        python: code that loads the model and its data.
        title: of the page; by default the model's name, taken apart.
        summary: a sentence below the title.
        step: called with the title of each analysis before it is run.

    Raises:
        ValueError: `skip` names no analysis.
    """
    from unbraid.reports._analyses import ANALYSES, run
    from unbraid.reports._braid import braid, measures
    from unbraid.reports._content import Page
    from unbraid.reports.sections._missing import missing
    from unbraid.reports.sections._network import NetworkFacts, network

    unknown = sorted(set(skip) - set(NAMES))
    if unknown:
        raise ValueError(f'report: there is no analysis "{unknown[0]}" to skip; there are {", ".join(NAMES)}.')
    form = subject.form
    results, reasons = run(subject, skip, step)
    equation = form.equation()
    facts = NetworkFacts(
        name=subject.name,
        blocks=form.blocks,
        paths=sum(form.path_counts()),
        error=form.error,
        dtype=str(form.dtype).removeprefix("torch."),
        equation=equation.text,
        latex=equation.latex,
        python=f"{python}\nform = unbraid.trace(model, x)\nprint(form)".strip(),
        braid=braid(subject, results),
        worth=measures(subject, results),
    )
    parts = [
        missing(analysis.title, reasons[analysis.name]) if analysis.name in reasons else analysis.show(subject, results)
        for analysis in ANALYSES
    ]
    return Page(title or f"{subject.name}, taken apart", [*before, network(facts), *parts], summary)
