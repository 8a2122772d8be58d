"""Spectra over path lengths: how many paths there are, and what they carry."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from unbraid.draw._sheet import sheet
from unbraid.draw._style import INK, MUTED, PALETTE

__all__ = ["spectrum", "values"]


def spectrum(
    counts: Sequence[int],
    share: Sequence[float],
    effective: tuple[int, int],
    sampled: Sequence[float] | None = None,
    *,
    ax: Axes | None = None,
) -> Figure:
    """Share of the paths and share of the gradient by length, the effective lengths shaded.

    Args:
        counts: the number of paths of each length.
        share: the exact norm of each length over the sum of all.
        effective: the shortest interval of lengths that holds 95 % of the share.
        sampled: the mean norm of single paths of each length (Veit et al. 2016), drawn as it is and times the count,
            each over its sum; not finite where a length has no path; None where nothing was sampled.
        ax: where to draw; by default a figure of its own.
    """
    lengths = range(len(counts))
    low, high = effective
    with sheet(7.2, 3.9, ax) as page:
        axes = page.axes
        axes.axvspan(low - 0.5, high + 0.5, color=MUTED, alpha=0.15, lw=0)
        _line(axes, lengths, _shares(counts), "number of paths", PALETTE[0], "--", "s")
        if sampled is not None:
            norms = [norm if math.isfinite(norm) else 0.0 for norm in sampled]
            _line(axes, lengths, _shares(norms), "norm of one path, sampled", PALETTE[5], "-.", "^")
            products = [count * norm for count, norm in zip(counts, norms, strict=True)]
            _line(axes, lengths, _shares(products), "count × norm of one path", PALETTE[2], ":", "D")
        _line(axes, lengths, [100 * part for part in share], "gradient, exact", PALETTE[3], "-", "o")
        axes.set_xlabel("length of the path (branches)")
        axes.set_ylabel("share of the sum over lengths (%)")
        axes.set_xlim(-0.5, len(counts) - 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(bottom=0)
        page.legend()
        page.title(_finding(low, high, len(counts) - 1))
    return page.figure


def _finding(low: int, high: int, longest: int) -> str:
    if low == high:
        return f"95 % of the gradient's norm travels paths of {low} of {longest} branches"
    return f"95 % of the gradient's norm travels paths of {low} to {high} of {longest} branches"


def _shares(parts: Sequence[int] | Sequence[float]) -> list[float]:
    total = sum(parts)
    return [100 * (part / total) if total else 0.0 for part in parts]


def values(from_input: Sequence[float], from_constants: Sequence[float], *, ax: Axes | None = None) -> Figure:
    """What the paths of each length add to the target: those from the input, and those from constants.

    Args:
        from_input: the sum over paths from the sources, by length.
        from_constants: the sum over paths from every constant, by length.
        ax: where to draw; by default a figure of its own.
    """
    lengths = range(len(from_input))
    with sheet(7.2, 3.6, ax) as page:
        axes = page.axes
        axes.axhline(0, color=INK, lw=0.8)
        axes.bar([m - 0.2 for m in lengths], from_input, 0.4, color=PALETTE[0], label="from the input")
        axes.bar([m + 0.2 for m in lengths], from_constants, 0.4, color=PALETTE[1], label="from constants")
        axes.set_xlabel("length of the path (branches)")
        axes.set_ylabel("part of the target (its units)")
        page.legend()
        total = sum(from_input) + sum(from_constants)
        page.title(f"The lengths sum to the target, {total:.4g}")
    return page.figure


def _line(axes: Axes, lengths: range, shares: list[float], label: str, colour: str, dash: str, marker: str) -> None:
    axes.plot(list(lengths), shares, dash, color=colour, label=label, marker=marker, markersize=3.5)
