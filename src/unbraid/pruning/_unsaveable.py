"""Pruned models that another library would save in silence and load with other weights.

`save_pretrained` writes a model's tensors and its configuration, and `from_pretrained` builds from the configuration
what was pruned, with random weights in it. A model whose configuration describes it, as after whole layers went, is
left alone. Any other gets a `save_pretrained` that refuses and says how the model can be kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from torch import nn

from unbraid.errors import CheckpointError
from unbraid.form import ResidualForm
from unbraid.pruning._pretrained import described, is_pretrained
from unbraid.pruning._zero_module import Nothing

__all__ = ["forbid_saving"]


@dataclass(frozen=True)
class _Refusal:
    """Stands in the place of a model's `save_pretrained`; it is copied and pickled with the model.

    Attributes:
        kind: the model's class.
        missing: what its configuration would build again.
        remedy: how the model is kept instead.
    """

    kind: str
    missing: tuple[str, ...]
    remedy: str

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse.

        Raises:
            CheckpointError: always.
        """
        modules = f"{', '.join(self.missing[:3])}{f' and {len(self.missing) - 3} more' if self.missing[3:] else ''}"
        raise CheckpointError(
            f"save_pretrained: the configuration of {self.kind} describes the whole model: from_pretrained would build "
            f"{modules or 'what was pruned'} again, with random weights. {self.remedy} A model pruned by whole layers "
            "is saved as its own."
        )


def forbid_saving(form: ResidualForm, whole: nn.Module, pruned: nn.Module, modules: Sequence[str]) -> None:
    """Give each part of a pruned model that would be loaded with other weights a `save_pretrained` that refuses.

    Args:
        form: the form without the branches.
        whole: the model that was pruned.
        pruned: the smaller model; in place.
        modules: the paths, in the whole model, of what was taken out or replaced; none where all of it is a graph.
    """
    remedy = _remedy(form)
    parts = dict(whole.named_modules())
    for name, module in pruned.named_modules():
        part = parts.get(name)
        prefix = f"{name}." if name else ""
        missing = tuple(path for path in modules if path.startswith(prefix))
        if part is None or not callable(getattr(type(part), "save_pretrained", None)):
            continue
        if type(module) is type(part) and (not missing or _describes(part, module)):
            continue
        vars(module)["save_pretrained"] = _Refusal(type(part).__name__, missing, remedy)


def _remedy(form: ResidualForm) -> str:
    gone = ", ".join(map(str, form.deletions))
    if form.origin is not None and form.origin.program is not None:
        return (
            f"Keep the form of the pruned model instead: form.without({gone}).save(folder) and "
            "unbraid.load(folder), form being that of the whole model."
        )
    return (
        "Keep its state_dict() instead, prune the whole model again with "
        f"unbraid.prune(model, form, [{gone}]), and load_state_dict() it there."
    )


def _describes(part: nn.Module, module: nn.Module) -> bool:
    """Whether the configuration of a pruned part builds that part, as that of the whole one builds the whole."""
    if any(isinstance(inner, Nothing) for inner in module.modules()) or not is_pretrained(module):
        return False
    return described(part, module)
