"""How long tracing takes: against depth, on the meta device, for ResNet-50, and beside an export and runs.

    python benchmarks/trace.py                 # all tables, written to benchmarks/results/trace.json
    python benchmarks/trace.py --cases depth   # one of them

Every figure is a ratio or a growth within one run; absolute times are printed beside them for this machine alone.
"""

import gc
import json
import math
import platform
import resource
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from unittest import mock

import torch
import typer
from rich.console import Console
from rich.table import Table

import _first_answer
import _libraries  # noqa: F401
import unbraid
from _rows import keep

RESULTS = Path(__file__).parent / "results" / "trace.json"
DEPTHS = (4, 8, 16, 32, 64, 160)
ALL = "depth,meta,resnet,first,memory"


def main(
    cases: Annotated[str, typer.Option(help="Of depth, meta, resnet, first and memory, with commas between.")] = ALL,
    runs: Annotated[int, typer.Option(min=1, help="Runs of each, of which the median counts.")] = 3,
    peak: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Measure and print."""
    if peak:
        print(json.dumps(_first_answer.peak(peak)))
        return
    chosen = cases.split(",")
    known: dict[str, Callable[[int], list[dict[str, Any]]]] = {"depth": depth, "meta": meta, "resnet": resnet}
    for case in chosen:
        if case not in ALL.split(","):
            raise typer.BadParameter(f'no case "{case}"; there are {ALL}')
    if "first" in chosen:
        keep(RESULTS, _first_answer.times(runs), "cpu")
    if "memory" in chosen:
        keep(RESULTS, _first_answer.memory(__file__), "cpu")
    if not known.keys() & set(chosen):
        return
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for case in [case for case in chosen if case in known]:
        found[case] = known[case](runs)
        show(case, found[case])
    found["machine"] = {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


def depth(runs: int) -> list[dict[str, Any]]:
    """Layers of a small Llama on the meta device, 4 to 160: the export, and what trace adds (find, cut)."""
    rows = []
    for layers in DEPTHS:
        with torch.device("meta"):
            model, kwargs = llama(layers, width=64)
            export, rest = (statistics.median(times) for times in zip(*split(model, kwargs, runs), strict=True))
        rows.append(
            {"layers": layers, "export s": export, "find and cut s": rest, "find and cut / export": rest / export}
        )
    for column in ("export s", "find and cut s"):
        logs = [(math.log(row["layers"]), math.log(row[column])) for row in rows if isinstance(row["layers"], int)][1:]
        slope = statistics.linear_regression(*zip(*logs, strict=True)).slope
        rows.append({"layers": f"growth of {column[:-2]}: layers^{slope:.2f}"})
    return rows


def split(model: torch.nn.Module, kwargs: dict[str, Any], runs: int) -> list[tuple[float, float]]:
    """The seconds of the export and of the rest, within each of some traces after a first one.

    Within one trace: the difference of two traces' times would be mostly their noise.
    """
    export, inside, found = torch.export.export, [0.0], []

    def timed(*args: Any, **options: Any) -> Any:
        begin = time.perf_counter()
        exported = export(*args, **options)
        inside[0] += time.perf_counter() - begin
        return exported

    with mock.patch.object(torch.export, "export", timed):
        for _ in range(runs + 1):
            # Python's collector goes through every object alive, the model's too, whenever it likes: half a second
            # falls now on one part and now on the other.
            gc.collect()
            gc.disable()
            inside[0] = 0.0
            begin = time.perf_counter()
            unbraid.trace(model, (), kwargs)
            found.append((inside[0], time.perf_counter() - begin - inside[0]))
            gc.enable()
    return found[1:]


def meta(runs: int) -> list[dict[str, Any]]:
    """The structure of a Llama of 70 billion parameters: 80 layers, 160 blocks, no memory for weights."""
    begin = time.perf_counter()
    with torch.device("meta"):
        model, kwargs = llama(80, width=8192, heads=64, inner=28672, words=128256)
        form = unbraid.trace(model, (), kwargs)
    return [
        {
            "blocks": len(form.blocks),
            "billion parameters": sum(p.numel() for p in model.parameters()) / 1e9,
            "seconds (bar 20)": time.perf_counter() - begin,
            "GB of peak memory (bar 1.5)": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        }
    ]


def resnet(runs: int) -> list[dict[str, Any]]:
    """ResNet-50 of timm, traced and verified at one image of 224x224."""
    import timm

    model = timm.create_model("resnet50").eval()
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    seconds = []
    for _ in range(runs + 1):
        begin = time.perf_counter()
        form = unbraid.trace(model, image)
        seconds.append(time.perf_counter() - begin)
    return [{"blocks": len(form.blocks), "seconds (bar 3)": statistics.median(seconds[1:]), "first": seconds[0]}]


def llama(
    layers: int, width: int, heads: int = 4, inner: int | None = None, words: int = 100
) -> tuple[torch.nn.Module, dict[str, Any]]:
    """A Llama with random weights, and its inputs."""
    import transformers

    config = transformers.LlamaConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=max(1, heads // 8),
        intermediate_size=inner or 2 * width,
        vocab_size=words,
    )
    return transformers.LlamaForCausalLM(config).eval(), {
        "input_ids": torch.zeros(2, 16, dtype=torch.long),
        "use_cache": False,
    }


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """Print one table."""
    table = Table(title=title, title_justify="left")
    for column in rows[0]:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*(f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()))
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
