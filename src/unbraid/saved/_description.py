"""What may stand in a saved description of a graph: known operators, sizes that are arithmetic, and nothing to run."""

import ast
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch

from unbraid.errors import CheckpointError

__all__ = ["checked"]

_OPERATOR = re.compile(r"torch\.ops\.(aten|prims|torchvision)\.(\w+)\.(\w+)")
_WRAPPERS = {f"torch.ops.higher_order.{name}" for name in ("wrap_with_set_grad_enabled", "wrap_with_autocast")}
_SIZES = {
    *(f"_operator.{name}" for name in "add sub mul floordiv truediv mod neg pos abs pow getitem".split()),
    *(f"_operator.{name}" for name in "eq ne lt le gt ge and_ or_ not_ xor lshift rshift".split()),
    *(f"math.{name}" for name in "ceil floor trunc sqrt".split()),
    *(f"torch.sym_{name}" for name in "int float max min not ite sum".split()),
    *("torch._sym_sqrt", "torch.sym_sqrt"),
}
# How torch spells a size: sympy's constructors, its own functions, and symbols.
_FUNCTIONS = {
    *"Symbol Integer Float Rational Add Mul Pow Max Min Mod Abs floor ceiling And Or Not".split(),
    *"Equality Unequality Eq Ne Lt Le Gt Ge StrictLessThan LessThan StrictGreaterThan GreaterThan".split(),
    *"FloorDiv ModularIndexing Where PythonMod CleanDiv CeilToInt FloorToInt CeilDiv FloatTrueDiv IntTrueDiv".split(),
    *"IsNonOverlappingAndDenseIndicator TruncToFloat TruncToInt RoundToInt ToFloat Identity".split(),
}
_NAME = re.compile(r"[a-z]+\d+|oo|int_oo|true|false")
_TEXT = re.compile(r"\w{1,64}|-?[\d.]{1,32}(e-?\d{1,3})?")  # a symbol's name, or the digits of a float
_NODES = (
    *(ast.Expression, ast.Name, ast.Load, ast.Constant, ast.Call, ast.keyword, ast.BinOp, ast.UnaryOp, ast.Compare),
    *(ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.USub, ast.UAdd),
    *(ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE),
)
_LONGEST, _MOST_POWERS, _LARGEST_POWER = 4096, 4, 8
_KEPT = ("stack_trace", "nn_module_stack")  # of what is told about a node
_REFUSED = ("as_operator", "as_custom_obj", "as_custom_objs", "custom_obj_values")


def checked(model: Any) -> dict[str, Any]:
    """A description of a graph, as `torch.export` writes it, without its guards, which are Python.

    Raises:
        CheckpointError: an operator is not one of torch's that compute with tensors, a size is no arithmetic, or an
            argument is an object.
    """
    if not isinstance(model, dict):
        raise CheckpointError(f"load: the graph is described by a JSON object; this is a {type(model).__name__}.")
    return {**_copied(model), "guards_code": []}


def _copied(value: Any) -> Any:
    if isinstance(value, list):
        return [_copied(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    for key in _REFUSED:
        if value.get(key):
            raise CheckpointError(f"load: the graph holds an object ({key}), which could run code. It was not read.")
    return {key: _RULES.get(key, _copied)(item) for key, item in value.items()}


def _operator(target: Any) -> Any:
    if target in _SIZES or target in _WRAPPERS:
        return target
    parsed = _OPERATOR.fullmatch(target) if isinstance(target, str) else None
    if parsed is not None:
        space, name, overload = parsed.groups()
        for schema in torch._C._jit_get_schemas_for_operator(f"{space}::{name}"):
            same = (schema.overload_name or "default") == overload
            if same and not any("file" in argument.name for argument in schema.arguments):
                return target
    raise CheckpointError(
        f"load: the graph calls {str(target)[:80]!r}, which is no operator on tensors that a form may hold: it was not "
        "read. Trace the model again."
    )


def _arithmetic(text: Any) -> Any:
    try:
        if not isinstance(text, str) or len(text) > _LONGEST:
            raise ValueError
        nodes = list(ast.walk(ast.parse(text, mode="eval")))
        powers = [node for node in nodes if isinstance(node, ast.Call) and _named(node.func) == "Pow"]
        fine = len(powers) <= _MOST_POWERS and all(_small(power) for power in powers) and all(map(_fine, nodes))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        fine = False
    if not fine:
        raise CheckpointError(f"load: a size in the graph is no arithmetic: {str(text)[:80]!r}. It was not evaluated.")
    return text


def _fine(node: ast.AST) -> bool:
    if isinstance(node, ast.Name):
        return node.id in _FUNCTIONS or _NAME.fullmatch(node.id) is not None
    if isinstance(node, ast.Call):
        return _named(node.func) in _FUNCTIONS
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return _TEXT.fullmatch(node.value) is not None
    if isinstance(node, ast.keyword):
        return isinstance(node.value, ast.Constant) and isinstance(node.value.value, int) and node.value.value <= 64
    if isinstance(node, ast.Constant):
        return isinstance(node.value, bool | int | float) and abs(node.value) < 2**64
    return isinstance(node, _NODES)


def _named(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def _small(power: ast.Call) -> bool:
    """Whether an exponent is a small number: towers of powers take for ever."""
    exponent = ast.unparse(power.args[1]) if len(power.args) == 2 else ""
    return exponent.removeprefix("Integer(").rstrip(")").removeprefix("-") in set(map(str, range(_LARGEST_POWER + 1)))


def _structure(spec: Any) -> Any:
    """Nested tuples, lists and dicts of inputs and outputs: other types may import what they are of."""

    def plain(node: Mapping[str, Any]) -> bool:
        kinds = {None: (None,), "builtins.tuple": ("null",), "builtins.list": ("null",), "builtins.dict": ("[]",)}
        return node["context"] in kinds.get(node["type"], ()) and all(map(plain, node["children_spec"]))

    version, root = json.loads(spec)
    if version != 1 or not plain(root):
        raise CheckpointError("load: the graph's inputs and outputs are tuples of tensors; these are not.")
    return spec


def _told(about: Any) -> dict[str, Any]:
    return {key: about[key] for key in _KEPT if key in about}


_RULES: Mapping[str, Callable[[Any], Any]] = {
    "target": _operator,
    "expr_str": _arithmetic,
    "in_spec": _structure,
    "out_spec": _structure,
    "metadata": _told,
}
