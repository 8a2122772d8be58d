"""Where a node of the graph comes from: the module that called it and the line of code."""

import re
from typing import TypeAlias

from torch import fx

from unbraid.capture._operator_lines import is_model_code

Path: TypeAlias = tuple[str, ...]  # of a module, or of a parameter: ("layers", "0", "attn")

_CALL = re.compile(r"@\d+$")
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')


def scopes(node: fx.Node) -> list[Path]:
    """The paths of the modules that were running when the node was called, outermost first; the model's own is ().

    Some tracers mark a module's second call by "@1"; the path is that of the module.
    """
    stack = node.meta.get("nn_module_stack") or {}
    return [_path(name) for name, _ in stack.values()]


def _path(name: str) -> Path:
    """A module's name as a path, without the marks of calls."""
    return tuple(_CALL.sub("", part) for part in name.split(".") if part)


def scope(node: fx.Node) -> Path:
    """The path of the innermost module that called the node."""
    return (scopes(node) or [()])[-1]


def printable(name: str) -> str:
    """A name whose control characters are written out: it may come from a stranger's file, and go to a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in name)


def source(node: fx.Node) -> str:
    """File and line of the innermost frame in the model's own code: "…/modeling_gpt2.py:412"."""
    frames = _FRAME.findall(node.meta.get("stack_trace") or "")
    own = [frame for frame in frames if is_model_code(frame[0])]
    return printable(":".join((own or frames or [("unknown file", "0")])[-1]))


def where(node: fx.Node) -> str:
    """The same without folders: "modeling_gpt2.py:412"."""
    return source(node).rsplit("/", 1)[-1]


def common(paths: list[Path]) -> Path:
    """The longest path that all of these begin with."""
    shared: list[str] = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return tuple(shared)
