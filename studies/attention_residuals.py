"""Attention residuals: is the largest routing weight the largest contribution?

    python studies/attention_residuals.py             five seeds, docs/studies/attention_residuals.md and its figure
    python studies/attention_residuals.py --quick     one epoch of three layers, printed only

Layer l reads Σ_b α_b v_b over the outputs v_b of all layers before it, and so does the head; α is a soft-max of the
scores of the layer's query with the normed v_b. Trained on MNIST-1D, taken apart in float64 on 200 test examples.
Finished runs are kept.
"""

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from matplotlib.figure import Figure
from torch import Tensor

import unbraid
from _depth_attention import AttentionResiduals, UpTo
from _margin import margin_of, mnist1d, recipe
from _study import DOCS, Row, Rows, grid, markdown, rewrite, rounded, spread
from unbraid import draw, train

DEPTH, SHARPNESS = 12, (1, 8)
FIRST = 2  # the first layer with three outputs to choose from
KEY = ("depth", "sharpness", "seed", "epochs")


def main(
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training part.")] = 15,
    seeds: Annotated[int, typer.Option(min=1, help="Runs.")] = 5,
    quick: Annotated[bool, typer.Option("--quick", help="One epoch, three layers, nothing written.")] = False,
    out: Annotated[Path, typer.Option(help="The folder of the page, the rows and the figure.")] = DOCS,
) -> None:
    """Train and measure every network, then write the table and the figure."""
    if quick:
        cells = grid(depth=[3], sharpness=SHARPNESS, seed=[0], epochs=[1])
        print(table([{**cell, **measure(cell)} for cell in cells]))
        return
    cells = grid(depth=[DEPTH], sharpness=SHARPNESS, seed=range(seeds), epochs=[epochs])
    rows = Rows(out / "attention_residuals.json", *KEY).run(cells, measure)
    if (out / "attention_residuals.md").exists():
        rewrite(out / "attention_residuals.md", {"table": table(rows)})
    (out / "images").mkdir(parents=True, exist_ok=True)
    with draw.style():
        draw.save(figure(rows), out / "images" / "attention_residuals.svg")
    print(table(rows))


def measure(cell: Row) -> Row:
    """Train one network, and compare weights with contributions, reader by reader."""
    examples = mnist1d()
    with torch.random.fork_rng():
        torch.manual_seed(cell["seed"])
        network = AttentionResiduals(cell["depth"], cell["sharpness"])
    run = train.fit(network, examples, recipe(cell["epochs"]), seed=cell["seed"])
    x, labels = examples.test_inputs[:200].double(), examples.test_labels[:200]
    network = network.double().eval()
    readers = [compare(network, reader, x, labels) for reader in range(FIRST, cell["depth"] + 1)]
    return {"test_error": run.to_dict()["test_error"], "readers": rounded(readers)}


def compare(network: AttentionResiduals, reader: int, x: Tensor, labels: Tensor) -> Row:
    """The weights of one reader against what each output that it reads contributes, per example.

    A contribution is one to what the reader says: the head to the margin of the right class, a layer along the margin's
    gradient at its own output. Weights, norms and gates are held (`unbraid.attribute`), so that they sum to it.
    """
    outputs = [value.detach() for value in network.outputs(x, reader)]
    weights = network.weights(reader, torch.stack(outputs, 1)).detach().T
    whole = network if reader == len(network.layer) else UpTo(network, reader)
    form = unbraid.trace(whole, x[:8])
    target = margin_of(labels) if whole is network else along(gradient(network, reader, x, labels))
    added = unbraid.attribute(form, x, target=target).values
    if added.shape != weights.shape:
        raise ArithmeticError(f"reader {reader} reads {len(weights)} outputs, and the form has {len(added)} terms")
    sizes = weights * torch.stack(outputs).norm(dim=-1)
    size, decided = added.abs(), weights.amax(0) > 0.5
    return {
        "weight": weights.mean(1).tolist(),
        "contribution": (size / size.sum(0)).mean(1).tolist(),
        "largest weight": float(weights.amax(0).mean()),
        "decided": float(decided.double().mean()),
        "agree": agreement(weights, size),
        "agree where decided": agreement(weights[:, decided], size[:, decided]),
        "largest share": float((size.gather(0, weights.argmax(0)[None])[0] / size.sum(0)).mean()),
        "rank": rank_correlation(weights, size),
        "agree by size": agreement(sizes, size),
        "rank by size": rank_correlation(sizes, size),
    }


def gradient(network: AttentionResiduals, layer: int, x: Tensor, labels: Tensor) -> Tensor:
    """∂margin/∂(what a layer gives), [batch, width], by autograd through the model itself."""
    given: list[Tensor] = []
    hook = network.layer[layer].register_forward_hook(lambda _module, _args, output: given.append(output))
    scores = network(x)
    hook.remove()
    return torch.autograd.grad(margin_of(labels)(scores).sum(), given[0])[0]


def along(direction: Tensor) -> Callable[[Tensor], Tensor]:
    """⟨direction, output⟩ per example."""
    return lambda output: (direction * output).sum(1)


def agreement(a: Tensor, b: Tensor) -> float:
    """The share of examples at which both are largest at one place of [places, examples]."""
    return float((a.argmax(0) == b.argmax(0)).double().mean())


def rank_correlation(a: Tensor, b: Tensor) -> float:
    """Spearman's, down the places of [places, examples], averaged over the examples."""
    ranks = [values.argsort(0).argsort(0).double() for values in (a, b)]
    x, y = (rank - rank.mean(0) for rank in ranks)
    return float(((x * y).sum(0) / (x.norm(dim=0) * y.norm(dim=0))).mean())


def table(rows: list[Row]) -> str:
    """How often weight and contribution agree, for the layers and for the head."""
    header, sides = [""], []
    for sharpness in SHARPNESS:
        own = [row["readers"] for row in rows if row["sharpness"] == sharpness]
        sides += [[readers[:-1] for readers in own], [readers[-1:] for readers in own]]
        header += [f"layers, s = {sharpness}", f"head, s = {sharpness}"]
    asked = {
        "the largest α is the largest contribution": lambda r: r["agree"],
        "by chance": lambda r: 1 / len(r["weight"]),
        "share of readings in which one α exceeds ½": lambda r: r["decided"],
        "the largest α‖v‖ is the largest contribution": lambda r: r["agree by size"],
        "the largest α, on average": lambda r: r["largest weight"],
        "what the output with the largest α contributes, of all": lambda r: r["largest share"],
        "rank correlation of α and contribution": lambda r: r["rank"],
        "rank correlation of α‖v‖ and contribution": lambda r: r["rank by size"],
    }
    lines = [
        [name, *(spread([mean([what(reader) for reader in readers]) for readers in side]) for side in sides)]
        for name, what in asked.items()
    ]
    lines.insert(3, ["where one α exceeds ½, all networks together", *map(where_decided, sides)])
    return markdown(header, lines)


def where_decided(side: list[list[Row]]) -> str:
    """How often they agree among the readings in which one weight exceeds ½; nothing of less than 1 % of them."""
    readers = list(chain.from_iterable(side))
    decided = [(reader["decided"], reader["agree where decided"]) for reader in readers if reader["decided"]]
    share = sum(weight for weight, _ in decided)
    return f"{sum(w * agree for w, agree in decided) / share:.2f}" if share >= 0.01 * len(readers) else "-"


def mean(values: list[float | None]) -> float:
    """The mean of those that are there."""
    known = [value for value in values if value is not None and value == value]
    return sum(known) / len(known) if known else float("nan")


def figure(rows: list[Row]) -> Figure:
    """Mean weight and mean share of the contribution, reader by reader, of the first sharp seed."""
    made = Figure(figsize=(7.6, 3.9), layout="constrained")
    panels = made.subplots(1, 2, sharey=True)
    readers = next(row["readers"] for row in rows if row["sharpness"] == SHARPNESS[-1])
    shown_as = {"weight": "mean weight", "contribution": "mean share of what it adds"}
    most = 100 * max(max(reader[what]) for reader in readers for what in shown_as)
    for axes, (what, title) in zip(panels, shown_as.items(), strict=True):
        values = np.full((len(readers), len(readers[-1]["weight"])), np.nan)
        for place, reader in enumerate(readers):
            values[place, : len(reader[what])] = reader[what]
        shown = axes.imshow(100 * values, aspect="auto", cmap="cividis_r", vmin=0, vmax=most, interpolation="nearest")
        axes.set_title(title, size=10, weight="normal")
        axes.set_xlabel("output that is read (0: the embedding)")
        axes.set_xticks(range(0, values.shape[1], 2))
        axes.spines[:].set_visible(False)
    made.colorbar(shown, ax=panels, label="%")
    panels[0].set_yticks(range(len(readers)), [*map(str, range(FIRST, FIRST + len(readers) - 1)), "head"])
    panels[0].set_ylabel("reader (layer)")
    shares = []
    for sharpness in SHARPNESS:
        own = [row["readers"] for row in rows if row["sharpness"] == sharpness]
        shares.append(np.median([mean([reader["agree"] for reader in readers]) for readers in own]))
    soft, sharp = (100 * share for share in shares)
    made.suptitle(
        f"The largest weight is the largest contribution in {soft:.0f} % of the readings,\n"
        f"in {sharp:.0f} % with sharper weights (below: one of those networks)",
        x=0.02, ha="left", size=11, weight="bold",
    )  # fmt: skip
    return made


if __name__ == "__main__":
    typer.run(main)
