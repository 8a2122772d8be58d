"""Work that several processes share, by torch.distributed; with one process, or none connected, plain loops.

    for row in in_order(batches, work):  # each item is worked on by one rank, and every rank gets all rows in order
        total += row["total"]

Nothing else of the library knows how many ranks there are: what is added up in this order is added up as one process
would, to the same bits.
"""

from unbraid.ranks._agree import agreed, fingerprint
from unbraid.ranks._first import from_first, together
from unbraid.ranks._gather import Row
from unbraid.ranks._group import group, launched, many
from unbraid.ranks._order import in_order
from unbraid.ranks._total import connected, total
from unbraid.ranks._world import Share, World, alone, world

__all__ = [
    "Row",
    "Share",
    "World",
    "agreed",
    "alone",
    "connected",
    "fingerprint",
    "from_first",
    "group",
    "in_order",
    "launched",
    "many",
    "together",
    "total",
    "world",
]
