"""Every addition of two tensors of data that a run of a model executes, with the expression in the model's source.

    with Additions(model_inputs) as seen: model(*model_inputs)
    seen.ran                       {Place("timm/layers/mlp.py", "Mlp.forward", "x + y", 31): 12, ...}
    seen.concatenated              the same of concatenations and stacks

A dispatch mode sees every operator that runs, whoever calls it and however it is spelled. It marks the storages that
depend on an input (`depends`): an operator that reads a marked tensor marks what it returns and writes, unless it asks
only for sizes, as `zeros_like` does. An addition counts where at least two of the tensors that are added depend on an
input: a bias, a constant mask, a table of positions are no operands of data. Nothing here knows of graphs or of forms.
"""

import ast
import linecache
import re
import sys
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from oracles.origins import Origins, Place, Ran, storages

_TORCH = f"{Path(torch.__file__).parent}/"
_LAYERS = f"{_TORCH}nn/modules/"  # torch's own residual layers are models like any other
_CALLING = f"{_LAYERS}module.py"  # but for what calls all modules
_ROOT = Path(__file__).parents[2]

# What each operator adds, by the names of its arguments; of a group the tensors are multiplied, and make one summand.
_SUMMANDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "add": (("self",), ("other",)),
    "sub": (("self",), ("other",)),
    "rsub": (("self",), ("other",)),
    "_add_relu": (("self",), ("other",)),
    "addmm": (("self",), ("mat1", "mat2")),
    "_addmm_activation": (("self",), ("mat1", "mat2")),
    "addbmm": (("self",), ("batch1", "batch2")),
    "baddbmm": (("self",), ("batch1", "batch2")),
    "addmv": (("self",), ("mat", "vec")),
    "addr": (("self",), ("vec1", "vec2")),
    "addcmul": (("self",), ("tensor1", "tensor2")),
    "addcdiv": (("self",), ("tensor1", "tensor2")),
    "lerp": (("self",), ("end",)),
    "index_add": (("self",), ("source",)),
    "scatter_add": (("self",), ("src",)),
    "_foreach_add": (("self",), ("other",)),
    "_scaled_dot_product_attention_math": (("query", "key"), ("attn_mask",)),
    "_scaled_dot_product_flash_attention_for_cpu": (("query", "key"), ("attn_mask",)),
    "_scaled_dot_product_efficient_attention": (("query", "key"), ("attn_bias",)),
    "_scaled_dot_product_fused_attention_overrideable": (("query", "key"), ("attn_bias",)),
}
# Those that add where an argument says so: its name, and what it then is.
_IF_ASKED: dict[str, tuple[tuple[tuple[str, ...], ...], str, tuple[object, ...]]] = {
    "scatter": ((("self",), ("src",)), "reduce", ("add",)),
    "scatter_reduce": ((("self",), ("src",)), "reduce", ("sum", "mean")),
    "index_put": ((("self",), ("values",)), "accumulate", (True,)),
    "_index_put_impl": ((("self",), ("values",)), "accumulate", (True,)),
}
# They hand on a stack with its dimension: element by element, at its size.
_ELEMENTWISE = frozenset({"mul", "div", "neg", "where", "masked_fill", "_to_copy", "clone", "relu", "sigmoid"})
_STACKS = frozenset({"stack"})
_CONCATENATIONS = frozenset({"cat", "stack"})
_REDUCES = frozenset({"sum", "mean"})
_ATTENTION = "scaled_dot_product_attention("  # a mask that it adds to scores is held with it, however torch computes it
_SIZES_ALONE = re.compile(r".*_like$|new_.*|sym_.*|is_.*|empty.*")


class Additions(TorchDispatchMode):
    """Notes every addition of tensors that depend on the inputs.

    Args:
        inputs: what the model is called with, in any nesting.

    Attributes:
        ran: how often each expression added tensors of data.
        operators: the operators that did so at each.
        log: every operator that read data, in order.
        concatenated: how often each expression put tensors of data side by side.
    """

    def __init__(self, *inputs: Any) -> None:
        super().__init__()
        self.ran: Counter[Place] = Counter()
        self.operators: dict[Place, set[str]] = {}
        self.concatenated: Counter[Place] = Counter()
        self.log: list[Ran] = []
        self.origins = Origins()
        self._data: set[StorageWeakRef] = set()
        self._stacked: dict[StorageWeakRef, tuple[int, torch.Size]] = {}
        self._places: dict[tuple[CodeType, int], Place] = {}
        self._mark(inputs)
        self.origins.begin(inputs)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | (kwargs or {})
        before = {name: self.depends(value) for name, value in named.items()}  # a sum in place marks its operand
        name = func._schema.name.removeprefix("aten::").removesuffix("_")
        self.origins.meet(named)
        added = self._added(name, named, before)
        place = self._place(sys._getframe(1)) if added > 1 else None
        held = place is not None and (_ATTENTION in place.text or self._held(name, named, before))
        out = func(*args, **(kwargs or {}))
        if place is not None:
            self.ran[place] += added - 1
            self.operators.setdefault(place, set()).add(name)
        if name in _CONCATENATIONS and _floats(named["tensors"]) and sum(map(self.depends, named["tensors"])) > 1:
            self.concatenated[self._place(sys._getframe(1))] += 1
        if any(before.values()) and not _SIZES_ALONE.fullmatch(name):
            written = [out, *(named[a.name] for a in func._schema.arguments if a.is_write and a.name in named)]
            read = [named[argument] for argument, depends in before.items() if depends]
            self._mark(written)
            self.origins.hand_on(name, named, read, written)
            self.log.append(Ran(name, frozenset(storages(read)), frozenset(storages(written)), place, added - 1, held))
        self._hand_on_stack(name, named, out)
        return out

    def depends(self, value: Any) -> bool:
        """Whether a tensor, or any in a list, depends on an input."""
        return any(ref in self._data for ref in storages(value))

    def _mark(self, value: Any) -> None:
        self._data.update(storages(value))

    def _held(self, name: str, named: dict[str, Any], depends: dict[str, bool]) -> bool:
        """Whether all operands but one come of whole numbers, or all are looked up by them."""
        groups = [
            [named[argument] for argument in group if depends.get(argument)] for group in self._groups(name, named)
        ]
        return self.origins.held([operand for operand in groups if operand])

    def _added(self, name: str, named: dict[str, Any], depends: dict[str, bool]) -> int:
        """How many tensors of data an operator adds."""
        if name in _REDUCES:
            return self._of_stack(named)
        groups = self._groups(name, named)
        if not groups or not all(_floats(named.get(group[0])) for group in groups):
            return 0
        return sum(any(depends.get(argument, False) for argument in group) for group in groups)

    def _groups(self, name: str, named: dict[str, Any]) -> tuple[tuple[str, ...], ...]:
        groups = _SUMMANDS.get(name, ())
        if name in _IF_ASKED:
            groups, argument, values = _IF_ASKED[name]
            groups = groups if named.get(argument) in values else ()
        return groups

    def _of_stack(self, named: dict[str, Any]) -> int:
        """How many tensors are added where a sum goes over the dimension in which they were stacked."""
        value, dimensions = named.get("self"), named.get("dim")
        if not _floats(value) or not self.depends(value):
            return 0
        along, shape = next((self._stacked[ref] for ref in storages(value) if ref in self._stacked), (0, None))
        dimensions = [dimensions] if isinstance(dimensions, int) else dimensions
        summed = not dimensions or along in [d % value.ndim for d in dimensions]
        return int(shape[along]) if shape == value.shape and summed else 0

    def _hand_on_stack(self, name: str, named: dict[str, Any], out: Any) -> None:
        if name in _STACKS and _floats(out) and len(named["tensors"]) > 1 and self.depends(named["tensors"]):
            self._stacked[next(storages(out))] = named.get("dim", 0) % out.ndim, out.shape
        if name in _ELEMENTWISE and isinstance(out, Tensor):
            for value in named.values():
                for ref in storages(value):
                    if ref in self._stacked and self._stacked[ref][1] == out.shape:
                        self._stacked[next(storages(out))] = self._stacked[ref]

    def _place(self, frame: FrameType | None) -> Place:
        """The innermost expression of the model's own code."""
        while frame is not None and not _is_model_code(frame.f_code.co_filename):
            frame = frame.f_back
        if frame is None:
            return Place("unknown file", "", "", 0)
        key = frame.f_code, frame.f_lasti
        if key not in self._places:
            self._places[key] = _expression(frame)
        return self._places[key]


def _floats(value: Any) -> bool:
    first = value[0] if isinstance(value, list | tuple) and value else value
    return isinstance(first, Tensor) and (first.is_floating_point() or first.is_complex())


def _is_model_code(file: str) -> bool:
    if file == __file__ or file.startswith("<"):
        return False
    return not file.startswith(_TORCH) or (file.startswith(_LAYERS) and file != _CALLING)


def _expression(frame: FrameType) -> Place:
    code, file = frame.f_code, frame.f_code.co_filename
    first, last, begin, end = list(code.co_positions())[frame.f_lasti // 2]
    lines = [linecache.getline(file, number).encode() for number in range(first or 0, (last or 0) + 1)]
    lines[-1] = lines[-1][:end]
    lines[0] = lines[0][begin:]
    text = _in_one_line(b"".join(lines).decode())
    return Place(_from_package(file), code.co_qualname.replace(".<locals>", ""), text, frame.f_lineno)


def _in_one_line(text: str) -> str:
    try:
        return ast.unparse(ast.parse(text.strip()))
    except SyntaxError:
        return " ".join(text.split())


def _from_package(file: str) -> str:
    for folder in ("/site-packages/", f"{_ROOT}/"):
        if folder in file:
            return file.split(folder)[-1]
    return file.rsplit("/", 1)[-1]
