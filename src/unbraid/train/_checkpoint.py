"""What a run keeps in its folder, and how to read it back. Nothing is pickled, so nothing is unpickled.

config.json             the network's configuration, recipe, seed, data and versions; written once
weights.safetensors     the network's parameters and buffers, after the last good epoch
optimizer.safetensors   the optimiser's state by parameter, and the states of the random generators
metrics.jsonl           one line for each epoch; {"diverged": step} last, where the run diverged
SHA256SUMS              checksums of the four
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn

from unbraid import _folder
from unbraid._folder import Generation
from unbraid._openfile import OpenFile
from unbraid.errors import CheckpointError
from unbraid.saved import read_tensors
from unbraid.train._run import Epoch

__all__ = ["Checkpoint", "check_weights", "exists", "put_weights", "read", "write", "write_diverged"]

CONFIG, WEIGHTS, OPTIMIZER, METRICS = (
    "config.json",
    "weights.safetensors",
    "optimizer.safetensors",
    "metrics.jsonl",
)
_LONGEST = 2**28  # bytes of config.json or metrics.jsonl
Description = dict[str, object]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A run's folder, read.

    Attributes:
        description: what config.json holds.
        weights: parameters and buffers by name.
        slots: the optimiser's tensors by "parameter/slot", such as "stem.weight/momentum_buffer".
        generators: the state of each random generator, as bytes.
        history: the epochs done.
        diverged: the step at which the run diverged, if it did.
    """

    description: Description
    weights: dict[str, Tensor]
    slots: dict[str, Tensor]
    generators: dict[str, Tensor]
    history: tuple[Epoch, ...]
    diverged: int | None


exists = _folder.exists


def write(
    folder: Path,
    description: Description,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    generators: dict[str, Tensor],
    history: list[Epoch],
) -> None:
    """Replace the folder's checkpoint, at one moment."""
    slots = {f"slot/{name}": tensor for name, tensor in _slots(network, optimizer).items()}
    states = {f"generator/{name}": tensor for name, tensor in generators.items()}
    files: dict[str, Callable[[Path], object]] = {
        WEIGHTS: partial(_folder.write_tensors, network.state_dict()),
        OPTIMIZER: partial(_folder.write_tensors, slots | states),
        METRICS: partial(_save_lines, [asdict(epoch) for epoch in history]),
    }
    if not exists(folder):
        files[CONFIG] = partial(_save_text, json.dumps(description, indent=2) + "\n")
    _folder.write(folder, files)


def write_diverged(folder: Path, history: list[Epoch], step: int) -> None:
    """Note that the run diverged; weights and optimiser stay those of the last good epoch."""
    lines = [*(asdict(epoch) for epoch in history), {"diverged": step}]
    _folder.write(folder, {METRICS: partial(_save_lines, lines)})


def read(folder: Path) -> Checkpoint:
    """Read and check a run's folder.

    Raises:
        CheckpointError: where there is none, or it is incomplete, damaged, or not what `write` writes.
    """
    return _folder.read(folder, _read, holds=f"{CONFIG}, {WEIGHTS}, {OPTIMIZER}, {METRICS}, {_folder.SUMS}")


def _read(generation: Generation) -> Checkpoint:
    folder = generation.folder
    files = {name: generation.open(name) for name in (CONFIG, WEIGHTS, OPTIMIZER, METRICS)}
    try:
        description = json.loads(_text(files[CONFIG]))
        history, diverged = _history(_text(files[METRICS]))
        weights, state = read_tensors(files[WEIGHTS]), read_tensors(files[OPTIMIZER])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError, CheckpointError) as error:
        raise CheckpointError(f"{folder}: not a checkpoint that unbraid wrote: {error}") from error
    if not isinstance(description, dict):
        raise CheckpointError(f"{folder}: not a checkpoint that unbraid wrote: {CONFIG} holds no JSON object")
    return Checkpoint(description, weights, _under("slot/", state), _under("generator/", state), history, diverged)


def put_weights(folder: Path, weights: dict[str, Tensor], network: nn.Module) -> None:
    """Copy the weights into the network.

    Raises:
        CheckpointError: where a name or a shape differs; the first few are shown.
    """
    check_weights(folder, weights, network)
    try:
        network.load_state_dict(weights)
    except (RuntimeError, TypeError) as error:  # a type of numbers that torch does not convert
        raise CheckpointError(f"{folder}: the weights do not fit this network: {error}") from error


def check_weights(folder: Path, weights: dict[str, Tensor], network: nn.Module) -> None:
    """Compare names and shapes alone; the network may be on the meta device.

    Raises:
        CheckpointError: where one differs; the first few are shown.
    """
    expected = network.state_dict()
    differences = [
        f"  {name}: {_shape(weights.get(name))} in the file, {_shape(expected.get(name))} in the network"
        for name in sorted(weights.keys() | expected.keys())
        if name not in weights or name not in expected or weights[name].shape != expected[name].shape
    ]
    if differences:
        rest = [f"  and {len(differences) - 4} more"] if len(differences) > 4 else []
        headline = f"{folder}: the weights do not fit this network, so it is another one:"
        raise CheckpointError("\n".join((headline, *differences[:4], *rest)))


def put_slots(folder: Path, slots: dict[str, Tensor], network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Copy the optimiser's state into a fresh optimiser of the network's parameters."""
    parameters = dict(network.named_parameters())
    numbers = {name: number for number, name in enumerate(parameters)}
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in slots.items():
        name, _, slot = key.rpartition("/")
        if name not in numbers or tensor.shape not in (parameters[name].shape, torch.Size([])):
            raise CheckpointError(f"{folder}: the optimiser's {key} does not fit this network")
        state.setdefault(numbers[name], {})[slot] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _slots(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    slots = {}
    for name, parameter in network.named_parameters():
        for slot, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):  # SGD without momentum holds None
                slots[f"{name}/{slot}"] = value
    return slots


def _save_lines(rows: list[dict[str, object]], path: Path) -> None:
    _save_text("".join(json.dumps(row) + "\n" for row in rows), path)


def _save_text(text: str, path: Path) -> None:
    path.write_text(text)


def _text(file: OpenFile) -> str:
    return file.read(most=_LONGEST).decode("utf-8")


def _history(text: str) -> tuple[tuple[Epoch, ...], int | None]:
    rows = [json.loads(line) for line in text.splitlines()]
    diverged = int(rows.pop()["diverged"]) if rows and "diverged" in rows[-1] else None
    history = tuple(Epoch(**row) for row in rows)
    values = chain.from_iterable(asdict(epoch).values() for epoch in history)
    if odd := next((value for value in values if type(value) not in (int, float)), None):
        raise TypeError(f"{METRICS} holds {str(odd)[:40]!r} where a number belongs")
    return history, diverged


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _shape(tensor: Tensor | None) -> str:
    return "absent" if tensor is None else str(list(tensor.shape))
