"""What each analysis says in a report: one file per subject, a function from plain values to a Section.

To add a section, write its file here and name its function below; neither pages nor templates change.
"""

from unbraid.reports.sections._depth import depth
from unbraid.reports.sections._lens import lens
from unbraid.reports.sections._lesions import lesions, reorderings
from unbraid.reports.sections._missing import missing
from unbraid.reports.sections._network import NetworkFacts, network
from unbraid.reports.sections._paths import PathFacts, overstated, paths
from unbraid.reports.sections._signal import alike, neighbours, signal
from unbraid.reports.sections._single import single
from unbraid.reports.sections._terms import TermFacts, terms
from unbraid.reports.sections._training import TrainedNetwork, Training, training
from unbraid.reports.sections._values import values

__all__ = [
    "NetworkFacts",
    "PathFacts",
    "TermFacts",
    "TrainedNetwork",
    "Training",
    "alike",
    "depth",
    "lens",
    "lesions",
    "missing",
    "neighbours",
    "network",
    "overstated",
    "paths",
    "reorderings",
    "signal",
    "single",
    "terms",
    "training",
    "values",
]
