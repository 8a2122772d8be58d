"""Recurrences: a state that is carried over positions adds to itself at each of them, and is no trunk of blocks.

    s_t = a(x_t)·s_{t−1} + b(x_t),  x_t = x[:, t]          one state read and written T times, not T blocks

An LSTM written out, a selective scan and a delta rule are of this kind. In the graph each step looks like a block whose
skip scales the state. What tells it from a layer: since the step before, it reads another place of a tensor that this
one read, too, and no parameter that this one did not read. A layer of its own brings parameters; a layer that is run
again reads the whole of what it is given, not one place after the other.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import pairwise

from torch import fx

from unbraid.discover._dataflow import Dataflow
from unbraid.graph.questions import name_of, values_read

RECURRENT = "a recurrence: a state that one module carries over positions, and no trunk of blocks"

_PICKS = frozenset({"select", "slice", "narrow", "getitem"})
_NEAR = 16  # sums before, among which that of the step before is looked for


@dataclass(frozen=True)
class _Step:
    """What a sum reads since the sum before.

    Attributes:
        places: of each tensor that is read in parts the places that are read, as the arguments of the operators say.
        parameters: the parameters.
    """

    places: Mapping[fx.Node, Collection[object]]
    parameters: Collection[fx.Node]

    def follows(self, before: "_Step") -> bool:
        """Whether it may be the next step of a recurrence."""
        shared = self.places.keys() & before.places.keys()
        pairs = [({*self.places[tensor]}, {*before.places[tensor]}) for tensor in shared]
        # A place that the step before has written may be read along: a window that moves on.
        moved = any(now - then and then - now for now, then in pairs)
        return moved and set(self.parameters) <= set(before.parameters)


def recurrences(flow: Dataflow, forks: Mapping[fx.Node, fx.Node]) -> list[list[fx.Node]]:
    """The sums that are steps of each recurrence, in order of execution.

    Args:
        flow: the data flow of the graph.
        forks: sums of data, blocks or none, each with the tensor from which its operands come.
    """
    order = flow.order
    ordered = sorted(forks, key=order.__getitem__)
    steps: dict[fx.Node, _Step] = {}
    chains: dict[fx.Node, list[fx.Node]] = {}
    for number, total in enumerate(ordered):
        before = _before(flow, total, ordered[max(0, number - _NEAR) : number])
        floor = forks[total] if before is None or order[forks[total]] > order[before] else before
        steps[total] = _step(flow, total, floor if before is None else before)
        if before is not None and steps[total].follows(steps[before]):
            chains[total] = chains.setdefault(before, [before])
            chains[total].append(total)
    return list({id(chained): chained for chained in chains.values()}.values())


def carried_over(flow: Dataflow, tensors: Collection[fx.Node]) -> bool:
    """Whether tensors that are put side by side are the states of a recurrence, one for each position."""
    ordered = sorted({flow.moved(tensor) for tensor in tensors}, key=flow.order.__getitem__)
    steps = [_step(flow, after, before) for before, after in pairwise(ordered) if before in flow.above(after, before)]
    return any(after.follows(before) for before, after in pairwise(steps))


def _before(flow: Dataflow, add: fx.Node, earlier: list[fx.Node]) -> fx.Node | None:
    """The last of the sums before from which one is computed.

    Nodes are visited from the last to be computed to the first, so that the search ends at that sum: all that lies
    above it, several layers, is never looked at.
    """
    order, sums = flow.order, set(earlier)
    lowest, seen, latest = order[earlier[0]] if earlier else 0, {add}, [(-order[add], add)]
    while latest and sums:
        _, node = heappop(latest)
        if node in sums:
            return node
        for read in values_read(node):
            if read not in seen and order[read] >= lowest:
                seen.add(read)
                heappush(latest, (-order[read], read))
    return None


def _step(flow: Dataflow, add: fx.Node, floor: fx.Node) -> _Step:
    places: dict[fx.Node, set[object]] = {}
    parameters = set[fx.Node]()
    for node in flow.above(add, floor) - {floor}:
        for read in (node, *values_read(node)):  # parts may all be taken at the beginning, before the floor
            if name_of(read) in _PICKS and read.op == "call_function" and read in flow.carries:
                tensor, *place = read.args
                if isinstance(tensor, fx.Node):
                    places.setdefault(tensor, set()).add(tuple(map(str, place)))
        parameters |= {read for read in node.all_input_nodes if read in flow.parametric}
    return _Step(places, parameters)
