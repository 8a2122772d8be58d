"""The braid: every block with its skip and branches, what each is worth, and the paths that can be picked."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from unbraid.discover import Block
from unbraid.lesions import LesionStudy
from unbraid.paths import GradientParts, GradientSpectrum, Paths, ValueSpectrum
from unbraid.reports._content import Braid, finite
from unbraid.reports._subject import Subject
from unbraid.terms import Terms

__all__ = ["braid", "measures"]

_EXPANDED = 64  # blocks that are drawn one by one; of more, each stage is one arc until it is opened
_STAGE = 16  # the most blocks of one such stage


def braid(subject: Subject, results: Mapping[str, Any]) -> Braid:
    """The drawing and its picker, from whatever of terms, parts, lesions, paths and spectra was found."""
    form = subject.form
    return Braid(
        {
            "name": subject.name,
            "blocks": [_block(block) for block in form.blocks],
            "stages": _stages(form.blocks),
            "collapsed": len(form.blocks) > _EXPANDED,
            "measures": [
                {"title": title, "unit": unit, "values": list(map(finite, values))}
                for title, unit, values in measures(subject, results)
            ],
            "target": subject.said,
            "python": subject.python,
            "paths": _paths(results),
            "lengths": _lengths(subject, results),
        }
    )


def measures(subject: Subject, results: Mapping[str, Any]) -> list[tuple[str, str, list[float]]]:
    """What each block is worth, in up to three ways: title, unit, one number per block."""
    blocks = range(len(subject.form.blocks))
    rows: list[tuple[str, str, list[float]]] = []
    lesions: LesionStudy | None = results.get("lesions")
    if lesions is not None:
        change = {which[0]: delta for which, delta in zip(lesions.sets, lesions.delta, strict=True)}
        rows.append(("Loss without it, change", "nats", [change[block] for block in blocks]))
    parts: GradientParts | None = results.get("parts")
    if parts is not None:
        share = {blocks[0]: part for blocks, part in zip(parts.sets, parts.signed.tolist(), strict=True)}
        rows.append(("Gradient through it", "%", [100 * share.get(block, 0.0) for block in blocks]))
    terms: Terms | None = results.get("terms")
    if terms is not None:
        size = {terms[k].block: norm for k, norm in enumerate(terms.norms.tolist())}
        rows.append(("Size of its term", "rms", [size.get(block, 0.0) for block in blocks]))
    return rows


def _block(block: Block) -> dict[str, Any]:
    return {
        "name": block.name,
        "skip": block.skip,
        "join": block.join,
        "branches": list(block.branches),
        "after": list(block.after),
        "where": block.where,
        "parameters": block.parameters,
        "nested": len(block.nested),
    }


def _stages(blocks: Sequence[Block]) -> list[dict[str, Any]]:
    """Runs of blocks of one shape, long ones in parts of equal size where the braid is long."""
    stages = []
    for shape, group in groupby(blocks, key=lambda block: block.shape):
        indices = [block.index for block in group]
        parts = -(-len(indices) // _STAGE) if len(blocks) > _EXPANDED else 1
        size = -(-len(indices) // parts)
        for start in range(0, len(indices), size):
            part = indices[start : start + size]
            stages.append({"first": part[0], "last": part[-1], "shape": " × ".join(map(str, shape[1:]))})
    return stages


def _paths(results: Mapping[str, Any]) -> dict[str, Any] | None:
    """Paths with the largest value first, so that a path's place is its rank."""
    values: Paths | None = results.get("single")
    if values is None:
        return None
    norms: Paths | None = results.get("single_gradients")
    along = {} if norms is None else {row["path"]: row["norm"] for row in norms.rows()}
    means = values.values.mean(1)
    order = means.abs().argsort(descending=True).tolist()
    rows = values.rows()
    masks = [rows[number]["path"] for number in order]
    return {
        "complete": values.exact and values.error == values.error,  # an error was measured: all are there
        "masks": masks,
        "values": [float(means[row]) for row in order],
        "norms": [finite(along[mask]) if mask in along else None for mask in masks],
        "target": float(values.target.mean()),
        "constants": float(values.constants.mean()),
    }


def _lengths(subject: Subject, results: Mapping[str, Any]) -> dict[str, Any]:
    """By length: how many paths, what they add to the target, and the norm of their part of the gradient."""
    values: ValueSpectrum | None = results.get("values")
    spectrum: GradientSpectrum | None = results.get("spectrum")
    return {
        # As text: a browser's numbers end at 2^53.
        "counts": [str(count) for count in subject.form.path_counts()],
        "values": None if values is None else values.from_input.mean(1).tolist(),
        "norms": None if spectrum is None else spectrum.norms.tolist(),
    }
