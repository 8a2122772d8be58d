"""From a model to its residual form: capture, discover, assemble, verify.

Height and width of images are fixed by the trace; batch and sequence sizes are free. Through strides and windows the
expressions of free image sizes grow, and the exporter takes minutes or does not return on windowed models.
"""

import difflib
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from unbraid._modes import off_meta, outside_autograd_modes
from unbraid._progress import Step, progress
from unbraid.capture import (
    Capture,
    Tracer,
    bare,
    capture,
    computed,
    exclusive,
    on_meta,
    plain_checkpoints,
    without_cache,
)
from unbraid.capture.signature import as_call
from unbraid.capture.trees import tensors_in
from unbraid.discover.kinds import ALL, KINDS, SkipKind
from unbraid.errors import InexactError, TraceError, UnbraidError
from unbraid.form._assemble import assemble
from unbraid.form._form import ResidualForm

_CAPTURING = "trace: capturing the model's operators"
_FINDING = "trace: finding the blocks"
_CHECKING = "trace: checking the form against the model"


@outside_autograd_modes
def trace(
    model: nn.Module,
    args: Any,
    kwargs: Mapping[str, Any] | None = None,
    *,
    tolerance: float | None = None,
    tracer: Tracer = "auto",
    skips: Collection[SkipKind] = ALL,
    device: str | None = None,
) -> ResidualForm:
    """Find every residual connection of a model, cut it into its residual form, and check the result.

    The model is neither changed nor hooked: its computation is captured by torch.export, and the additions are found in
    the data flow of the captured graph.

    Args:
        model: any module that maps tensors to tensors; its training flag is honoured.
        args: its positional inputs, as for torch.export.export; a bare tensor means (tensor,).
        kwargs: its keyword inputs.
        tolerance: the largest relative error to accept between form and model; by default that of the trunk's type:
            1e-12 in float64, 1e-5 in float32, 2e-2 below.
        tracer: how the computation is captured. "export" leaves sizes free; "dispatch" records one run, for code that
            torch.export cannot follow: the form then holds for inputs of these sizes at which the model's code takes
            the same way, and says so where it does not; "auto" tries them in this order: the second where the first
            fails, or its graph departs from the model at this input.
        skips: the kinds of skip connections to look for: "identity", "projection", "gate", "mix", "concatenation", and
            "recurrent", which is not looked for by default: each step of a recurrence is a block then.
        device: "meta" traces the structure alone: no memory for weights, nothing run, so nothing checked. Parameters
            of the form are empty until `form.with_weights(folder)` reads them; buffers are the model's. See
            `empty_weights`.

    Returns:
        The form, with its measured `error`.

    Raises:
        TraceError: the computation cannot be captured.
        NotResidualError: it holds no residual addition.
        InexactError: the form does not follow the model.
    """
    positional, keywords = as_call(args, kwargs)
    if device not in (None, "meta"):
        raise ValueError(f'trace: device is "meta", or None for where the model is; {device!r} came. See form.to(...).')
    wanted = _known(skips)
    model, taken_off = bare(model)
    keywords, passed = without_cache(model, positional, keywords)
    with _stages() as stage, exclusive(), plain_checkpoints(), off_meta(*_tensors(model, positional, keywords)):
        if device is None:
            captured = capture(model, positional, keywords, tracer)
        else:
            captured = capture(*on_meta(model, positional, keywords), tracer, free=True)
            captured = replace(captured, state=computed(model, captured.state))

        def checked(captured: Capture) -> ResidualForm:
            stage(text=_FINDING)
            form = assemble(captured, model, _learned(model), skips=wanted)
            form = replace(form, tolerance=tolerance, notes=(*form.notes, *taken_off, *passed))
            stage(text=_CHECKING)
            form = _checked(form, positional, keywords)
            stage()
            return form

        try:
            return checked(captured)
        except InexactError as error:
            if tracer != "auto" or captured.tracer == "dispatch" or not error.given:
                raise
            try:
                return checked(capture(model, positional, keywords, "dispatch", departed=_departed(error)))
            except UnbraidError:
                raise error from None


def _departed(error: InexactError) -> str:
    return f"its graph departs from the model by {error.error:.1e}, at {error.where}"


@outside_autograd_modes
def chain(
    model: nn.Module, args: Any, kwargs: Mapping[str, Any] | None = None, *, layers: Sequence[str]
) -> ResidualForm:
    """The form of a plain network, h_k = f_k(h_{k−1}) (Equation 11.1): one path, of length K.

    Args:
        model: any module.
        args: its positional inputs; a bare tensor means (tensor,).
        kwargs: its keyword inputs.
        layers: the names of the modules that are f_1 to f_K, in order; a single name stands for its children.

    Returns:
        The form; each of its blocks has skip "none".

    Raises:
        TraceError: the computation cannot be captured, or a name is unknown or no stage of the data flow.
    """
    positional, keywords = as_call(args, kwargs)
    model, taken_off = bare(model)
    names = _children(model, layers)
    keywords, passed = without_cache(model, positional, keywords)
    with _stages() as stage, exclusive(), plain_checkpoints(), off_meta(*_tensors(model, positional, keywords)):
        captured = capture(model, positional, keywords)
        stage(text=_FINDING)
        form = assemble(captured, model, _learned(model), names)
        stage(text=_CHECKING)
        form = _checked(replace(form, notes=(*form.notes, *taken_off, *passed)), positional, keywords)
        stage()
        return form


def _known(skips: Collection[SkipKind]) -> tuple[SkipKind, ...]:
    """The kinds in the order in which they are listed.

    Raises:
        ValueError: one of them is none.
    """
    wanted = {skips} if isinstance(skips, str) else {*skips}
    if unknown := sorted(wanted.difference(KINDS)):
        raise ValueError(f"trace: skips are of {', '.join(map(repr, KINDS))}; {unknown[0]!r} came.")
    return tuple(kind for kind in KINDS if kind in wanted)


def _stages() -> AbstractContextManager[Step]:
    """A bar on a terminal, where a trace takes more than two seconds."""
    return progress(_CAPTURING, 3)


def _checked(form: ResidualForm, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ResidualForm:
    """On the meta device there is nothing to run: structure only."""
    if form.origin is not None:
        form = replace(form, origin=replace(form.origin, example=(args, kwargs)))
    if any(tensor.is_meta for tensor in form.state.values()):
        return form
    checked = form.verify(args, kwargs)
    notes = (*form.notes, f"gradients were not compared: {checked.unchecked}") if checked.unchecked else form.notes
    notes = (*notes, *filter(None, [checked.otherwise]))
    silent = tuple(form.blocks[k] for k in checked.silent)
    return replace(form, error=checked.error, silent=silent, notes=notes)


def _tensors(model: nn.Module, *given: Any) -> list[Tensor]:
    return [*model.parameters(), *model.buffers(), *tensors_in(given)]


def _learned(model: nn.Module) -> set[str]:
    return {name for name, _ in model.named_parameters(remove_duplicate=False)}


def _children(model: nn.Module, layers: Sequence[str]) -> list[str]:
    """The names themselves, or the members of one container."""
    names = [layers] if isinstance(layers, str) else list(layers)
    known = {name for name, _ in model.named_modules()}
    if unknown := [name for name in names if name not in known]:
        close = difflib.get_close_matches(unknown[0], known, n=3)
        hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise TraceError(f"chain: {type(model).__name__} has no module {unknown[0]!r}.{hint}")
    if len(names) == 1:
        members = [f"{names[0]}.{name}" for name, _ in model.get_submodule(names[0]).named_children()]
        names = members or names
    return names
