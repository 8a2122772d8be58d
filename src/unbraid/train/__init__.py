"""Train a network by a recipe, keep it in a folder that survives being killed, and read it back."""

from unbraid.train._fit import fit
from unbraid.train._load import load
from unbraid.train._progress import Bars, progress
from unbraid.train._recipe import Recipe
from unbraid.train._run import Epoch, Run
from unbraid.train._save import save

__all__ = ["Bars", "Epoch", "Recipe", "Run", "fit", "load", "progress", "save"]
