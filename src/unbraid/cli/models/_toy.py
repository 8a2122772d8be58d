"""A residual network small enough for a blackboard: scalar blocks f_k[h] = w_k·h."""

from dataclasses import dataclass
from itertools import product
from typing import Any

from rich import box
from rich.table import Table

__all__ = ["TOY", "Toy", "ToyPath"]


@dataclass(frozen=True)
class ToyPath:
    """One path from x to y.

    Attributes:
        entered: for each block, whether the path goes through its branch rather than its skip.
        value: what the path adds to y.
    """

    entered: tuple[bool, ...]
    value: float

    @property
    def length(self) -> int:
        """The number of branches it goes through."""
        return sum(self.entered)

    @property
    def blocks(self) -> tuple[int, ...]:
        """Those branches, counted from 1 as in the book."""
        return tuple(number for number, entered in enumerate(self.entered, start=1) if entered)


@dataclass(frozen=True)
class Toy:
    """Equation 11.4 with scalar blocks, h_k = h_{k−1} + w_k·h_{k−1}; all without units.

    Attributes:
        weights: w_1 to w_K.
        x: the input.
    """

    weights: tuple[float, ...]
    x: float

    def hidden(self) -> tuple[float, ...]:
        """h_1 to h_K by Equation 11.4; the last is the output y."""
        h, values = self.x, []
        for weight in self.weights:
            h = h + weight * h
            values.append(h)
        return tuple(values)

    def paths(self) -> tuple[ToyPath, ...]:
        """All 2^K paths, the shortest first: Equation 11.5 multiplied out, each branch or skip in turn applied to x."""
        masks = product((False, True), repeat=len(self.weights))
        return tuple(sorted(map(self._path, masks), key=lambda path: (path.length, path.blocks)))

    def _path(self, entered: tuple[bool, ...]) -> ToyPath:
        value = self.x
        for weight, enters in zip(self.weights, entered, strict=True):
            value = weight * value if enters else value
        return ToyPath(entered, value)

    def table(self) -> Table:
        """The paths and both sums; 4 blocks fit on a screen of 80 by 24."""
        paths = self.paths()
        functions = ", ".join(f"f{k}[h] = {w:g}h" for k, w in enumerate(self.weights, start=1))
        steps = ", ".join(f"h{k} = {h:g}" for k, h in enumerate(self.hidden()[:-1], start=1))
        table = Table(
            box=box.SIMPLE_HEAD,
            padding=(0, 2, 0, 0),
            title=f"{functions}, x = {self.x:g}",
            caption=f"sum of the {len(paths)} paths = {sum(path.value for path in paths):g}\n"
            f"block after block (Equation 11.4): {steps}, y = {self.hidden()[-1]:g}",
            title_justify="left",
            caption_justify="left",
        )
        table.add_column("path")
        table.add_column("branches", justify="right")
        table.add_column("product")
        table.add_column("value", justify="right")
        for path in paths:
            way = " → ".join(["x", *(f"f{block}" for block in path.blocks), "y"])
            factors = " · ".join([*(f"{self.weights[block - 1]:g}" for block in path.blocks), f"{self.x:g}"])
            table.add_row(way, str(path.length), factors, f"{path.value:g}")
        return table

    def to_dict(self) -> dict[str, Any]:
        """Weights, paths and both sums, ready for JSON."""
        paths = self.paths()
        return {
            "weights": list(self.weights),
            "x": self.x,
            "paths": [{"blocks": list(path.blocks), "length": path.length, "value": path.value} for path in paths],
            "sum_of_paths": sum(path.value for path in paths),
            "output": self.hidden()[-1],
        }


# Halves and small integers: every product and sum is exact, also in one's head.
TOY = Toy(weights=(2.0, -0.5, 3.0, 1.0), x=1.0)
