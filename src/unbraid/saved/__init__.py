"""Forms in folders: the graph in torch.export's format, weights in safetensors, the rest in JSON, with checksums."""

from unbraid.saved._facts import Facts
from unbraid.saved._read import load
from unbraid.saved._store import save
from unbraid.saved._tensors import read_tensors, stored
from unbraid.saved._weights import state_from

__all__ = [
    "Facts",
    "load",
    "read_tensors",
    "save",
    "state_from",
    "stored",
]
