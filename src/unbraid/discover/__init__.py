"""Operators to blocks: which additions are residual, what the skip and the branches are, and the graph cut at them.

Only this room knows what a skip connection is.
"""

from unbraid.discover._anatomy import Anatomy, anatomy
from unbraid.discover._block import Block, Trunk, every_block
from unbraid.discover._block_nodes import BlockNodes
from unbraid.discover._block_parameters import parameters
from unbraid.discover._cut import cut
from unbraid.discover._dataflow import Dataflow
from unbraid.discover._equation import Equation
from unbraid.discover._find import find
from unbraid.discover._random_operators import by_chance, drawn, refuse_stateful
from unbraid.discover._reorder import interchangeable, reorder
from unbraid.discover._split_heads import Split, by_heads
from unbraid.discover._trunk_reads import equation
from unbraid.discover._which_block import BlockLike, BranchLike, branch_of, index_of, removal_name, removal_of

__all__ = [
    "Anatomy",
    "Block",
    "BlockLike",
    "BlockNodes",
    "BranchLike",
    "Dataflow",
    "Equation",
    "Split",
    "Trunk",
    "anatomy",
    "branch_of",
    "by_chance",
    "by_heads",
    "cut",
    "drawn",
    "equation",
    "every_block",
    "find",
    "index_of",
    "interchangeable",
    "parameters",
    "refuse_stateful",
    "removal_name",
    "removal_of",
    "reorder",
]
