"""Building and tracing one model type: every failure is a result."""

import resource
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from oracles.additions import Additions
from oracles.origins import Place, parts, to_be_told
from zoo.entry import Made
from zoo.result import all_blocks, by_line, counted, fast_path_off
from zoo.type_result import Lines, TypeResult

SPECTRUM_UP_TO = 30  # blocks: their number squared is the cost


def measure(name: str, make: Callable[[str], Made]) -> TypeResult:
    """Build a model and trace it; every failure is a result."""
    started = time.process_time()
    result = _measured(name, make)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return replace(result, spent=time.process_time() - started, memory=memory)


def _measured(name: str, make: Callable[[str], Made]) -> TypeResult:
    result = TypeResult(name)
    try:
        made = make(name)
    except Exception as error:
        return replace(result, failure="unbuilt", reason=str(error))
    result = replace(result, model=type(made.model).__name__, inputs=_shapes(made.kwargs))
    return _traced(_recorded(result, made), made)


def _recorded(result: TypeResult, made: Made) -> TypeResult:
    """With the additions and concatenations that a run executes."""
    with fast_path_off(), torch.no_grad(), Additions(made.args, dict(made.kwargs)) as seen:
        returned = made.model(*made.args, **made.kwargs)
    outputs = tree_leaves(dict(returned) if isinstance(returned, Mapping) else returned)
    larger = {line: sorted(lines) for line, lines in parts(seen.log, outputs).items()}
    ran, concatenated = _lines(to_be_told(seen.log, outputs)), _lines(seen.concatenated)
    return replace(result, ran=ran, parts=larger, concatenated=concatenated)


def _traced(result: TypeResult, made: Made) -> TypeResult:
    from unbraid.errors import InexactError, NotResidualError, UnbraidError
    from unbraid.form import trace

    started = time.process_time()
    try:
        form = trace(made.model, made.args, made.kwargs)
    except NotResidualError as error:
        result = replace(result, refused=by_line(error.refusals), reasons=_reasons(error.refusals), error=0.0)
        return replace(result, seconds=time.process_time() - started)
    except InexactError as error:
        failure = "refused" if beyond_any_form(made) else "inexact"
        result = replace(result, failure=failure, reason=str(error), error=error.error)
    except UnbraidError as error:
        result = replace(result, failure="refused", reason=f"{type(error).__name__}: {error}")
    except Exception as error:
        result = replace(result, failure="foreign", reason=f"{type(error).__name__}: {error}")
    else:
        result = replace(result, seconds=time.process_time() - started)
        return _with_spectrum(_with_form(result, form), form, made)
    return replace(result, seconds=time.process_time() - started)


def beyond_any_form(made: Made) -> bool:
    """Whether a model draws random numbers though it is in eval mode, or has a backward pass of its own.

    Its outputs are then another thing at each run, or its gradient is none of its values: no form can be exact, and an
    error that says so is no fault. Told by the model alone, by two seeds and by autograd's own graph.
    """
    outputs = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        outputs.append([x for x in tree_leaves(_plain(made.model(*made.args, **made.kwargs))) if isinstance(x, Tensor)])
    if any(not torch.equal(a, b) for a, b in zip(*outputs, strict=True)):
        return True
    waiting = [x.grad_fn for x in outputs[0] if x.grad_fn is not None]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            return True
        fresh = [following for following, _ in node.next_functions if following is not None and following not in seen]
        seen.update(fresh)
        waiting += fresh
    return False


def _plain(returned: Any) -> Any:
    return dict(returned) if isinstance(returned, Mapping) else returned


def _with_form(result: TypeResult, form: Any) -> TypeResult:
    found = all_blocks(form.blocks)
    kinds = Counter(f"{block.skip}, {getattr(block, 'join', 'sum')}" for block in found)
    return replace(
        result,
        blocks=len(form.blocks),
        nested=len(found) - len(form.blocks),
        kinds=dict(kinds),
        error=form.error,
        counted=counted(form),
        refused=by_line(form.refusals),
        reasons=_reasons(form.refusals),
    )


def _with_spectrum(result: TypeResult, form: Any, made: Made) -> TypeResult:
    """The parts of one gradient by length against the gradient that the model's own backward pass gives."""
    from unbraid.errors import InexactError, TargetError, UnbraidError
    from unbraid.paths import gradient_spectrum

    if result.blocks > SPECTRUM_UP_TO:
        return replace(result, unmeasured=f"more than {SPECTRUM_UP_TO} blocks")
    try:
        return replace(result, spectrum=gradient_spectrum(form, made.args, made.kwargs, target=_weighted).error)
    except InexactError as error:
        failure = "refused" if beyond_any_form(made) else "inexact"
        return replace(result, failure=failure, reason=f"gradient_spectrum: {error}", spectrum=error.error)
    except TargetError as error:
        return replace(result, unmeasured=str(error))
    except UnbraidError as error:
        return replace(result, unmeasured=f"{type(error).__name__}: {error}")
    except Exception as error:
        return replace(result, failure="foreign", reason=f"gradient_spectrum: {type(error).__name__}: {error}")


def _weighted(returned: Any) -> Tensor:
    """A sum of the first float output per example with arbitrary weights: a mean would vanish after a norm."""
    output = next(leaf for leaf in tree_leaves(returned) if isinstance(leaf, Tensor) and leaf.is_floating_point())
    rows = output.flatten(1) if output.ndim > 1 else output[:, None]
    weights = torch.randn(rows.shape[1], generator=torch.Generator().manual_seed(1))
    return rows @ weights.to(rows.dtype)


def _lines(places: Mapping[Place, int]) -> Lines:
    return [(place.file, place.function, place.text, place.line, times) for place, times in sorted(places.items())]


def _reasons(refusals: Sequence[Any]) -> dict[str, int]:
    return dict(Counter(refusal.reason for refusal in refusals))


def _shapes(kwargs: Mapping[str, Any]) -> str:
    tensors = {name: list(value.shape) for name, value in kwargs.items() if isinstance(value, Tensor)}
    return ", ".join(f"{name} {shape}" for name, shape in tensors.items())
