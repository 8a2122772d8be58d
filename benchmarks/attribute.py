"""What direct attribution costs beside a plain forward run and beside TransformerLens, where that is installed.

    python benchmarks/attribute.py

GPT-2 small, 4 × 128 tokens, random weights. TransformerLens caches a run, decomposes the stream and attributes a
score to the parts (`_transformer_lens`), as `unravel(...).attribute(...)` does. Times are medians over turns of all in
one process, of the processor's seconds, with Python's collector off. Memory is the peak above what is resident before
the run, measured by the kernel in a child process for each (VmHWM after a reset through /proc/self/clear_refs), so
parameters do not count and whatever the run takes does. Ratios are printed beside their bars; nothing is asserted.
"""

import gc
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

import _libraries  # noqa: F401
import _transformer_lens
from _memory import from_now, in_child, resident
from _rows import Row, keep
from unbraid import attribute, trace, unravel

RESULTS = Path(__file__).parent / "results" / "attribute.json"
CASE = "GPT-2 small, 4×128 tokens"
KINDS = ("forward", "attribute", "attribute by function", "unravel and attribute")
PEER = "TransformerLens"
UNRAVELLED = "unravel and attribute"
app = typer.Typer(add_completion=False)


def gpt2() -> tuple[torch.nn.Module, torch.Tensor]:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(use_cache=False)).eval()
    return model, torch.randint(model.config.vocab_size, (4, 128), generator=torch.Generator().manual_seed(0))


def works(model: torch.nn.Module, ids: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """Each piece of work of ours, by its name."""
    # Traced on 2 × 8 tokens: a trace runs the model, and its memory is none of this.
    form = trace(model, (), {"input_ids": ids[:2, :8]})
    call: dict[str, Any] = {"input_ids": ids}

    def forward() -> Any:
        with torch.no_grad():
            return model(**call)

    return {
        "forward": forward,
        "attribute": lambda: attribute(form, (), call, target=(127, 11)),
        "attribute by function": lambda: attribute(form, (), call, target=lambda output: output.logits[:, 127, 11]),
        "unravel and attribute": lambda: unravel(form, (), call).attribute((127, 11)),
    }


@app.command()
def main(
    turns: Annotated[int, typer.Option(min=1, help="Turns of each, of which the median counts.")] = 7,
    peak: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Measure, print and keep."""
    model, ids = gpt2()
    peers = {PEER: lambda: _transformer_lens.attribution(ids, 11)} if _transformer_lens.installed() else {}
    if peak:
        work = peers[peak]() if peak in peers else works(model, ids)[peak]
        before = from_now()
        work()
        print(json.dumps({"bytes": resident("VmHWM") - before}))
        return
    each = {**works(model, ids), **{name: make() for name, make in peers.items()}}
    seconds: dict[str, list[float]] = {name: [] for name in each}
    for turn in range(turns + 1):
        for name, work in each.items():
            gc.collect()
            gc.disable()
            start = time.process_time()
            work()
            if turn:
                seconds[name].append(time.process_time() - start)
            gc.enable()
    times = {name: statistics.median(found) for name, found in seconds.items()}
    del model, each
    peaks = {name: in_child(__file__, "--peak", name)["bytes"] for name in (*KINDS, *peers)}
    rows: list[Row] = []
    for name in KINDS[1:]:
        bar = "≤ 1.15" if name == "attribute" else ""
        ratio, memory = times[name] / times["forward"], peaks[name] / peaks["forward"]
        rows.append({"case": CASE, "quantity": f"{name}: time / forward", "value": ratio, "bar": bar})
        rows.append({"case": CASE, "quantity": f"{name}: peak memory / forward", "value": memory, "bar": bar})
    for name in peers:
        ratio, memory = times[UNRAVELLED] / times[name], peaks[UNRAVELLED] / peaks[name]
        rows.append({"case": CASE, "quantity": f"{UNRAVELLED}: time / {name}", "value": ratio, "bar": "≤ 1.2"})
        rows.append({"case": CASE, "quantity": f"{UNRAVELLED}: memory / {name}", "value": memory, "bar": "≤ 1.2"})
    for row in rows:
        print(f"{row['quantity']:60} {row['value']:6.2f}  {row['bar']}")
    print("forward:", f"{times['forward']:.2f} s,", f"{peaks['forward'] / 1e6:.0f} MB above the parameters")
    keep(RESULTS, [{**row, "seconds": times, "bytes": peaks} for row in rows], "cpu")


if __name__ == "__main__":
    app()
