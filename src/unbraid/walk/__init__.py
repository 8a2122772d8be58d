"""Run a graph, pull cotangents back through it, and walk it backward with any algebra of path values.

One traversal serves every analysis; what is carried decides what comes out:

- `Cotangents`: one cotangent, which is autograd's gradient;
- `Polynomials`: a polynomial in t, t once for each branch that is entered: the gradient by path length;
- `Marks`: one cotangent for each block, or pair of blocks, that the paths pass;
- `Masks`: one cotangent a path, with the choices that the path made: every path by itself;
- `Counts`: integer polynomials: how many paths there are of each length.
"""

from unbraid.walk._chosen import Chosen, Rows
from unbraid.walk._constants import constants
from unbraid.walk._counts import Counts, path_counts
from unbraid.walk._freeze import freeze
from unbraid.walk._layout import weights_channels_last
from unbraid.walk._lengths import NOT_MET, Lengths
from unbraid.walk._marks import BlockSet, Marked, Marks
from unbraid.walk._masks import Masks, PathStack, distinct
from unbraid.walk._memory import memory_kept
from unbraid.walk._merge import ALONE, NONE, Merged, dimension, merge
from unbraid.walk._polynomials import Polynomial, Polynomials
from unbraid.walk._run import run
from unbraid.walk._schedule import Room, Schedule, schedule
from unbraid.walk._sizes import Budget, Size, by_step, measured
from unbraid.walk._state import (
    Place,
    State,
    Streamed,
    detached,
    device_of,
    joined,
    lies,
    like,
    moved,
    resident,
    retyped,
)
from unbraid.walk._tape import Cotangents, Tape, record
from unbraid.walk._variants import run_variants
from unbraid.walk._walk import Algebra, pass_back, walk
from unbraid.walk._witness import stacked_kinds, used, witnesses

__all__ = [
    "ALONE",
    "NONE",
    "NOT_MET",
    "Algebra",
    "BlockSet",
    "Budget",
    "Chosen",
    "Cotangents",
    "Counts",
    "Lengths",
    "Marked",
    "Marks",
    "Masks",
    "Merged",
    "PathStack",
    "Place",
    "Polynomial",
    "Polynomials",
    "Room",
    "Rows",
    "Schedule",
    "Size",
    "State",
    "Streamed",
    "Tape",
    "by_step",
    "constants",
    "detached",
    "device_of",
    "dimension",
    "distinct",
    "freeze",
    "joined",
    "lies",
    "like",
    "measured",
    "memory_kept",
    "merge",
    "moved",
    "pass_back",
    "path_counts",
    "record",
    "resident",
    "retyped",
    "run",
    "run_variants",
    "schedule",
    "stacked_kinds",
    "used",
    "walk",
    "weights_channels_last",
    "witnesses",
]
