"""Train networks by a recipe, one or many at once, in folders that survive being killed, and read them back."""

from unbraid.train._fit import fit
from unbraid.train._load import load
from unbraid.train._many import train_many
from unbraid.train._recipe import Recipe
from unbraid.train._run import Epoch, Run
from unbraid.train._save import save
from unbraid.train._store import Store

__all__ = ["Epoch", "Recipe", "Run", "Store", "fit", "load", "save", "train_many"]
