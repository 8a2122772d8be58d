"""Run a graph, pull cotangents back through it, and walk it backward with any algebra of path values.

One traversal serves every analysis; what is carried decides what comes out:

- `Cotangents`: one cotangent, which is autograd's gradient;
- `Polynomials`: a polynomial in t, t once for each branch that is entered: the gradient by path length;
- `Masks`: one cotangent a path, with the choices that the path made: every path by itself;
- `Counts`: integer polynomials: how many paths there are of each length.
"""

from unbraid.walk._chosen import Chosen, Rows
from unbraid.walk._constants import constants
from unbraid.walk._counts import Counts, path_counts
from unbraid.walk._freeze import freeze
from unbraid.walk._lengths import Lengths
from unbraid.walk._masks import Masks, PathStack, distinct
from unbraid.walk._polynomials import Polynomial, Polynomials
from unbraid.walk._run import State, run
from unbraid.walk._tape import Cotangents, Tape, record
from unbraid.walk._walk import Algebra, pass_back, walk

__all__ = [
    "Algebra",
    "Chosen",
    "Cotangents",
    "Counts",
    "Lengths",
    "Masks",
    "PathStack",
    "Polynomial",
    "Polynomials",
    "Rows",
    "State",
    "Tape",
    "constants",
    "distinct",
    "freeze",
    "pass_back",
    "path_counts",
    "record",
    "run",
    "walk",
]
