"""What to say where no tracer can take a model: each one's reason, the module and the line, and what to try."""

from collections.abc import Mapping
from types import TracebackType

from torch import nn

from unbraid.errors import TraceError

_ADVICE = {
    "data-dependent": "The model's code decides by the values in a tensor: tracer='dispatch' records the way it takes.",
    "flash": 'Build the model with attn_implementation="eager".',
    "vmap": 'Build the model with attn_implementation="eager".',
    "Cache": "Pass use_cache=False.",
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


def uncaptured(model: nn.Module, reasons: Mapping[str, str]) -> TraceError:
    """The error that says all of it."""
    said = "\n".join(f"  {tracer}: {reason}" for tracer, reason in reasons.items())
    advice = dict.fromkeys(text for sign, text in _ADVICE.items() if sign in said)
    known = "dispatch" in reasons or any("dispatch" in text for text in advice)
    other = [] if known else ["tracer='dispatch' records one real run instead."]
    tried = "\n".join(f"  Try: {text}" for text in (*advice, *other))
    return TraceError(
        f"{type(model).__name__}: its computation could not be captured as a graph.\n{said}\n{tried}".rstrip(),
        reasons=dict(reasons),
    )
