"""What direct attribution costs beside a plain forward run: GPT-2 small, 4 × 128 tokens, random weights.

    python benchmarks/attribute.py

Times are medians over turns of both in one process. Memory is the peak above what is resident before the run, measured
by the kernel in a child process for each (VmHWM after a reset through /proc/self/clear_refs), so parameters do not
count and whatever the run takes does. Ratios are printed beside their bars; nothing is asserted.
"""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

import _libraries  # noqa: F401
from _memory import from_now, in_child, resident
from _rows import Row, keep
from unbraid import attribute, trace, unravel

RESULTS = Path(__file__).parent / "results" / "attribute.json"
CASE = "GPT-2 small, 4×128 tokens"
KINDS = ("forward", "attribute", "attribute by function", "unravel and attribute")
app = typer.Typer(add_completion=False)


def gpt2() -> tuple[torch.nn.Module, torch.Tensor]:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(use_cache=False)).eval()
    return model, torch.randint(model.config.vocab_size, (4, 128), generator=torch.Generator().manual_seed(0))


def works(model: torch.nn.Module, ids: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """Each piece of work, by its name."""
    # Traced on 2 × 8 tokens: a trace runs the model, and its memory is none of this.
    form = trace(model, (), {"input_ids": ids[:2, :8]})
    call: dict[str, Any] = {"input_ids": ids}

    def forward() -> Any:
        with torch.no_grad():
            return model(**call)

    return {
        "forward": forward,
        "attribute": lambda: attribute(form, (), call, target=(127, 11)),
        "attribute by function": lambda: attribute(form, (), call, target=lambda scores: scores[:, 127, 11]),
        "unravel and attribute": lambda: unravel(form, (), call).attribute((127, 11)),
    }


@app.command()
def main(
    turns: Annotated[int, typer.Option(min=1, help="Turns of each, of which the median counts.")] = 7,
    peak: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Measure, print and keep."""
    model, ids = gpt2()
    each = works(model, ids)
    if peak:
        before = from_now()
        each[peak]()
        print(json.dumps({"bytes": resident("VmHWM") - before}))
        return
    seconds: dict[str, list[float]] = {name: [] for name in each}
    for turn in range(turns + 1):
        for name, work in each.items():
            start = time.perf_counter()
            work()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    times = {name: statistics.median(found) for name, found in seconds.items()}
    del model, each
    peaks = {name: in_child(__file__, "--peak", name)["bytes"] for name in KINDS}
    rows: list[Row] = []
    for name in KINDS[1:]:
        bar = "≤ 1.15" if name == "attribute" else ""
        ratio, memory = times[name] / times["forward"], peaks[name] / peaks["forward"]
        rows.append({"case": CASE, "quantity": f"{name}: time / forward", "value": ratio, "bar": bar})
        rows.append({"case": CASE, "quantity": f"{name}: peak memory / forward", "value": memory, "bar": bar})
    for row in rows:
        print(f"{row['quantity']:48} {row['value']:6.2f}  {row['bar']}")
    print("forward:", f"{times['forward']:.2f} s,", f"{peaks['forward'] / 1e6:.0f} MB above the parameters")
    keep(RESULTS, [{**row, "seconds": times, "bytes": peaks} for row in rows], "cpu")


if __name__ == "__main__":
    app()
