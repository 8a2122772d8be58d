"""What a recorded run says about the nodes of a segment."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from unbraid.graph.operators import callee


@dataclass(frozen=True)
class Recording:
    """One run of a segment: the value of each of its nodes, and the mask of each dropout that drew one."""

    values: dict[fx.Node, Any] = field(default_factory=dict)
    masks: dict[fx.Node, Tensor] = field(default_factory=dict)


class Recorder(fx.Interpreter):
    """Runs a segment and remembers what each node gave."""

    def __init__(self, code: fx.GraphModule) -> None:
        super().__init__(code, garbage_collect_values=False)
        self.recording = Recording()

    def run_node(self, n: fx.Node) -> Any:
        """Run one node; where dropout draws a mask, draw it first and keep it."""
        self.recording.values[n] = value = self._dropped(n) if trains_dropout(n) else super().run_node(n)
        return value

    def _dropped(self, n: fx.Node) -> Tensor:
        (x, p, _), _ = self.fetch_args_kwargs_from_env(n)
        self.recording.masks[n] = mask = torch.nn.functional.dropout(torch.ones_like(x), p)
        return x * mask


def trains_dropout(node: fx.Node) -> bool:
    """Whether the node is a dropout in train mode."""
    return node.op == "call_function" and callee(node) is torch.ops.aten.dropout and bool(node.args[2])


def several(value: Any) -> bool:
    """Whether an operator gave several results."""
    return isinstance(value, list | tuple)


def has_data(value: Any) -> bool:
    """Whether a value is a floating-point or complex tensor, or holds one: sizes, masks and indices carry no data."""
    values = value if several(value) else (value,)
    return any(isinstance(v, Tensor) and (v.dtype.is_floating_point or v.dtype.is_complex) for v in values)
