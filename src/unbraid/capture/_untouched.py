"""A model that was run, and is as it was before."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.func import functional_call

from unbraid.capture._side_run import Aside, Draws
from unbraid.capture._silenced import unwarned
from unbraid.capture._snapshot import Held
from unbraid.capture._undo import process_undo, versions_undo
from unbraid.capture.trees import mapped_tensors, tensors_in

Run: TypeAlias = Callable[[tuple[Any, ...], Mapping[str, Any], Draws], Any]


@contextmanager
def untouched(model: nn.Module, *more: Any) -> Iterator[Aside]:
    """Whatever happens to a model inside, also where it fails or is interrupted, is taken back at the end.

    Its attributes, those of its parts and of whatever they hold, parameters, buffers, gradients, hooks and flags, as
    far as its code reaches (`_held`), and the default type, autograd's mode and the generators of Python and numpy.
    Torch's generators stay where they are if the model is run under the mode.

    Args:
        model: any module.
        more: what else may be written: the inputs.

    Yields:
        The mode under which to run the model: what operators write is then put back as well.
    """
    registered = [*model.parameters(), *model.buffers()]
    held = Held([model, registered, more])
    aside = Aside(held.tensors)
    # The exporter, below which no mode sees anything, writes into tensors that it takes for constants.
    gradients = [tensor.grad for tensor in registered if tensor.is_leaf]
    known = set(map(id, (*registered, *gradients)))
    for tensor in held.tensors:
        if id(tensor) not in known:
            aside.save(tensor)
    aside.everything = held.put_back
    undo = [versions_undo(held.tensors), process_undo()]
    try:
        # Compiled parts fire hooks that are registered for all modules, and warn that they do.
        with unwarned(r"Using `torch\.compile\(module\)`"):
            yield aside
    finally:
        held.put_back()
        aside.put_back()
        for step in undo:
            step()


@contextmanager
def runs(model: nn.Module, *more: Any, graded: bool = False) -> Iterator[Run]:
    """Runs of a model, of which all is taken back at the end.

    Parameters and buffers begin each run as they are now. What the model's code keeps in attributes goes on from run to
    run, so that a second run shows whether results depend on how often the model was called.

    Args:
        model: any module.
        more: what else may be written: the inputs.
        graded: as where its parameters learn: code may take another way where no gradient is asked for.

    Yields:
        What runs it, (args, kwargs, draws) -> what it returns.
    """
    with untouched(model, *more) as aside:

        def run(args: tuple[Any, ...], kwargs: Mapping[str, Any], draws: Draws) -> Any:
            aside.watch(tensors_in((args, kwargs)))
            own = {name: buffer.clone() for name, buffer in model.named_buffers(remove_duplicate=False)}
            if graded:
                parameters = model.named_parameters(remove_duplicate=False)
                own |= {name: p.detach().requires_grad_() for name, p in parameters if p.is_floating_point()}
            try:
                with aside.drawing(draws), torch.set_grad_enabled(graded or torch.is_grad_enabled()):
                    returned = functional_call(model, own, args, dict(kwargs), tie_weights=False)
                    return mapped_tensors(aside.own, returned)
            except BaseException:  # half of a run is none: whatever it has set is no sign of anything
                aside.everything()
                raise
            finally:
                aside.put_back()

        yield run


def run_untouched(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], draws: Draws) -> Any:
    """What a model returns in one run that changes nothing of it, nor of its inputs."""
    with runs(model, args, kwargs) as run:
        return run(args, kwargs, draws)
