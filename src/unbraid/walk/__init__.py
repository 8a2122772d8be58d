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
from unbraid.walk._lengths import NOT_MET, Lengths
from unbraid.walk._path_stacks import Masks, PathStack, distinct
from unbraid.walk._polynomials import Polynomial, Polynomials
from unbraid.walk._run import execute, run
from unbraid.walk._tape import Cotangents, Tape, record
from unbraid.walk._through_blocks import BlockSet, BlockSetStack, ThroughBlocks
from unbraid.walk._walk import pass_back, walk

__all__ = [
    "NOT_MET",
    "BlockSet",
    "BlockSetStack",
    "Choice",
    "Chosen",
    "Cotangents",
    "Counts",
    "Lengths",
    "Masks",
    "PathStack",
    "Polynomial",
    "Polynomials",
    "Tally",
    "Tape",
    "ThroughBlocks",
    "constants",
    "distinct",
    "execute",
    "pass_back",
    "path_counts",
    "record",
    "run",
    "walk",
    "weights_channels_last",
]
