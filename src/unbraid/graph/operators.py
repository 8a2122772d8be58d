"""The one table of operators: what is known of each, and what is asked of the row of a node's operator.

`TABLE` has a row for each operator, an `Operator`, whose traits are the values of the other classes here. What an
operator does to the data that flow through it, whether it moves, mixes or carries them, `unbraid.graph` answers itself.
"""

from unbraid.graph._operator_row import BOTH, EITHER, Attention, Frozen, Holds, Kind, Memory, Operator, Random
from unbraid.graph._operator_table import TABLE
from unbraid.graph.questions import (
    argument_of,
    callee,
    drop_rate,
    foreign,
    in_training,
    operator_of,
    places_of,
    random,
    switched_off,
)

__all__ = [
    "BOTH",
    "EITHER",
    "TABLE",
    "Attention",
    "Frozen",
    "Holds",
    "Kind",
    "Memory",
    "Operator",
    "Random",
    "argument_of",
    "callee",
    "drop_rate",
    "foreign",
    "in_training",
    "operator_of",
    "places_of",
    "random",
    "switched_off",
]
