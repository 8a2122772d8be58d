"""Gradients and signals through depth: chains of derivatives, shattering, signal propagation, and closed forms.

- `derivative_chain`: the factors of Equations 11.3 and 11.6;
- `input_autocorrelation`, `line`: how alike gradients at neighbouring inputs are;
- `example_coherence`, `update_predictiveness`: how alike those of different examples are, and how long they stay valid;
- `signal`: mean, variance and correlation at every addition, and the gradient's norm;
- `skip_gain`: how much skips that mix streams amplify;
- `diagnose`: all of it at once, in words; `DiagnosisLog` while a network is trained;
- `theory`: what should come out at initialisation.
"""

from unbraid.gradients import theory
from unbraid.gradients._chain_link import Factor
from unbraid.gradients._derivative_chain import DerivativeChain, derivative_chain
from unbraid.gradients._diagnose import Diagnosis, Finding, diagnose
from unbraid.gradients._diagnosis_log import DiagnosisLog
from unbraid.gradients._example_coherence import Coherence, example_coherence
from unbraid.gradients._input_autocorrelation import Autocorrelation, input_autocorrelation, line
from unbraid.gradients._signal import Moments, Signal, signal
from unbraid.gradients._signal_batch import NotFinite
from unbraid.gradients._skip_gain import SkipGain, skip_gain
from unbraid.gradients._update_predictiveness import Predictiveness, update_predictiveness

__all__ = [
    "Autocorrelation",
    "Coherence",
    "DerivativeChain",
    "Diagnosis",
    "DiagnosisLog",
    "Factor",
    "Finding",
    "Moments",
    "NotFinite",
    "Predictiveness",
    "Signal",
    "SkipGain",
    "derivative_chain",
    "diagnose",
    "example_coherence",
    "input_autocorrelation",
    "line",
    "signal",
    "skip_gain",
    "theory",
    "update_predictiveness",
]
