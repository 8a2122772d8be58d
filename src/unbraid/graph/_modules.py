"""A graph of operators as a module that can be called."""

import torch
from torch import fx


def runnable(graph: fx.Graph, name: str = "GraphModule") -> fx.GraphModule:
    """The module of a graph, with the modules that operators of higher order call: each `get_attr` node holds its."""
    root = torch.nn.Module()
    for number, node in enumerate(graph.nodes):
        if node.op == "get_attr" and "held" in node.meta:
            node.target = f"held_{number}"
            setattr(root, node.target, node.meta["held"])
    return fx.GraphModule(root, graph, class_name=name)
