"""What to say where no tracer can take a model: each one's reason, the module and the line, and what to try."""

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

import torch
from torch import nn

from unbraid.capture._unwrap import untraceable
from unbraid.capture.trees import tensors_in
from unbraid.errors import TraceError

_DISPATCH = "tracer='dispatch' records one real run instead."
# What to try, by a word of what the tracers said, the likeliest remedy first.
_ADVICE = {
    "Cache": "Pass use_cache=False.",
    "flash": 'Build the model with attn_implementation="eager".',
    "vmap": 'Build the model with attn_implementation="eager".',
    "data-dependent": "The model's code decides by the values in a tensor: tracer='dispatch' records the way it takes.",
}


def said(model: nn.Module, error: Exception) -> str:
    """The first line of an error, with the module and the line of the model's code at which it arose."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return f"{type(error).__name__}: {text[:300]}{_place(model, error.__traceback__)}"


def _place(model: nn.Module, frames: TracebackType | None) -> str:
    """The innermost call of one of the model's modules, torch's own code left out."""
    paths, place = {module: path for path, module in model.named_modules()}, ""
    while frames is not None:
        code, caller = frames.tb_frame.f_code, frames.tb_frame.f_locals.get("self")
        if isinstance(caller, nn.Module) and caller in paths and "/torch/" not in code.co_filename:
            file = code.co_filename.rsplit("/", 1)[-1]
            name = paths[caller] or "the model itself"
            place = f" (in {name}, a {type(caller).__name__}, at {file}:{frames.tb_lineno})"
        frames = frames.tb_next
    return place


def uncaptured(model: nn.Module, given: Any, reasons: Mapping[str, str]) -> TraceError:
    """The error that says all of it, without advising what has just failed."""
    told = list(dict.fromkeys(reasons.values()))
    if cause := untraceable(model) or _off_device(model, given, told):
        return TraceError(
            f"{type(model).__name__}: its computation could not be captured as a graph. {cause}", reasons=dict(reasons)
        )
    every = "\n".join(told)
    advice = [text for sign, text in _ADVICE.items() if sign in every]
    if "dispatch" in reasons:
        advice = [text for text in advice if "dispatch" not in text]
    elif not any("dispatch" in text for text in advice):
        advice.append(_DISPATCH)
    tried = [f"  Try: {text}" for text in dict.fromkeys(advice)]
    # Both exports mostly fail alike; the reason is then said once.
    tracers: dict[str, list[str]] = {reason: [] for reason in told}
    for tracer, reason in reasons.items():
        tracers[reason].append(tracer)
    said = [f"  {' and '.join(failed)}: {reason}" for reason, failed in tracers.items()]
    return TraceError(
        "\n".join([f"{type(model).__name__}: its computation could not be captured as a graph.", *tried, *said]),
        reasons=dict(reasons),
    )


def _off_device(model: nn.Module, given: Any, told: Iterable[str]) -> str | None:
    """What lies on the meta device, where the tracers complain of devices."""
    if not any("device" in reason.lower() for reason in told):
        return None
    held = [*model.parameters(), *model.buffers()]
    if any(tensor.is_meta for tensor in held):
        return (
            "Some of its parameters lie on the meta device and have no values: load them, or trace the structure "
            'alone, device="meta".'
        )
    if any(tensor.is_meta for tensor in tensors_in(given)):
        return "An input lies on the meta device and has no values: give a real tensor."
    default = torch.get_default_device()
    if held and default.type not in {tensor.device.type for tensor in held}:
        return (
            f"What its code makes lies on {default}, the default device here, and its parameters on {held[0].device}: "
            f'trace it outside of torch.device("{default}").'
        )
    return None


def exported_not(reasons: Mapping[str, str]) -> str:
    """Why a form is a recorded run."""
    failed = reasons.get("export") or next(iter(reasons.values()), None)
    return f"torch.export could not take the model: {failed}" if failed else "tracer='dispatch' was asked for"


def one_run(why: str) -> tuple[str, ...]:
    """What a form says of itself that holds one recorded run."""
    return (f"one recorded run, for inputs of the traced sizes alone, because {why}",)


def fixed_sizes(reasons: Mapping[str, str]) -> tuple[str, ...]:
    """What a form says of itself that could be exported with fixed sizes alone."""
    failed = reasons.get("export, sizes free")
    return (f"all sizes are fixed, because torch.export could not leave them free: {failed}",) if failed else ()
