"""Hyper-connections, trained small and taken apart: what do their mixes amplify, which stream carries what?

    python studies/hyperconnections.py             all runs, docs/studies/hyperconnections.md and its figures
    python studies/hyperconnections.py --quick     one epoch of two blocks, printed only

Twins on MNIST-1D that differ in the mix alone, free (HC) or doubly stochastic (mHC), and the same blocks on one stream.
Each is measured as it begins and as it ends, in float64, on 200 test examples. Finished runs are kept.
"""

from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor, nn

import _hyper_figures as figures
import unbraid
from _margin import margin_of, mnist1d, recipe
from _streams import HyperNetwork, Residual
from _study import DOCS, Row, Rows, grid, markdown, rewrite, rounded, spread
from unbraid import train

KINDS = ("residual", "HC", "mHC")
MIXED = KINDS[1:]
WHEN = ("before", "after")
DEPTHS, SHOWN = (4, 8, 16, 32), 16
KEY = ("kind", "depth", "seed", "epochs")


def main(
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training part.")] = 15,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each.")] = 3,
    quick: Annotated[bool, typer.Option("--quick", help="One epoch, two blocks, nothing written.")] = False,
    out: Annotated[Path, typer.Option(help="The folder of the page, the rows and the figures.")] = DOCS,
) -> None:
    """Train and measure every network, then write tables and figures."""
    if quick:
        cells = grid(kind=MIXED, depth=[2], seed=[0], epochs=[1])
        print(gains([{**cell, **measure(cell)} for cell in cells], (2,)))
        return
    cells = grid(depth=DEPTHS, kind=KINDS, seed=range(seeds), epochs=[epochs])
    rows = Rows(out / "hyperconnections.json", *KEY).run(cells, measure)
    tables = {"table": gains(rows, DEPTHS), "streams": streams(rows), "lengths": lengths(rows)}
    if (out / "hyperconnections.md").exists():
        rewrite(out / "hyperconnections.md", tables)
    figures.save_all(rows, DEPTHS[-1], SHOWN, out / "images")
    print("\n\n".join(tables.values()))


def measure(cell: Row) -> Row:
    """Train one network; what is in it before and after."""
    examples = mnist1d()
    network = build(cell)
    x, labels = examples.test_inputs[:200].double(), examples.test_labels[:200]
    before = apart(network.double().eval(), x, labels)
    run = train.fit(network.float(), examples, recipe(cell["epochs"]), seed=cell["seed"])
    after = apart(network.double().eval(), x, labels)
    return {"test_error": run.to_dict()["test_error"], "before": rounded(before), "after": rounded(after)}


def build(cell: Row) -> nn.Module:
    """The network of a cell, with torch's own initial weights."""
    with torch.random.fork_rng():
        torch.manual_seed(cell["seed"])
        if cell["kind"] == "residual":
            return Residual(40, 10, cell["depth"])
        return HyperNetwork(40, 10, cell["depth"], free=cell["kind"] == "HC")


def apart(network: nn.Module, x: Tensor, labels: Tensor) -> Row:
    """Gains of the skips, the terms by stream, and the gradient by path length."""
    form = unbraid.trace(network, x[:8])
    margin = margin_of(labels)
    spectrum = unbraid.gradient_spectrum(form, x, target=margin)
    found: Row = {"share": spectrum.share.tolist(), "mean length": spectrum.mean_length}
    if not isinstance(network, HyperNetwork):
        return found
    gain = unbraid.gradients.skip_gain(form, x)
    single = torch.cat([gain.forward.diagonal(), gain.backward.diagonal()])
    found |= {
        "gain": gain.gain,
        "single": float(single.max()),
        "rows": gain.forward[0].tolist(),
        "columns": gain.backward[0].tolist(),
    }
    return found | by_stream(form, network, x, labels)


@torch.no_grad()
def by_stream(form: unbraid.ResidualForm, network: HyperNetwork, x: Tensor, labels: Tensor) -> Row:
    """How much of each term lies in each stream, and what it adds from there to the margin, [terms, streams].

    The share that is common to all streams is that of the mean over streams: 1 where all streams hold the same.

    The head is linear once its norm is held: what stream s of a term adds is its value there times γ/rms times the
    weights of the margin. Summed over streams this must be `attribute`, which knows nothing of streams.
    """
    terms = unbraid.unravel(form, x)
    scale = network.norm.weight / network.norm_of(terms.stream.sum(1))
    weights = network.head.weight[labels] - network.head.weight.mean(0)
    added = (terms.values * (scale * weights)[:, None]).sum(-1)  # [terms, batch, streams]
    whole = terms.attribute(margin_of(labels)).values
    apart = float((added.sum(-1) - whole).abs().max() / whole.abs().max())
    if apart > 1e-10:
        raise ArithmeticError(f"contributions by stream depart from those of the terms by {apart:.1e}")
    energy = terms.values.square().mean((1, 3))
    common = terms.values.mean(2).square().mean((1, 2)) / energy.mean(-1)
    return {
        "terms": list(terms.names),
        "energy": (energy / energy.sum(-1, keepdim=True)).tolist(),
        "common": common.tolist(),
        "added": added.mean(1).tolist(),
    }


def gains(rows: list[Row], depths: tuple[int, ...]) -> str:
    """Test error, and the largest gain of one skip and of all products, by kind and depth."""
    lines = []
    for depth in depths:
        for kind in KINDS:
            own = [row for row in rows if (row["kind"], row["depth"]) == (kind, depth)]
            if own:
                lines.append(
                    [f"{kind}, {depth} blocks", spread([row["test_error"] for row in own], ".1f"), *_gains(own)]
                )
    return markdown(["", "test error in %", "one mix, after", "products, before", "products, after"], lines)


def _gains(own: list[Row]) -> list[str]:
    if own[0]["kind"] not in MIXED:
        return ["-"] * 3
    asked = (("after", "single"), ("before", "gain"), ("after", "gain"))
    return [spread([row[when][name] for row in own]) for when, name in asked]


def streams(rows: list[Row]) -> str:
    """Over how many of the streams the terms of the first and last blocks are spread, and how alike they are there."""
    lines = []
    for kind in MIXED:
        for when in WHEN:
            own = [row[when] for row in rows if (row["kind"], row["depth"]) == (kind, SHOWN)]
            spreads = [[effective(shares) for shares in row["energy"]] for row in own]
            early, late = ([mean(found[part]) for found in spreads] for part in (slice(1, 5), slice(-4, None)))
            alike = [[mean(row["common"][part]) for row in own] for part in (slice(1, 5), slice(-4, None))]
            reads = [effective([abs(sum(stream)) for stream in zip(*row["added"], strict=True)]) for row in own]
            lines.append([f"{kind}, {when} training", *map(spread, [early, late, reads, *alike])])
    header = ["first four blocks", "last four", "what the head reads", "first four, common", "last four, common"]
    return markdown([f"{SHOWN} blocks, 4 streams", *header], lines)


def mean(values: list[float]) -> float:
    """The mean."""
    return sum(values) / len(values)


def effective(shares: list[float]) -> float:
    """(Σ s)² / Σ s²: over how many of its places a share is spread."""
    return sum(shares) ** 2 / sum(share * share for share in shares)


def lengths(rows: list[Row]) -> str:
    """The mean length of the paths that carry the gradient."""
    lines = []
    for kind in KINDS:
        for when in WHEN:
            cells = []
            for depth in DEPTHS:
                own = [row[when] for row in rows if (row["kind"], row["depth"]) == (kind, depth)]
                cells.append(spread([row["mean length"] for row in own], ".1f"))
            lines.append([f"{kind}, {when} training", *cells])
    return markdown(["mean length of a path", *(f"{depth} blocks" for depth in DEPTHS)], lines)


if __name__ == "__main__":
    typer.run(main)
