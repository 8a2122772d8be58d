"""Write the tables of docs/benchmarks.md from benchmarks/results/.

python scripts/benchmarks_page.py
"""

import json
import runpy
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "studies"))
from _study import markdown, rewrite

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"
Row = dict[str, Any]


def main() -> None:
    rewrite(PAGE, tables())


def tables() -> dict[str, str]:
    """Every table of the page by its name there."""
    runs = read("depth")["runs"]
    # By its path: the study of the same question is called depth.py, too.
    by_depth = runpy.run_path(str(ROOT / "benchmarks" / "depth.py"))["markdown"]
    return {
        "paths": measured(read("paths")["rows"]),
        "lesion": measured(read("lesion")["rows"]),
        "attribute": measured(read("attribute")["rows"]),
        "stream": measured(read("stream")["rows"]),
        "checkpointing": measured(read("checkpointing")["rows"]),
        "throughput": measured(read("throughput")["rows"]),
        "scaling": measured(read("scaling")["rows"]),
        "importing": measured(read("importing")["rows"]),
        "interrupt": measured(read("interrupt")["rows"]),
        "trace": traced(read("trace")),
        "many": together(read("many")["rows"]),
        "depth": by_depth(runs, sorted({run["depth"] for run in runs})),
    }


def read(name: str) -> Row:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())


def measured(rows: list[Row]) -> str:
    """Ratios beside their bars."""
    lines = [
        [row["case"], row["quantity"], f"{row['value']:.3g}", row.get("bar") or "-", str(row["threads"]), row["device"]]
        for row in rows
    ]
    return markdown(["case", "quantity", "value", "bar", "threads", "device"], lines)


def traced(found: Row) -> str:
    """Growth with depth, then the large model and the real one."""
    layers = [row for row in found["depth"] if isinstance(row["layers"], int)]
    growth = [row["layers"] for row in found["depth"] if not isinstance(row["layers"], int)]
    lines = [
        [
            f"{row['layers']} layers",
            f"{row['export s']:.2f}",
            f"{row['find and cut s']:.3f}",
            f"{100 * row['find and cut / export']:.1f} %",
        ]
        for row in layers
    ]
    [large], [real] = found["meta"], found["resnet"]
    said = [
        *(f"- {text}" for text in growth),
        f"- Llama of {large['billion parameters']:.1f} billion parameters, {large['blocks']} blocks, structure alone: "
        f"{large['seconds (bar 20)']:.1f} s (bar 20) and {large['GB of peak memory (bar 1.5)']:.2f} GB (bar 1.5)",
        f"- ResNet-50, {real['blocks']} blocks, verified: {real['seconds (bar 3)']:.2f} s (bar 3)",
    ]
    table = markdown(["model", "export, s", "find and cut, s", "of the export"], lines)
    return "\n".join([table, "", *said, "", measured(found["rows"])])


def together(rows: list[Row]) -> str:
    """How many times faster many networks train at once."""
    lines = [
        [
            f"{row['networks']} networks, {row['norm'] or 'no'} norm, {row['device']}",
            f"{row['times']:.2f} ({row['times_least']:.2f} to {row['times_most']:.2f})",
            f"{row['times_1_thread']:.2f}",
        ]
        for row in rows
    ]
    return markdown(["what", "times faster", "on one thread"], lines)


if __name__ == "__main__":
    main()
