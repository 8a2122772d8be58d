"""`unbraid train`: train one network into a folder.

Under torchrun it always resumes, because the agent repeats the command line after a failure and cannot add an option.
"""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unbraid.cli._console import JSON, show

if TYPE_CHECKING:
    pass

__all__ = ["train"]


class _Kind(StrEnum):
    RESIDUAL = "residual"
    PLAIN = "plain"


class _Optimizer(StrEnum):
    SGD = "sgd"
    ADAMW = "adamw"


class _Schedule(StrEnum):
    STEP = "step"
    COSINE = "cosine"
    CONSTANT = "constant"


def train(
    folder: Annotated[Path, typer.Argument(help="Where the checkpoint goes; must be new, or use --resume.")],
    data: Annotated[
        str, typer.Option(help="mnist1d, digits, a file .npz or .safetensors, or a folder of images.")
    ] = "mnist1d",
    kind: Annotated[_Kind, typer.Option(help="With skips, or its plain twin without.")] = _Kind.RESIDUAL,
    depth: Annotated[int, typer.Option(min=1, help="The number of blocks.")] = 20,
    width: Annotated[int, typer.Option(min=1, help="Features of the stream.")] = 100,
    order: Annotated[str, typer.Option(help="The operations of a block, figure 11.5.")] = "act linear +",
    norm: Annotated[str, typer.Option(help="batch, layer, rms, group or none.")] = "none",
    shortcut: Annotated[str, typer.Option(help="identity, or one that hurts: half, exclusive_gate, ...")] = "identity",
    scale: Annotated[
        str, typer.Option(help="Of every branch: a number, 1/sqrt(K), learned, zero, layerscale, fixup or nf.")
    ] = "1/sqrt(K)",
    init: Annotated[str, typer.Option(help="he, he_normal, glorot, glorot_normal, orthogonal or looks_linear.")] = "he",
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training part.")] = 40,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples a step.")] = 100,
    lr: Annotated[float, typer.Option(help="The learning rate of the first epoch.")] = 0.05,
    optimizer: Annotated[_Optimizer, typer.Option(help="SGD with momentum 0.9, or AdamW.")] = _Optimizer.SGD,
    schedule: Annotated[_Schedule, typer.Option(help="Of the learning rate.")] = _Schedule.STEP,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of the weights and of the order of examples.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint in the folder; under torchrun always.")
    ] = False,
    checkpointing: Annotated[
        bool,
        typer.Option(
            "--checkpointing", help="Memory that grows with the root of the depth, for a second forward pass."
        ),
    ] = False,
    as_json: JSON = False,
) -> None:
    """Train a fully connected network, residual or plain, and keep it in a folder."""
    import torch

    from unbraid import nn
    from unbraid.cli._threads import one_thread
    from unbraid.data import by_name
    from unbraid.ranks import launched
    from unbraid.train import Recipe, fit

    recipe = Recipe(epochs=epochs, batch_size=batch_size, lr=lr, optimizer=optimizer.value, schedule=schedule.value)
    examples = by_name(data).flat()
    residual = nn.mlp(
        inputs=examples.features[0],
        classes=examples.classes,
        width=width,
        depth=depth,
        order=order,
        norm=None if norm == "none" else norm,
        shortcut=shortcut,
        scale=_scale(scale),
        init=init,
        generator=torch.Generator().manual_seed(seed),
    )
    network = residual if kind is _Kind.RESIDUAL else residual.plain()
    # Torchrun starts the same command again when a rank has died: there a run that is begun goes on.
    resume = resume or launched()
    with one_thread():
        run = fit(
            network,
            examples,
            recipe,
            seed=seed,
            device=device,
            folder=folder,
            resume=resume,
            checkpointing=checkpointing,
        )
    show(run.table(), run.to_dict(), as_json=as_json)


def _scale(text: str) -> float | str:
    """A number as such; words are left to the constructor, which knows them and says so."""
    try:
        return float(text)
    except ValueError:
        return text
