"""Veit et al.'s lesions on networks trained here: residual networks of 54 blocks and plain ones, on two data sets.

    python scripts/ensemble.py                 train, measure, draw; docs/ensemble.json and docs/images/ensemble_*.svg
    python scripts/ensemble.py --epochs 1 --out /tmp/look       a quick look

Veit et al. (2016) delete single blocks (section 4.1), several (4.2) and swap them (4.3) in a ResNet of 54 blocks, and
delete single layers of VGG. Networks that are finished are kept in the JSON file: a second call goes on where the first
was stopped.
"""

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, median
from typing import Annotated, Any

import torch
import typer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

import unbraid
from unbraid import ResidualForm, data, draw, nn, train
from unbraid.data import Dataset, batches

DOCS = Path(__file__).parents[1] / "docs"
DELETIONS = (1, 2, 3, 5, 8, 12, 18, 27, 40)
SWAPS = (1, 2, 4, 8, 16, 32)
REPEATS = 10
SETS = {"mnist1d": "MNIST-1D", "digits": "digits"}
Row = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """One of the networks.

    Attributes:
        make: from the data set and a generator.
        epochs: passes over the training part, by data set.
        images: whether inputs keep their shape, with a channel, rather than being one vector.
    """

    make: Callable[[Dataset, torch.Generator], torch.nn.Module]
    epochs: Mapping[str, int]
    images: bool = False


def _mlp(depth: int) -> Callable[[Dataset, torch.Generator], nn.ResidualNetwork]:
    def make(examples: Dataset, generator: torch.Generator) -> nn.ResidualNetwork:
        inputs = examples.features[0]
        return nn.mlp(inputs=inputs, depth=depth, order="norm act linear +", norm="batch", generator=generator)

    return make


def _conv(shortcut: str) -> Callable[[Dataset, torch.Generator], nn.ResidualNetwork]:
    """54 blocks of two convolutions in three stages, as in the network of Veit et al."""

    def make(examples: Dataset, generator: torch.Generator) -> nn.ResidualNetwork:
        build = nn.conv1d if len(examples.features) == 2 else nn.conv2d
        order = "norm act conv norm act conv +"
        return build(inputs=1, layers=110, width=8, order=order, shortcut=shortcut, generator=generator)

    return make


KINDS: Mapping[str, Kind] = {
    "residual, 54 blocks": Kind(_mlp(54), {"mnist1d": 20, "digits": 30}),
    "plain, 54 layers": Kind(lambda *a: _mlp(54)(*a).plain(), {"mnist1d": 20, "digits": 30}),
    "plain, 16 layers": Kind(lambda *a: _mlp(16)(*a).plain(), {"mnist1d": 20, "digits": 30}),
    "convolutional, 54 blocks": Kind(_conv("pad"), {"mnist1d": 8, "digits": 15}, images=True),
    "the same with projections": Kind(_conv("projection"), {"mnist1d": 8, "digits": 15}, images=True),
}


def main(
    epochs: Annotated[int, typer.Option(min=0, help="Passes over the examples; 0 for those of each network.")] = 0,
    out: Annotated[Path, typer.Option(help="The folder of the JSON file and of images/.")] = DOCS,
) -> None:
    """Train, delete, swap, draw and print."""
    torch.set_num_threads(1)  # matrices of 100 by 100 are too small to share
    file = out / "ensemble.json"
    rows: list[Row] = json.loads(file.read_text()) if file.exists() else []
    for name in SETS:
        for kind in KINDS:
            passes = epochs or KINDS[kind].epochs[name]
            if (name, kind, passes) not in {(row["data"], row["network"], row["epochs"]) for row in rows}:
                rows = [row for row in rows if (row["data"], row["network"]) != (name, kind)]
                rows.append(one_network(name, kind, passes))
                rows.sort(key=lambda row: ([*SETS].index(row["data"]), [*KINDS].index(row["network"])))
                keep(file, rows)
    (out / "images").mkdir(exist_ok=True)
    for title, figure in figures(rows).items():
        draw.save(figure, out / "images" / f"ensemble_{title}.svg")
    Console(width=150).print(table(rows))


def one_network(name: str, kind: str, epochs: int) -> Row:
    """Train one network and take it apart."""
    examples = load(name, KINDS[kind])
    network = KINDS[kind].make(examples, torch.Generator().manual_seed(0))
    run = train.fit(network, examples, train.Recipe(epochs=epochs), seed=0, device="cpu")
    form = formed(network, examples)
    tests = batches(examples.test, 250)
    singles = unbraid.lesion(form, tests, error)
    rng = random.Random(0)
    blocks = [block.index for block in form.blocks]
    counts = [count for count in DELETIONS if count < len(blocks) for _ in range(REPEATS)]
    several = unbraid.lesion(form, tests, error, sets=[rng.sample(blocks, count) for count in counts])
    orders = unbraid.reorderings(form, tests, error, swaps=SWAPS, repeats=REPEATS)
    return {
        "data": name,
        "network": kind,
        "epochs": epochs,
        "diverged": run.diverged,
        "train_error": run.history[-1].train_error if run.history else None,
        "whole": singles.whole,
        "singles": list(singles.metrics),
        "changes_shape": [block.index for block in form.blocks if block.skip == "projection"],
        "deleted": counts,
        "several": list(several.metrics),
        "swaps": list(orders.swaps),
        "tau": list(orders.tau),
        "reordered": list(orders.metrics),
    }


def load(name: str, kind: Kind) -> Dataset:
    """The data set in the shape that a network takes."""
    examples = data.by_name(name)
    if not kind.images:
        return examples.flat()
    if len(examples.features) > 1:
        return examples
    # A sequence of one channel; its numbers were standardised one by one, and stay so.
    return replace(
        examples,
        train_inputs=examples.train_inputs[:, None],
        test_inputs=examples.test_inputs[:, None],
        mean=examples.mean if examples.mean.ndim == 0 else examples.mean[None],
        std=examples.std if examples.std.ndim == 0 else examples.std[None],
    )


def formed(network: torch.nn.Module, examples: Dataset) -> ResidualForm:
    """The residual form, or the chain of a plain network's layers."""
    x = examples.test_inputs[:8]
    if isinstance(network, nn.PlainNetwork):
        return unbraid.chain(network.eval(), x, layers=["layers"])
    return unbraid.trace(network.eval(), x)


def error(output: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The share of wrong answers in %."""
    return 100 * (output.argmax(1) != labels).double().mean()


def keep(file: Path, rows: list[Row]) -> None:
    """Write the rows, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    part.replace(file)


def table(rows: list[Row]) -> Table:
    """One row a network: its error whole, lesioned and reordered, in %."""
    found = Table(title="test error in %", title_justify="left")
    columns = (
        "data",
        "network",
        "whole",
        "one deleted: median",
        "largest",
        "at shape changes",
        "5 deleted",
        "18 deleted",
    )
    for column in (*columns, "1 swap", "8 swaps", "τ there", "32 swaps", "τ there"):
        found.add_column(column, justify="left" if column in ("data", "network") else "right")
    for row in rows:
        changes = ", ".join(f"{row['singles'][k]:.1f}" for k in row["changes_shape"]) or "-"
        found.add_row(
            SETS[row["data"]],
            row["network"],
            f"{row['whole']:.1f}",
            f"{median(row['singles']):.1f}",
            f"{max(row['singles']):.1f}",
            changes,
            *(_mean(row, "deleted", "several", count) for count in (5, 18)),
            _mean(row, "swaps", "reordered", 1),
            *(_mean(row, "swaps", what, count) for count in (8, 32) for what in ("reordered", "tau")),
        )
    return found


def _mean(row: Row, by: str, what: str, count: int) -> str:
    values = [value for at, value in zip(row[by], row[what], strict=True) if at == count]
    return f"{mean(values):.{2 if what == 'tau' else 1}f}" if values else "-"


def figures(rows: list[Row]) -> dict[str, Figure]:
    """The four figures, each with a panel for a data set."""
    return {
        "singles": panels(rows, singles, "One block less: little to a residual network, ruin to a plain one"),
        "deletions": panels(
            rows, deletions, "Blocks can go one after the other: the residual networks degrade smoothly"
        ),
        "orders": panels(rows, orders, "Swapping blocks degrades a residual network smoothly"),
        "stages": panels(rows, stages, "Early blocks matter most; a change of shape does where zeros pad the skip"),
    }


LOOKS = {
    "residual, 54 blocks": (draw.theme.PALETTE[0], "o", "-"),
    "convolutional, 54 blocks": (draw.theme.PALETTE[2], "^", "-."),
    "plain, 16 layers": (draw.theme.PALETTE[3], "s", "--"),
}


def panels(rows: list[Row], fill: Callable[[Axes, dict[str, Row]], None], title: str) -> Figure:
    """Two panels side by side under one title."""
    with draw.theme.style():
        figure = Figure(figsize=(8.6, 3.9), layout="constrained")
        for axes, (name, said) in zip(figure.subplots(1, 2, sharey=True), SETS.items(), strict=True):
            fill(axes, {row["network"]: row for row in rows if row["data"] == name})
            axes.set_title(said, size=10, weight="normal")
            axes.set_ylim(0, 103)
        figure.axes[0].set_ylabel("test error in %")
        figure.suptitle(title, x=0.02, ha="left").set(size=11.5, weight="bold")
        labels = {
            label: line for axes in figure.axes for line, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(
            labels.values(), labels.keys(), loc="outside lower left", ncols=2 if len(labels) > 3 else 3, frameon=False
        )
    return figure


def singles(axes: Axes, found: Mapping[str, Row]) -> None:
    """The error without each block, against its depth."""
    for kind in ("residual, 54 blocks", "plain, 16 layers"):
        color, marker, dash = LOOKS[kind]
        errors = found[kind]["singles"]
        places = [(k + 0.5) / len(errors) for k in range(len(errors))]
        axes.plot(places, errors, marker, color=color, markersize=4, label=f"{kind}: without one")
        axes.axhline(found[kind]["whole"], color=color, linewidth=1, linestyle=dash, label=f"{kind}: whole")
    axes.set_xlabel("depth of the deleted block as a share of all")


def deletions(axes: Axes, found: Mapping[str, Row]) -> None:
    """The mean error, and its range, against the number of deleted blocks."""
    for kind, (color, marker, dash) in LOOKS.items():
        row = found[kind]
        counts = [0, *sorted(set(row["deleted"]))]
        groups = [
            [row["whole"]],
            *([e for c, e in zip(row["deleted"], row["several"], strict=True) if c == n] for n in counts[1:]),
        ]
        axes.fill_between(counts, [*map(min, groups)], [*map(max, groups)], color=color, alpha=0.15, lw=0)
        axes.plot(counts, [*map(mean, groups)], dash, marker=marker, color=color, markersize=4, label=kind)
    axes.set_xlabel("deleted blocks, drawn at random")


def orders(axes: Axes, found: Mapping[str, Row]) -> None:
    """The error of every order against its τ."""
    for kind, (color, marker, _) in LOOKS.items():
        row = found[kind]
        axes.plot(row["tau"], row["reordered"], marker, color=color, markersize=3.5, alpha=0.6, label=kind)
    axes.invert_xaxis()
    axes.set_xlabel("Kendall's τ with the trained order")


def stages(axes: Axes, found: Mapping[str, Row]) -> None:
    """The convolutional networks without each block, those that change the shape marked."""
    kinds = {"convolutional, 54 blocks": "zeros pad the skip", "the same with projections": "projections"}
    for (kind, said), (color, marker) in zip(
        kinds.items(), ((draw.theme.PALETTE[2], "^"), (draw.theme.PALETTE[5], "o")), strict=True
    ):
        row = found[kind]
        keeps = [k for k in range(len(row["singles"])) if k not in row["changes_shape"]]
        for places, size, edge, label in (
            (keeps, 4, "none", said),
            (row["changes_shape"], 9, draw.theme.INK, f"{said}: where the shape changes"),
        ):
            values = [row["singles"][k] for k in places]
            axes.plot(places, values, marker, color=color, markersize=size, markeredgecolor=edge, label=label)
    axes.set_xlabel("deleted block")


if __name__ == "__main__":
    typer.run(main)
