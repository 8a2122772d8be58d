"""Rank the blocks of a model by what they are worth, remove some, and hand back a smaller model.

`prune` returns the smaller model, `pruning` says how it was made and what it saves. `rank` orders blocks by importance,
`angular_distance` finds the run of blocks that changes the stream least, and `layers` says which blocks make a layer.
"""

from unbraid.prune._prune import layers, prune, pruning
from unbraid.prune._pruning import Pruning

__all__ = [
    "Pruning",
    "layers",
    "prune",
    "pruning",
]
