"""Edges and circuits: what each block tells each later block, in any model, and the few edges that carry a task.

A writer adds to the trunk, a reader reads it; an edge is what one adds to what the other reads (`discover.wiring`).
"""

from unbraid.circuits._circuit import Circuit
from unbraid.circuits._compared import Comparison, Stability
from unbraid.circuits._edges import edges
from unbraid.circuits._faithfulness import Faithfulness
from unbraid.circuits._path_effect import PathEffect, path_effect
from unbraid.circuits._study import EdgeStudy

__all__ = ["Circuit", "Comparison", "EdgeStudy", "Faithfulness", "PathEffect", "Stability", "edges", "path_effect"]
