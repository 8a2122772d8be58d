"""Rank the blocks of a model by what they are worth, remove some, and hand back a smaller model.

`prune` returns the smaller model, `pruning` says how it was made and what it saves. `rank` orders blocks by importance,
`angular_distance` finds the run of blocks that turns the stream least, and `layers` says which blocks make a layer.
"""

from unbraid.graph import Removal
from unbraid.pruning._angular_distance import AngularDistances, angular_distance
from unbraid.pruning._pretrained import is_pretrained
from unbraid.pruning._prune import layers, prune, pruning
from unbraid.pruning._pruning import Pruning
from unbraid.pruning._rank import rank
from unbraid.pruning._ranking import Ranking

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
