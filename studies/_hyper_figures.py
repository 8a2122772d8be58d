"""The figures of the study of hyper-connections."""

import statistics
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from _study import Row
from unbraid import draw

COLOURS = {"residual": draw.MUTED, "HC": draw.PALETTE[3], "mHC": draw.PALETTE[0]}
MIXED = ("HC", "mHC")


def save_all(rows: list[Row], deepest: int, shown: int, folder: Path) -> None:
    """Gains at the deepest networks; streams and path lengths at those shown."""
    folder.mkdir(parents=True, exist_ok=True)
    with draw.style():
        made = {
            "gain": gain([row for row in rows if row["depth"] == deepest]),
            "streams": streams([row for row in rows if row["depth"] == shown]),
            "lengths": lengths([row for row in rows if row["depth"] == shown]),
        }
        for name, figure in made.items():
            draw.save(figure, folder / f"hyperconnections_{name}.svg")


def gain(rows: list[Row]) -> Figure:
    """The composite gain from the first block on, values and gradients, one thin line for each seed."""
    figure = Figure(figsize=(7.6, 3.8), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    sides = {"rows": "values: largest row sum", "columns": "gradients: largest column sum"}
    for axes, (side, unit) in zip(panels, sides.items(), strict=True):
        for row in rows:
            if row["kind"] in MIXED:
                for when, dashes in (("before", ":"), ("after", "-")):
                    axes.plot(row[when][side], color=COLOURS[row["kind"]], linestyle=dashes, linewidth=1.3)
        axes.set_yscale("log")
        axes.set_title(unit, size=10, weight="normal")
        axes.set_xlabel("block")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[0].set_ylabel("gain of all mixes so far")
    for kind in MIXED:
        own = [row["after"]["columns"] for row in rows if row["kind"] == kind]
        _say(panels[1], len(own[0]) - 1, statistics.median(line[-1] for line in own), kind)
    largest = {kind: statistics.median(row["after"]["gain"] for row in rows if row["kind"] == kind) for kind in MIXED}
    figure.suptitle(
        f"Trained, free mixes amplify {largest['HC']:.3g}-fold, doubly stochastic ones {largest['mHC']:.2f}-fold\n"
        "(solid: after training; dotted: before; a line for each seed)",
        x=0.02, ha="left", size=11, weight="bold",
    )  # fmt: skip
    return figure


def _say(axes: Axes, x: float, y: float, kind: str) -> None:
    axes.annotate(
        kind, (x, y), xytext=(4, 0), textcoords="offset points", va="center", color=COLOURS[kind], weight="bold"
    )


def streams(rows: list[Row]) -> Figure:
    """Where the terms lie at the end, and what they add to the margin from each stream; the first seed."""
    figure = Figure(figsize=(7.6, 5.2), layout="constrained")
    panels = figure.subplots(1, 4, sharey=True)
    for k, kind in enumerate(MIXED):
        row = next(row for row in rows if row["kind"] == kind)["after"]
        energy, added = np.asarray(row["energy"]), np.asarray(row["added"])
        _tiles(figure, panels[2 * k], 100 * energy, f"{kind}: where it lies (%)", cmap="cividis_r", vmin=0, vmax=50)
        most = float(np.abs(added).max())
        _tiles(figure, panels[2 * k + 1], added, f"{kind}: what it adds", cmap="RdBu_r", vmin=-most, vmax=most)
    names = ["input", *(f"block {number}" for number in range(len(row["terms"]) - 1))]
    panels[0].set_yticks(range(len(names)), names)
    figure.suptitle(
        "Terms (down) by stream (right): where each lies at the end,\n"
        "and what it adds to the margin of the right class (one seed)",
        x=0.02, ha="left", size=11, weight="bold",
    )  # fmt: skip
    return figure


def _tiles(figure: Figure, axes: Axes, values: Any, title: str, **colours: Any) -> None:
    shown = axes.imshow(values, aspect="auto", interpolation="nearest", **colours)
    axes.set_xticks(range(values.shape[1]))
    axes.set_title(title, size=9, weight="normal")
    axes.set_xlabel("stream")
    axes.spines[:].set_visible(False)
    figure.colorbar(shown, ax=axes, orientation="horizontal", aspect=12)


def lengths(rows: list[Row]) -> Figure:
    """The share of the gradient by path length, the median over seeds, before and after."""
    figure = Figure(figsize=(7.6, 3.4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    means = {}
    for axes, when in zip(panels, ("before", "after"), strict=True):
        for kind, colour in COLOURS.items():
            own = [row[when] for row in rows if row["kind"] == kind]
            share = np.median([row["share"] for row in own], 0)
            means[kind] = statistics.median(row["mean length"] for row in own)
            axes.plot(100 * share, color=colour, marker="o", markersize=3, label=kind if when == "after" else None)
        axes.set_title(f"{when} training", size=10, weight="normal")
        axes.set_xlabel("branches on the path")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[0].set_ylabel("share of the gradient's norm (%)")
    panels[1].legend(frameon=False)
    figure.suptitle(
        "Mean path length after training: " + ", ".join(f"{kind} {mean:.1f}" for kind, mean in means.items()),
        x=0.02, ha="left", size=11, weight="bold",
    )  # fmt: skip
    return figure
