"""Who writes to a model's trunks and who reads them, and the graph in which readers hear some writers alone."""

from unbraid.discover._rewired import rewire
from unbraid.discover._trunk_wiring import CONSTANTS, HEAD, INPUT, Reader, Wiring, Writer, part_of

__all__ = ["CONSTANTS", "HEAD", "INPUT", "Reader", "Wiring", "Writer", "part_of", "rewire"]
