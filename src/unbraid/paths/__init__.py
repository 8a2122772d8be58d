"""Path by path: exact gradients and values over all 2^K paths of a residual network.

- `gradient_spectrum`: the gradient by the number of branches that a path passes, without enumerating paths;
- `mean_spectrum`: the same for a loss over a data set; `SpectrumLog` takes it while a network is trained;
- `gradient_parts`: the part of the gradient through each block, or each pair of blocks;
- `value_spectrum`: the target itself by path length, with the non-linear factors held;
- `all_paths`, `top_paths`, `sample_paths`, `chosen_paths`: single paths, with their values and the norms of their
  gradients.
"""

from unbraid.paths._all_paths import all_paths, top_paths
from unbraid.paths._chosen_paths import chosen_paths
from unbraid.paths._gradient_parts import GradientParts, gradient_parts
from unbraid.paths._gradient_spectrum import GradientSpectrum, gradient_spectrum
from unbraid.paths._length_statistics import effective
from unbraid.paths._mean_spectrum import MeanSpectrum, mean_spectrum
from unbraid.paths._sampled_paths import sample_paths
from unbraid.paths._single_paths import Paths
from unbraid.paths._spectrum_log import SpectrumLog
from unbraid.paths._value_spectrum import ValueSpectrum, value_spectrum

__all__ = [
    "GradientParts",
    "GradientSpectrum",
    "MeanSpectrum",
    "Paths",
    "SpectrumLog",
    "ValueSpectrum",
    "all_paths",
    "chosen_paths",
    "effective",
    "gradient_parts",
    "gradient_spectrum",
    "mean_spectrum",
    "sample_paths",
    "top_paths",
    "value_spectrum",
]
