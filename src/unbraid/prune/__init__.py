"""Rank the blocks of a model by what they are worth, remove some, and hand back a smaller model.

`prune` returns the smaller model, `pruning` says how it was made and what it saves. `rank` orders blocks by importance,
`angular_distance` finds the run of blocks that turns the stream least, and `layers` says which blocks make a layer.
"""

from unbraid.graph import Removal
from unbraid.prune._angular import AngularDistances, angular_distance
from unbraid.prune._pretrained import is_pretrained
from unbraid.prune._prune import layers, prune, pruning
from unbraid.prune._pruning import Pruning
from unbraid.prune._rank import rank
from unbraid.prune._ranking import Ranking

__all__ = [
    "AngularDistances",
    "Pruning",
    "Ranking",
    "Removal",
    "angular_distance",
    "is_pretrained",
    "layers",
    "prune",
    "pruning",
    "rank",
]
