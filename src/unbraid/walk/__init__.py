"""Run a graph, pull cotangents back through it, and walk it backward with any algebra of path values.

One traversal serves every analysis; what is carried decides what comes out:

- `Cotangents`: one cotangent, which is autograd's gradient;
- `Polynomials`: a polynomial in t, t once for each branch that is entered: the gradient by path length;
- `ThroughBlocks`: one cotangent for each block, or pair of blocks, that the paths pass;
- `Masks`: one cotangent per path, with the choices that the path made: every path by itself;
- `Counts`: integer polynomials: how many paths there are of each length.
"""

from unbraid.walk._channels_last import weights_channels_last
from unbraid.walk._chosen_paths import Chosen
from unbraid.walk._constants import constants
from unbraid.walk._counts import Choice, Counts, Tally, path_counts
from unbraid.walk._kept_memory import memory_kept
from unbraid.walk._lengths import NOT_MET, Lengths
from unbraid.walk._memory_budget import Budget, Size, by_step, measure
from unbraid.walk._merge import ALONE, NONE, dimension, merge
from unbraid.walk._path_stacks import Masks, PathStack, distinct
from unbraid.walk._polynomials import Polynomial, Polynomials
from unbraid.walk._probe_variants import probe_variants, stacked_kinds, used
from unbraid.walk._run import execute, run
from unbraid.walk._schedule import Room, Schedule, schedule
from unbraid.walk._tape import Cotangents, Tape, record
from unbraid.walk._through_blocks import BlockSet, BlockSetStack, ThroughBlocks
from unbraid.walk._variants import run_variants
from unbraid.walk._walk import pass_back, walk

__all__ = [
    "ALONE",
    "NONE",
    "NOT_MET",
    "BlockSet",
    "BlockSetStack",
    "Budget",
    "Choice",
    "Chosen",
    "Cotangents",
    "Counts",
    "Lengths",
    "Masks",
    "PathStack",
    "Polynomial",
    "Polynomials",
    "Room",
    "Schedule",
    "Size",
    "Tally",
    "Tape",
    "ThroughBlocks",
    "by_step",
    "constants",
    "dimension",
    "distinct",
    "execute",
    "measure",
    "memory_kept",
    "merge",
    "pass_back",
    "path_counts",
    "probe_variants",
    "record",
    "run",
    "run_variants",
    "schedule",
    "stacked_kinds",
    "used",
    "walk",
    "weights_channels_last",
]
