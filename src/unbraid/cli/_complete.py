"""What a shell offers for MODEL when the tab key is pressed."""

import os
from collections.abc import MutableMapping
from importlib import import_module
from pathlib import Path

__all__ = ["for_bash", "models"]

_NAMED = ("timm:", "torchvision:", "hf:")
_LISTS = {"timm": "timm", "torchvision": "torchvision.models"}  # where each library has its list_models
_LIBRARY = "_UNBRAID_LIBRARY"


def models(incomplete: str) -> list[str]:
    """The ways to name a model that begin so: libraries, their models, and folders and Python files that are here."""
    if library := os.environ.get(_LIBRARY):
        return _of(library, incomplete)
    library, colon, part = incomplete.partition(":")
    if colon:
        return [f"{library}:{name}" for name in _of(library, part)]
    here = [] if incomplete.startswith(("/", "~", ".")) else sorted(Path().glob(f"{incomplete}*"))
    paths = [
        f"{path}:" if path.suffix == ".py" else str(path) for path in here if path.is_dir() or path.suffix == ".py"
    ]
    return [*(name for name in _NAMED if name.startswith(incomplete)), *paths]


def for_bash(environment: MutableMapping[str, str]) -> None:
    """Take a library out of the words that bash hands over: it parts timm:res in three, and wants the end of the last.

    Args:
        environment: of the process; changed only where bash asks for a completion behind such a colon.
    """
    if environment.get("_UNBRAID_COMPLETE") != "complete_bash":
        return
    words, place = environment.get("COMP_WORDS", "").split("\n"), environment.get("COMP_CWORD", "")
    if not place.isdecimal():
        return
    colon = int(place) if words[int(place) :] == [":"] else int(place) - 1
    if 1 <= colon < len(words) and words[colon] == ":" and words[colon - 1] in _LISTS:
        environment[_LIBRARY] = words[colon - 1]
        kept = [*words[: colon - 1], *words[colon + 1 :]]
        environment.update({"COMP_WORDS": "\n".join(kept), "COMP_CWORD": str(colon - 1)})


def _of(library: str, part: str) -> list[str]:
    """The models of a library whose names begin so; none where it cannot be imported."""
    try:
        known: list[str] = import_module(_LISTS[library]).list_models()
    except Exception:  # no such library, not installed, or broken: a shell that completes shows no errors
        return []
    return [name for name in known if name.startswith(part)]
