"""A metric over batches, of a form and of many variants of it that share what they have in common."""

from unbraid.sweep._batches import Batch, Batches, Keep, Metric, each_batch, each_row
from unbraid.sweep._log import Log
from unbraid.sweep._sweep import Feed, lesioned, sweep

__all__ = [
    "Batch",
    "Batches",
    "Feed",
    "Keep",
    "Log",
    "Metric",
    "each_batch",
    "each_row",
    "lesioned",
    "sweep",
]
