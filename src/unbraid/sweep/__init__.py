"""A metric over batches, of a form and of many variants of it that share what they have in common."""

from unbraid.sweep._batches import Batch, Batches, Metric, Resume, each_batch, each_row
from unbraid.sweep._log import Log
from unbraid.sweep._merge import NONE, dimension, merge
from unbraid.sweep._probe_variants import used
from unbraid.sweep._schedule import Room, schedule
from unbraid.sweep._sweep import Feed, lesioned, sweep, together
from unbraid.sweep._variants import run_variants

__all__ = [
    "NONE",
    "Batch",
    "Batches",
    "Feed",
    "Log",
    "Metric",
    "Resume",
    "Room",
    "dimension",
    "each_batch",
    "each_row",
    "lesioned",
    "merge",
    "run_variants",
    "schedule",
    "sweep",
    "together",
    "used",
]
