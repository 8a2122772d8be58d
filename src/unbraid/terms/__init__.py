"""The stream taken apart: the input plus one term per block (Equation 11.5), exactly, through any trunk operation.

`unravel` gives the terms; `Terms.attribute` splits a scalar over them, `Terms.lens` applies the head to their partial
sums, and `terms[k].unravel()` takes apart the input of the k-th block's branch: an ensemble again.
"""

from unbraid.terms._attribute import attribute
from unbraid.terms._attribution import Attribution
from unbraid.terms._lens import Lens
from unbraid.terms._terms import Term, Terms, unravel

__all__ = ["Attribution", "Lens", "Term", "Terms", "attribute", "unravel"]
