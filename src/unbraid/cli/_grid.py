"""The grid of a sweep: every combination of the values in a TOML file."""

import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from itertools import chain, product
from pathlib import Path
from typing import Any

import torch
from torch import nn as torch_nn

from unbraid import nn
from unbraid.data import Dataset
from unbraid.train import Recipe

__all__ = ["Grid", "Setting", "read_grid"]

_KINDS = ("plain", "residual")
_MOST_BYTES, _MOST_RUNS = 2**20, 100_000  # of a file, and of what it asks for: more is a slip, and would never end
_NAMES = {str: "a text", int: "a whole number", float: "a number", float | str: "a number or a text"}


@dataclass(frozen=True)
class Setting:
    """All that a run is made of but its seed; the defaults are those of `unbraid train`.

    Attributes:
        kind: "residual", or "plain", its twin without skips, always of scale 1, as one would train it.
        depth: the number of blocks.
        width: features of the stream.
        order: the operations of a block, figure 11.5.
        activation: of a block.
        norm: "none", or as in `nn.mlp`.
        scale: of every branch.
        stochastic_depth: the probability of dropping the last branch.
        init: of the weights.
        epochs: passes over the training part.
        batch_size: examples per step.
        lr: the learning rate of the first epoch.
        momentum: of the optimiser.
        weight_decay: of the optimiser.
        optimizer: "sgd" or "adamw".
        schedule: of the learning rate.
        halvings: of the schedule "step".
    """

    kind: str = "residual"
    depth: int = 20
    width: int = 100
    order: str = "act linear +"
    activation: str = "relu"
    norm: str = "none"
    scale: float | str = "1/sqrt(K)"
    stochastic_depth: float = 0.0
    init: str = "he"
    epochs: int = 40
    batch_size: int = 100
    lr: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 0.0
    optimizer: str = "sgd"
    schedule: str = "step"
    halvings: int = 5

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise ValueError(f'kind is "plain" or "residual"; got "{self.kind}"')

    @property
    def recipe(self) -> Recipe:
        """How it is trained."""
        return Recipe(**{field.name: getattr(self, field.name) for field in fields(Recipe)})

    @property
    def stack(self) -> tuple[object, ...]:
        """Equal for two settings whose networks can be trained side by side."""
        free = {"lr", "momentum", "weight_decay", "schedule", "halvings", "scale"}
        return (*(getattr(self, field.name) for field in fields(self) if field.name not in free), self._scale_kind)

    @property
    def _scale_kind(self) -> object:
        """Scales by constants other than 1 differ in a number alone; the rest differ in their modules."""
        scale = self.scale
        named = scale == "1/sqrt(2)" or (scale == "1/sqrt(K)" and self.depth > 1)
        return "constant" if named or (isinstance(scale, float) and scale != 1) else scale

    def network(self, data: Dataset, seed: int) -> torch_nn.Module:
        """The network with the first weights of a seed."""
        residual = nn.mlp(
            inputs=data.features[0],
            classes=data.classes,
            width=self.width,
            depth=self.depth,
            order=self.order,
            activation=self.activation,
            norm=None if self.norm == "none" else self.norm,
            scale=self.scale,
            stochastic_depth=self.stochastic_depth,
            init=self.init,
            generator=torch.Generator().manual_seed(seed),
        )
        return residual if self.kind == "residual" else residual.plain()


@dataclass(frozen=True)
class Grid:
    """What a TOML file asks for.

    Attributes:
        data: the name of the data set, or its file.
        runs: each setting with a seed, once, in the order of the file.
    """

    data: str
    runs: tuple[tuple[Setting, int], ...]

    @property
    def settings(self) -> tuple[Setting, ...]:
        """Each setting once."""
        return tuple(dict.fromkeys(setting for setting, _ in self.runs))

    def seeds(self, setting: Setting) -> tuple[int, ...]:
        """The seeds of a setting."""
        return tuple(seed for other, seed in self.runs if other == setting)

    def varied(self) -> tuple[str, ...]:
        """The names of what differs between settings, or depth where nothing does."""
        rows = [asdict(setting) for setting in self.settings]

        def varies(name: str) -> bool:
            return len({row[name] for row in rows}) > 1

        return tuple(filter(varies, rows[0])) or ("depth",)

    def stacks(self, together: int) -> list[list[tuple[Setting, int]]]:
        """The runs in groups of at most `together` that can be trained side by side, equal recipes next to another."""
        groups: dict[object, list[tuple[Setting, int]]] = {}
        for run in self.runs:
            # Side by side, layers that draw would draw other numbers than alone, so those networks are.
            alone = run if run[0].stochastic_depth > 0 else None
            groups.setdefault((run[0].stack, alone), []).append(run)
        stacks = []
        for group in groups.values():
            ordered = sorted(group, key=lambda run: repr(run[0].recipe))
            stacks += [ordered[at : at + together] for at in range(0, len(ordered), together)]
        return stacks

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> "Grid":
        """The grid of a TOML table: a key has a value or a list of them; each [[grid]] adds a grid of its own.

        Raises:
            ValueError: a key that does not exist, a value of another type, or nothing to train.
        """
        shared = {key: value for key, value in table.items() if key != "grid"}
        data = shared.pop("data", "mnist1d")
        if not isinstance(data, str):
            raise ValueError(f"data is the name of one data set; got {data!r}")
        grids = table.get("grid", [{}])
        if not (isinstance(grids, list) and grids and all(isinstance(grid, dict) for grid in grids)):
            raise ValueError(f"grids are tables, each under a line [[grid]]; got grid = {grids!r}")
        runs = chain.from_iterable(_product(shared | grid) for grid in grids)
        return cls(data, tuple(dict.fromkeys(runs)))


def read_grid(path: Path) -> Grid:
    """Read a sweep's TOML file.

    Raises:
        ValueError: where it is no TOML, or as `Grid.of`; the file is named.
        OSError: where it cannot be read.
    """
    with path.open("rb") as file:
        text = file.read(_MOST_BYTES + 1)
    try:
        if len(text) > _MOST_BYTES:
            raise ValueError(f"a grid of more than {_MOST_BYTES:,} bytes is refused")
        return Grid.of(tomllib.loads(text.decode("utf-8")))
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{path}: {error}") from error
    except RecursionError as error:
        raise ValueError(f"{path}: its lists or tables are nested too deeply") from error


def _product(table: Mapping[str, Any]) -> Iterator[tuple[Setting, int]]:
    types: dict[str, Any] = {field.name: field.type for field in fields(Setting)}
    known = [*types, "seeds"]
    for key in table:
        if key not in known:
            meant = get_close_matches(key, known, 1)
            hint = f'did you mean "{meant[0]}"? ' if meant else ""
            raise ValueError(f'unknown key "{key}"; {hint}Known keys: data, {", ".join(known)}, and tables [[grid]]')
    seeds = _seeds(table.get("seeds", 1))
    lists = {key: _values(key, value, types[key]) for key, value in table.items() if key != "seeds"}
    if (runs := math.prod(map(len, lists.values())) * len(seeds)) > _MOST_RUNS:
        raise ValueError(f"{runs:,} runs are asked for; {_MOST_RUNS:,} are allowed in one grid")
    for values in product(*lists.values()):
        setting = Setting(**dict(zip(lists, values, strict=True)))
        if setting.kind == "plain":
            # Without skips there is no branch to scale or to drop: one run stands for all scales listed.
            setting = replace(setting, scale=1.0, stochastic_depth=0.0)
        _ = setting.recipe  # refuses values out of range before anything is trained
        yield from ((setting, seed) for seed in seeds)


def _values(key: str, given: object, kind: Any) -> list[Any]:
    values = given if isinstance(given, list) else [given]
    if not values:
        raise ValueError(f"{key} = [] leaves nothing to train; give a value or a list of them")
    for value in values:
        # In TOML 1 is whole and 1.0 is not; where fractions are welcome, so is a whole number. True is no number.
        fits = isinstance(value, kind) or (kind is not int and kind is not str and isinstance(value, int))
        if not fits or isinstance(value, bool):
            raise ValueError(f"{key} is {_NAMES[kind]}, or a list of them; got {value!r}")
    numbers = [float(value) if isinstance(value, int) and kind is not int else value for value in values]
    if endless := [value for value in numbers if isinstance(value, float) and not math.isfinite(value)]:
        raise ValueError(f"{key} is finite; got {endless[0]}")
    return numbers


def _seeds(given: object) -> list[int]:
    if isinstance(given, int) and given > _MOST_RUNS:
        raise ValueError(f"seeds = {given} asks for more runs than the {_MOST_RUNS:,} that are allowed in one grid")
    values = list(range(given)) if isinstance(given, int) and not isinstance(given, bool) else given
    if not isinstance(values, list) or not all(type(seed) is int for seed in values):
        raise ValueError(f"seeds is how many, or a list of whole numbers; got {given!r}")
    if out := next((seed for seed in values if not 0 <= seed < 2**63), None):
        raise ValueError(f"seeds are whole numbers from 0 to 2^63 − 1; got {out}")
    if not values:
        raise ValueError(f"seeds = {given!r} leaves nothing to train; give how many, or a list of whole numbers")
    return values
