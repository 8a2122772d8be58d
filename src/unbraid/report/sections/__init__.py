"""What each analysis says in a report: one file a subject, a function from plain values to a Section.

To add a section, write its file here and name its function below; neither pages nor templates change.
"""

from unbraid.report.sections._depth import depth
from unbraid.report.sections._network import NetworkFacts, network
from unbraid.report.sections._paths import PathFacts, overstated, paths
from unbraid.report.sections._terms import TermFacts, terms
from unbraid.report.sections._training import TrainedNetwork, Training, training

__all__ = [
    "NetworkFacts",
    "PathFacts",
    "TermFacts",
    "TrainedNetwork",
    "Training",
    "depth",
    "network",
    "overstated",
    "paths",
    "terms",
    "training",
]
