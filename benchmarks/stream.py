"""A model whose weights are three times the memory allowed: unravelled, attributed, and lesioned block by block.

    python benchmarks/stream.py                 # a Llama of 2.7 GB, in a folder that is removed again
    python benchmarks/stream.py --layers 4      # a smaller one

Its shards hold random weights. One child process traces the model without weights and leaves them in the files; another
loads them into memory. Memory is the peak above Python with all libraries loaded, measured by the kernel (VmHWM after a
reset through /proc/self/clear_refs). Both print the same numbers, or the benchmark says that they differ.
"""

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy

import _libraries  # noqa: F401
import unbraid
from _memory import from_now, in_child, resident
from _rows import Row, keep

RESULTS = Path(__file__).parent / "results" / "stream.json"
SHARD = 200_000_000  # bytes of a file, about
IDS = torch.randint(3, 1000, (2, 16), generator=torch.Generator().manual_seed(0))
CALL: dict[str, Any] = {"input_ids": IDS, "use_cache": False}
app = typer.Typer(add_completion=False)


@app.command()
def main(
    layers: Annotated[int, typer.Option(min=1, help="Of the Llama; two blocks each.")] = 12,
    child: Annotated[str, typer.Option(hidden=True)] = "",
    folder: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Measure, print and keep."""
    if child:
        print(json.dumps(measured(layers, Path(folder), streamed=child == "streamed")))
        return
    with tempfile.TemporaryDirectory() as place:
        weights = write(empty(layers), Path(place))
        print(f"weights {weights / 1e9:.2f} GB, allowed {weights / 3e9:.2f} GB")
        arguments = ("--layers", str(layers), "--folder", place)
        found = {how: in_child(__file__, *arguments, "--child", how) for how in ("in memory", "streamed")}
        equal = all(
            torch.equal(*(torch.load(f"{place}/{how}.pt", weights_only=True)[name] for how in found))
            for name in ("terms", "attribution", "lesion")
        )
    case = f"Llama of {layers} layers, {weights / 1e9:.2f} GB, 2×16 tokens"
    rows: list[Row] = []
    print(f"{'':>12} {'streamed':>10} {'in memory':>10}   of the weights")
    for quantity in ("trace and load", "unravel", "attribute", "lesion"):
        streamed, whole = (found[how][f"peak {quantity}"] for how in ("streamed", "in memory"))
        print(f"{quantity:>14} {streamed / 1e6:7.0f} MB {whole / 1e6:7.0f} MB   {streamed / weights:.3f}")
        rows.append(row(case, f"{quantity}: peak memory / weights", streamed / weights, "≤ 0.333"))
        slower = found["streamed"][f"seconds {quantity}"] / found["in memory"][f"seconds {quantity}"]
        rows.append(row(case, f"{quantity}: time streamed / in memory", slower))
    for found_row in rows[1::2]:
        print(f"{found_row['quantity']}: {found_row['value']:.2f}")
    print("the numbers are the same bits" if equal else "THE NUMBERS DIFFER")
    rows.append(row(case, "same bits", float(equal), "1"))
    keep(RESULTS, [{**r, "measured": found} for r in rows], "cpu")


def measured(layers: int, folder: Path, *, streamed: bool) -> dict[str, float]:
    """Peak memory and seconds of each analysis, all above what the libraries take."""
    analyses(trace(small(), streamed=False))  # the libraries, with all that they import
    found: dict[str, float] = {}
    before = from_now()

    def timed(name: str, work: Callable[[], Any]) -> Any:
        from_now()
        start = time.perf_counter()
        made = work()
        found[f"seconds {name}"] = time.perf_counter() - start
        found[f"peak {name}"] = resident("VmHWM") - before
        return made

    form = timed("trace and load", lambda: trace(empty(layers), streamed=True).with_weights(folder, stream=streamed))
    kept = {name: timed(name, work) for name, work in WORKS(form).items()}
    torch.save(
        {
            "terms": kept["unravel"].values,
            "attribution": kept["attribute"].values,
            "lesion": torch.tensor([kept["lesion"].whole, *kept["lesion"].metrics]),
        },
        folder / f"{'streamed' if streamed else 'in memory'}.pt",
    )
    return found


def WORKS(form: unbraid.ResidualForm) -> dict[str, Callable[[], Any]]:  # noqa: N802
    """Each analysis by its name."""
    return {
        "unravel": lambda: unbraid.unravel(form, (), CALL),
        "attribute": lambda: unbraid.attribute(form, (), CALL, target=(15, 11)),
        "lesion": lambda: unbraid.lesion(
            form, [(CALL, IDS[:, 0])], lambda output, label: cross_entropy(output["logits"][:, -1], label)
        ),
    }


def analyses(form: unbraid.ResidualForm) -> None:
    """Run each once."""
    for work in WORKS(form).values():
        work()


def trace(model: torch.nn.Module, *, streamed: bool) -> unbraid.ResidualForm:
    return unbraid.trace(model, (), CALL, device="meta" if streamed else None)


def empty(layers: int) -> torch.nn.Module:
    """The Llama without memory for its weights."""
    with unbraid.empty_weights():
        return llama(layers, 2048, 5632, 32_000)


def small() -> torch.nn.Module:
    return llama(1, 16, 32, 1000)


def llama(layers: int, width: int, inner: int, words: int) -> torch.nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=max(2, width // 64),
        num_key_value_heads=max(1, width // 256),
        vocab_size=words,
    )
    return LlamaForCausalLM(config).eval()


def write(model: torch.nn.Module, folder: Path) -> int:
    """Random weights in shards, never more than one shard in memory; returns their bytes."""
    generator = torch.Generator().manual_seed(0)
    index: dict[str, str] = {}
    shard: dict[str, torch.Tensor] = {}
    total = 0
    for name, parameter in model.named_parameters():
        drawn = torch.randn(parameter.shape, generator=generator)
        shard[name] = 1 + 0.1 * drawn if drawn.ndim == 1 else 0.02 * drawn
        index[name] = (
            f"model-{len(set(index.values())):05}.safetensors" if len(shard) == 1 else list(index.values())[-1]
        )
        total += drawn.nbytes
        if sum(tensor.nbytes for tensor in shard.values()) > SHARD:
            save_file(shard, folder / index[name])
            shard = {}
    if shard:
        save_file(shard, folder / index[name])
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return total


def row(case: str, quantity: str, value: float, bar: str = "") -> Row:
    return {"case": case, "quantity": quantity, "value": value, "bar": bar}


if __name__ == "__main__":
    app()
