"""A metric over batches, of a form and of many variants of it that share what they have in common."""

from unbraid.sweep._batches import Batch, Batches, Metric, Resume, each_batch, each_row
from unbraid.sweep._log import Log
from unbraid.sweep._sweep import Feed, lesioned, sweep

__all__ = [
    "Batch",
    "Batches",
    "Feed",
    "Log",
    "Metric",
    "Resume",
    "each_batch",
    "each_row",
    "lesioned",
    "sweep",
]
