"""Veit et al.'s effective paths, exactly: 54 blocks on MNIST-1D, before and after training.

    python scripts/effective_paths.py               all runs, figures and docs/effective_paths.json
    python scripts/effective_paths.py --epochs 2    a quick look, written beside them with --out

Veit et al. (2016) draw random paths of each length, take the mean norm of the gradient along one of them, and multiply
it by the number of paths. The norm of the sum over all paths of a length is exact here, so both are compared. Finished
runs are kept in the JSON file: a second call goes on where the first was stopped.
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

sys.path.append(str(Path(__file__).parents[1] / "studies"))
import unbraid
from _study import markdown, rewrite
from unbraid import data, draw, nn, paths, train
from unbraid.results import classification_loss

DEPTH = 54
DOCS = Path(__file__).parents[1] / "docs"
NETWORKS: dict[str, dict[str, Any]] = {
    "batch norm, scale 1": {"order": "norm act linear norm act linear +", "norm": "batch", "scale": 1.0},
    "no norm, scale 1/√K": {"order": "act linear act linear +", "norm": None, "scale": "1/sqrt(K)"},
}
Row = dict[str, Any]


def main(
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the 4,000 examples.")] = 20,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds, from 0.")] = 3,
    out: Annotated[Path, typer.Option(help="The folder of the JSON file and of images/.")] = DOCS,
) -> None:
    """Train, take the spectra, draw and print."""
    file = out / "effective_paths.json"
    rows: list[Row] = json.loads(file.read_text()) if file.exists() else []
    done = {(row["network"], row["seed"], row["epochs"]) for row in rows}
    for seed in range(seeds):
        for name in NETWORKS:
            if (name, seed, epochs) not in done:
                rows += one_run(name, seed, epochs, out)
                out.mkdir(parents=True, exist_ok=True)
                part = file.with_suffix(".part")
                part.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
                part.replace(file)
    rows = [row for row in rows if row["epochs"] == epochs]
    Console(width=150).print(table(rows))
    print(medians(rows))
    if (out / "paths.md").exists():
        rewrite(out / "paths.md", {"table": medians(rows)})


def one_run(name: str, seed: int, epochs: int, out: Path) -> list[Row]:
    """Train one network, with a spectrum of its loss before, from time to time, and after."""
    generator = torch.Generator().manual_seed(seed)
    network = nn.mlp(depth=DEPTH, width=100, generator=generator, **NETWORKS[name]).eval()
    examples = data.mnist1d().flat()
    batches = list(zip(examples.test.inputs[:512].split(128), examples.test.labels[:512].split(128), strict=True))
    settle(network, examples)
    form = unbraid.trace(network, batches[0][0])
    log = paths.SpectrumLog(form, batches, every=max(1, epochs // 10))
    before = measured(form, batches)
    run = train.fit(network, examples, train.Recipe(epochs=epochs, lr=0.02), seed=seed, device="cpu", on_epoch=log)
    after = measured(form, batches)
    said = {"network": name, "seed": seed, "epochs": epochs, "test_error": run.to_dict()["test_error"]}
    if seed == 0 and NETWORKS[name]["norm"]:
        images = out / "images"
        images.mkdir(parents=True, exist_ok=True)
        figure = draw.spectrum(after["counts"], after["share"], tuple(after["effective"]), after["sampled"])
        draw.save(figure, images / "effective_after.svg")
        draw.save(log.plot(), images / "effective_training.svg")
    return [{**said, "moment": "before", **before}, {**said, "moment": "after", **after}]


def settle(network: torch.nn.Module, examples: data.Dataset) -> None:
    """Give batch norm the running statistics of the data: in eval mode an untrained network has no norm without."""
    network.train()
    with torch.no_grad():
        for inputs in examples.train.inputs.split(100):
            network(inputs)
    network.eval()


def measured(form: unbraid.ResidualForm, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> Row:
    """The exact spectrum of the loss, and the protocol's estimate on the first batch."""
    found = paths.mean_spectrum(form, batches)
    inputs, labels = batches[0]
    one_batch = paths.mean_spectrum(form, batches[:1])
    drawn = paths.sample_paths(form, inputs, target=lambda output: classification_loss(output, labels), per_length=32)
    norms = drawn.mean_norms()[:, 0]
    counts = torch.tensor(found.counts, dtype=torch.float64)
    estimate = counts * norms
    low, high = found.effective
    return {
        **found.to_dict(),
        "sampled": norms.tolist(),
        "estimated_effective": list(paths.effective(estimate / estimate.sum())),
        # On one batch both: count times mean norm, over the norm of the sum.
        "overstated": (estimate / one_batch.norms).tolist(),
        "overstated_in_all": float(estimate.sum() / one_batch.norms.sum()),
        "paths_within": sum(found.counts[low : high + 1]) / sum(found.counts),
    }


def medians(rows: list[Row]) -> str:
    """The table of the guide: medians over the seeds."""
    lines = []
    for name in NETWORKS:
        for moment in ("before", "after"):
            own = [row for row in rows if (row["network"], row["moment"]) == (name, moment)]
            middle = {k: statistics.median(row[k] for row in own) for k in ("mean_length", "paths_within")}
            lengths = ["{} to {}".format(*sorted(row[k] for row in own)[len(own) // 2]) for k in _INTERVALS]
            over = statistics.median(row["overstated_in_all"] for row in own)
            within = f"{100 * middle['paths_within']:.1g} %"
            lines.append(
                [
                    f"{name}, {moment} training",
                    f"{middle['mean_length']:.1f}",
                    lengths[0],
                    within,
                    lengths[1],
                    f"{over:,.0f} ×",
                ]
            )
    return markdown(_HEADER, lines)


_INTERVALS = ("effective", "estimated_effective")
_HEADER = (
    "network",
    "mean length",
    "95 % of the gradient in lengths",
    "so many of all paths",
    "count × norm says",
    "and overstates by",
)


def table(rows: list[Row]) -> Table:
    """One row a network, seed and moment."""
    made = Table(title=f"{DEPTH} blocks on MNIST-1D", title_justify="left")
    for column in ("network", "seed", "", "loss", "test error %", "mean length", "95 % in"):
        made.add_column(column)
    for column in ("paths in it", "count × norm: 95 % in", "overstates by"):
        made.add_column(column)
    for row in rows:
        made.add_row(
            row["network"],
            str(row["seed"]),
            row["moment"],
            f"{row['loss']:.3g}",
            f"{row['test_error']:.1f}" if row["moment"] == "after" else "",
            f"{row['mean_length']:.2f}",
            "{} to {}".format(*row["effective"]),
            f"{100 * row['paths_within']:.2g} %",
            "{} to {}".format(*row["estimated_effective"]),
            f"{row['overstated_in_all']:.3g}×",
        )
    return made


if __name__ == "__main__":
    typer.run(main)
