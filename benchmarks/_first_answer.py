"""How long the first answer takes, a trace, and how much memory: in units of an export and of runs of the model.

The unit of time is torch.export with the same sizes left free, and three runs of the model; where torch cannot export
a model, what it takes to say so. A trace compares gradients once, at two examples: that check is a row by itself.
Everything takes its turn in one process, so that what else the machine does falls on both sides, and counts the
processor's time, which does not run while another program has the core. Python's collector is off in between.

The unit of memory is the peak of a process that exports the model, keeps the graph and runs it once; that of a trace is
measured in another process. Both hold torch, the libraries and the model's parameters.
"""

import gc
import inspect
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.export import Dim

import _libraries  # noqa: F401
import unbraid
from _memory import from_now, in_child, resident
from _rows import Row
from unbraid.form import _verify
from zoo import catalogue

BAR = "≤ 1.3"
ZOO = tuple(entry.name for entry in catalogue.MODELS[::15])  # every fifteenth of the catalogue
GRADIENTS = "gradients_against_model"


@dataclass(frozen=True)
class Call:
    """A model and what it is called with."""

    model: nn.Module
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


def gpt2() -> Call:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(use_cache=False)).eval()
    return Call(model, (), {"input_ids": torch.randint(50257, (4, 128))})


def mixtral() -> Call:
    from transformers import MixtralConfig, MixtralForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 512, "intermediate_size": 1024, "vocab_size": 8000}
    config = MixtralConfig(num_hidden_layers=2, num_attention_heads=8, num_key_value_heads=4, **sizes)
    ids = torch.randint(8000, (4, 128))
    return Call(MixtralForCausalLM(config).eval(), (), {"input_ids": ids, "use_cache": False})


def t5() -> Call:
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    model = T5ForConditionalGeneration(T5Config(decoder_start_token_id=0)).eval()
    read, written = torch.randint(32000, (4, 64)), torch.randint(32000, (4, 32))
    return Call(model, (), {"input_ids": read, "decoder_input_ids": written, "use_cache": False})


def resnet(images: int) -> Call:
    import timm

    torch.manual_seed(0)
    return Call(timm.create_model("resnet50").eval(), (torch.randn(images, 3, 224, 224),))


LARGE: dict[str, Callable[[], Call]] = {
    "GPT-2 small, 4×128 tokens": gpt2,
    "Mixtral of 2 layers, 4×128 tokens": mixtral,
    "T5 small, 4×64 and 4×32 tokens": t5,
    "ResNet-50, 1 image 224×224": lambda: resnet(1),
    "ResNet-50, 4 images 224×224": lambda: resnet(4),
}


def from_zoo(name: str) -> Call:
    made = catalogue.find(name).make()
    return Call(made.model, made.args, made.kwargs)


def times(turns: int) -> list[Row]:
    """One row per model and quantity, and the median of the zoo's models."""
    rows: list[Row] = []
    for case, make in LARGE.items():
        rows += [{"case": case, **row} for row in ratios(make(), turns)]
        print(case, *(f"{row['value']:.2f}" for row in rows[-2:]), flush=True)
    each = {name: ratios(from_zoo(name), turns) for name in ZOO}
    for number, quantity in enumerate(row["quantity"] for row in each[ZOO[0]]):
        values = {name: rows_of[number]["value"] for name, rows_of in each.items()}
        bar = each[ZOO[0]][number]["bar"]
        case = f"median of {len(ZOO)} models of the zoo"
        rows.append(
            {
                "case": case,
                "quantity": quantity,
                "value": statistics.median(values.values()),
                "bar": bar,
                "each": values,
            }
        )
    return rows


def ratios(call: Call, turns: int) -> list[Row]:
    """The trace, and its check of gradients, over an export and three runs."""
    seconds: dict[str, list[float]] = {"run": [], "export": [], "trace": [], "gradients": []}
    for turn in range(turns + 1):
        found = {"run": timed(lambda: run(call)), "export": timed(lambda: export(call)), **traced(call)}
        for name, value in found.items() if turn else ():
            seconds[name].append(value)
    spent = {name: statistics.median(each) for name, each in seconds.items()}
    unit = spent["export"] + 3 * spent["run"]
    known: Row = {"seconds": spent}
    return [
        {"quantity": "trace / (export + 3 runs)", "value": spent["trace"] / unit, "bar": BAR, **known},
        {"quantity": "check of gradients / (export + 3 runs)", "value": spent["gradients"] / unit, "bar": "", **known},
    ]


def run(call: Call) -> Any:
    with torch.no_grad():
        return call.model(*call.args, **call.kwargs)


def export(call: Call) -> Any:
    """torch.export with the sizes free that a trace leaves free, or else with fixed ones; None where it cannot."""
    tensors = [value for value in (*call.args, *call.kwargs.values()) if isinstance(value, Tensor)]
    one = all(len(tensor) == 1 for tensor in tensors)  # the exporter takes a batch of one for a constant
    args, kwargs = (tuple(_twice(v, one) for v in call.args), {k: _twice(v, one) for k, v in call.kwargs.items()})
    bound = inspect.signature(call.model.forward).bind(*args, **kwargs).arguments
    for shapes in ({name: _free(value) for name, value in bound.items()}, None):
        try:
            return torch.export.export(call.model, args, kwargs, dynamic_shapes=shapes, strict=False)
        except Exception:
            continue
    return None


def _twice(value: Any, one: bool) -> Any:
    return torch.cat([value, value]) if one and isinstance(value, Tensor) else value


def _free(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _free(inner) for name, inner in value.items()}
    if not isinstance(value, Tensor):
        return None
    count = 1 if value.ndim > 3 else value.ndim  # height and width of images are fixed
    return {place: Dim.AUTO for place, size in enumerate(value.shape[:count]) if size > 1}


def traced(call: Call) -> dict[str, float]:
    """The seconds of a trace without its check of gradients, and of that check."""
    inside, check = [0.0], getattr(_verify, GRADIENTS)

    def watched(*args: Any, **kwargs: Any) -> Any:
        begin = time.process_time()
        try:
            return check(*args, **kwargs)
        finally:
            inside[0] += time.process_time() - begin

    with mock.patch.object(_verify, GRADIENTS, watched):
        whole = timed(lambda: unbraid.trace(call.model, call.args, call.kwargs))
    return {"trace": whole - inside[0], "gradients": inside[0]}


def timed(work: Callable[[], Any]) -> float:
    """The processor's seconds of some work, the collector off."""
    gc.collect()
    gc.disable()
    begin = time.process_time()
    try:
        work()
        return time.process_time() - begin
    finally:
        gc.enable()


def memory(script: str) -> list[Row]:
    """Peak memory of a trace over that of a run and the graph, each in a process of its own."""
    rows: list[Row] = []
    for case in list(LARGE)[:4]:
        peaks = {what: in_child(script, "--peak", f"{what}:{case}") for what in ("run and graph", "trace")}
        value = peaks["trace"]["peak"] / peaks["run and graph"]["peak"]
        quantity = "peak memory of a trace / a run and the graph"
        rows.append({"case": case, "quantity": quantity, "value": value, "bar": BAR, "bytes": peaks})
        print(case, f"{value:.2f}", flush=True)
    return rows


def peak(what: str) -> dict[str, int]:
    """In the child: the peak of the process, and what was resident before, parameters included."""
    work, _, case = what.partition(":")
    call = LARGE[case]()
    before = from_now()
    kept = unbraid.trace(call.model, call.args, call.kwargs) if work == "trace" else (export(call), run(call))
    assert kept is not None
    return {"peak": resident("VmHWM"), "before": before}
