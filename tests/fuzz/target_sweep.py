"""The TOML files of `unbraid sweep`."""

from pathlib import Path

from fuzz._changes import changed_bytes
from fuzz._source import Source, often, pick

KEYS = (
    *"kind depth width order activation norm scale stochastic_depth init epochs batch_size lr momentum".split(),
    *"weight_decay optimizer schedule halvings seeds data grid dept [x] a.b".split(),
)
VALUES = (
    *("1", "0", "-1", "3", "2.5", "1e400", "nan", "inf", "9223372036854775807", "1" + "0" * 400, "true", "1979-05-27"),
    *('"residual"', '"plain"', '"act linear +"', '"linear"', '"1/sqrt(K)"', '"sgd"', '""', '"\\u0000"', "'''x'''"),
    *("[]", "[1, 2]", "[0.1, 0.2]", '["plain", "residual"]', "[1, 'x']", "[[1]]", "{}", "{a = 1}", "[" * 3000),
    "[" + "1," * 2000 + "]",
)


def case(source: Source, folder: Path):
    from unbraid.cli._grid import read_grid

    lines = [f"{pick(source, KEYS)} = {pick(source, VALUES)}" for _ in range(source.number(0, 5))]
    lines += [
        f"[[grid]]\n{pick(source, KEYS)} = {pick(source, VALUES)}" for _ in range(source.number(0, 2)) if often(source)
    ]
    content = "\n".join(lines).encode()
    path = folder / "grid.toml"
    path.write_bytes(content if often(source, 3) else changed_bytes(source, content))

    def load() -> None:
        grid = read_grid(path)
        if len(grid.runs) < 1000:
            assert grid.varied()
            assert sum(map(len, grid.stacks(16))) == len(grid.runs)

    return load
