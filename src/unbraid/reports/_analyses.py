"""What a report runs, in the order of its sections: one entry per analysis, from a subject to a section."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from unbraid.errors import UnbraidError
from unbraid.gradients import Diagnosis, diagnose, example_coherence, input_autocorrelation, line
from unbraid.lesions import lesion, reorderings
from unbraid.paths import (
    all_paths,
    chosen_paths,
    gradient_parts,
    gradient_spectrum,
    sample_paths,
    top_paths,
    value_spectrum,
)
from unbraid.reports import sections
from unbraid.reports._content import Section
from unbraid.reports._subject import MOST_PATHS, Subject
from unbraid.results import first_float
from unbraid.sweep import each_batch
from unbraid.terms import unravel

__all__ = ["ANALYSES", "Analysis", "run"]

_LISTED = 64  # paths that a page shows where it cannot hold all
_LINES, _POINTS = 8, 64
_ALIKE = 64  # examples whose gradients are compared

Results = Mapping[str, Any]


@dataclass(frozen=True)
class Analysis:
    """One analysis.

    Attributes:
        name: by which it is left out.
        title: of its section.
        run: takes the subject and what was found before it; returns results by name.
        show: makes the section of them.
    """

    name: str
    title: str
    run: Callable[[Subject, Results], Mapping[str, Any]]
    show: Callable[[Subject, Results], Section]


def run(subject: Subject, skip: Iterable[str], step: Callable[[str], None]) -> tuple[Results, dict[str, str]]:
    """Run every analysis that is not left out.

    Returns:
        The results by name, and for each analysis without one why there is none.
    """
    results: dict[str, Any] = {}
    missing: dict[str, str] = {}
    left_out = set(skip)
    for analysis in ANALYSES:
        step(analysis.title)
        if analysis.name in left_out:
            missing[analysis.name] = "it was left out."
            continue
        try:
            results.update(analysis.run(subject, results))
        except (UnbraidError, ValueError, IndexError, RuntimeError) as error:
            # One analysis that does not fit a model (integer inputs, one example) must not cost the others.
            missing[analysis.name] = str(error).splitlines()[0]
    return results, missing


def _terms(subject: Subject, results: Results) -> Results:
    few = subject.few
    terms = unravel(subject.form, few.args, few.kwargs)
    parts = gradient_parts(subject.form, few.args, few.kwargs, target=subject.aim)
    return {"terms": terms, "parts": parts}


def _show_terms(subject: Subject, results: Results) -> Section:
    terms = results["terms"]
    return sections.terms(
        sections.TermFacts(
            network=subject.name,
            names=list(terms.names),
            norms=[float(value.flatten(1).norm(dim=1).mean()) for value in terms.values],
            error=terms.error,
            examples=subject.few.size,
            python="terms = unbraid.unravel(form, x)\nprint(terms.table())",
        )
    )


def _lens(subject: Subject, results: Results) -> Results:
    if "terms" not in results:
        raise ValueError("it needs the terms.")
    return {"lens": results["terms"].lens()}


def _show_lens(subject: Subject, results: Results) -> Section:
    return sections.lens(results["lens"], subject.few.size, "print(unbraid.unravel(form, x).lens().table())")


def _spectrum(subject: Subject, results: Results) -> Results:
    few, form = subject.few, subject.form
    spectrum = gradient_spectrum(form, few.args, few.kwargs, target=subject.aim)
    per_length = 16 if subject.light else 2
    drawn = sample_paths(form, few.args, few.kwargs, target=subject.aim, per_length=per_length)
    return {"spectrum": spectrum, "sampled": drawn.mean_norms()[:, 0].tolist()}


def _show_spectrum(subject: Subject, results: Results) -> Section:
    python = f"spectrum = unbraid.gradient_spectrum(form, x, target={subject.python})\nprint(spectrum.table())"
    return sections.paths(
        sections.PathFacts.of(subject.name, subject.said, results["spectrum"], results["sampled"], python)
    )


def _values(subject: Subject, results: Results) -> Results:
    few = subject.few
    return {"values": value_spectrum(subject.form, few.args, few.kwargs, target=subject.aim)}


def _show_values(subject: Subject, results: Results) -> Section:
    python = f"print(unbraid.value_spectrum(form, x, target={subject.python}).table())"
    return sections.values(results["values"], subject.said, python)


def _single(subject: Subject, results: Results) -> Results:
    few, form, target = subject.few, subject.form, subject.aim
    if subject.listed:
        values = all_paths(form, few.args, few.kwargs, target=target)
        gradients = all_paths(form, few.args, few.kwargs, target=target, linearize="jacobian")
        return {"single": values, "single_gradients": gradients}
    values = top_paths(form, few.args, few.kwargs, target=target, k=_LISTED, beam=_LISTED, limit=MOST_PATHS)
    gradients = chosen_paths(
        form, few.args, few.kwargs, masks=values.masks, target=target, linearize="jacobian", chunk=_LISTED
    )
    return {"single": values, "single_gradients": gradients}


def _show_single(subject: Subject, results: Results) -> Section:
    verb = "all_paths(form, x" if subject.listed else f"top_paths(form, x, k={_LISTED}"
    python = f"print(unbraid.{verb}, target={subject.python}).table())"
    return sections.single(results["single"], sum(subject.form.path_counts()), subject.said, python)


def _lesions(subject: Subject, results: Results) -> Results:
    return {"lesions": lesion(subject.form, subject.batches, subject.metric)}


_REMARK = (
    "No labels were given. The model's own most likely classes stand for them, so the numbers say how far it departs "
    "from itself."
)


def _show_lesions(subject: Subject, results: Results) -> Section:
    python = "print(unbraid.lesion(form, batches, metric).table())"
    return sections.lesions(results["lesions"], subject.quantity, _REMARK if subject.own else "", python)


def _orders(subject: Subject, results: Results) -> Results:
    most = max(1, len(subject.form.blocks) // 2)
    swaps = sorted({1, math.isqrt(most) or 1, most})
    return {"orders": reorderings(subject.form, subject.batches, subject.metric, swaps=swaps, repeats=5)}


def _show_orders(subject: Subject, results: Results) -> Section:
    python = "print(unbraid.reorderings(form, batches, metric, swaps=[1, 2, 5], repeats=5).table())"
    return sections.reorderings(results["orders"], subject.quantity, python)


def _signal(subject: Subject, results: Results) -> Results:
    few = subject.few
    first = [(dict(few.kwargs) or few.args, few.labels)]
    diagnosis: Diagnosis = diagnose(subject.form, first if not subject.light else _first(subject), loss=subject.loss)
    return {"diagnosis": diagnosis}


def _show_signal(subject: Subject, results: Results) -> Section:
    return sections.signal(results["diagnosis"], "print(unbraid.diagnose(model, batches))")


def _alike(subject: Subject, results: Results) -> Results:
    return {"alike": example_coherence(subject.form, _first(subject), loss=subject.loss, chunk=subject.few.size)}


def _show_alike(subject: Subject, results: Results) -> Section:
    python = "print(unbraid.gradients.example_coherence(form, batches).table())"
    return sections.alike(results["alike"], python)


def _neighbours(subject: Subject, results: Results) -> Results:
    batch = next(each_batch(subject.form, subject.batches))
    inputs = (*batch.args, *batch.kwargs.values())
    if len(inputs) != 1 or not isinstance(inputs[0], torch.Tensor) or not inputs[0].is_floating_point():
        raise ValueError("a line through the inputs needs one input of floating point; tokens have nothing in between.")
    if batch.size < 2:
        raise ValueError("a line goes from one example to another, and the first batch has one.")
    generator = torch.Generator().manual_seed(0)
    points = _POINTS if subject.light else _POINTS // 4
    number = _LINES if subject.light else 2
    grids = [line(inputs[0].cpu(), points, generator=generator).to(inputs[0]) for _ in range(number)]
    return {"neighbours": input_autocorrelation([lambda x: first_float(subject.form(x))], grids)}


def _show_neighbours(subject: Subject, results: Results) -> Section:
    python = (
        "generator = torch.Generator().manual_seed(0)\n"
        f"grid = unbraid.gradients.line(x, {_POINTS}, generator=generator)\n"
        "print(unbraid.gradients.input_autocorrelation([form], grid).table())"
    )
    return sections.neighbours(results["neighbours"], len(results["neighbours"].each), python)


def _first(subject: Subject) -> list[tuple[Any, Any]]:
    """The first batches, up to as many examples as gradients are compared for."""
    size = max(1, next(each_batch(subject.form, subject.batches)).size)
    return list(islice(iter(subject.batches), max(1, _ALIKE // size)))


ANALYSES = (
    Analysis("terms", "The terms", _terms, _show_terms),
    Analysis("lens", "The lens", _lens, _show_lens),
    Analysis("spectrum", "The gradient by path length", _spectrum, _show_spectrum),
    Analysis("values", "The target by path length", _values, _show_values),
    Analysis("paths", "Single paths", _single, _show_single),
    Analysis("lesions", "Lesions", _lesions, _show_lesions),
    Analysis("orders", "Other orders", _orders, _show_orders),
    Analysis("signal", "Signal propagation", _signal, _show_signal),
    Analysis("examples", "Gradients of examples", _alike, _show_alike),
    Analysis("neighbours", "Shattering: neighbouring inputs", _neighbours, _show_neighbours),
)
