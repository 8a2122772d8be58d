"""First weights, as in torch.nn.init, and what they should do to the variance.

- Of a whole network: `initialise_`, by the name of a scheme; `fixup_`, for networks without norms.
- Of one tensor of weights: `he_`, `glorot_`, `orthogonal_`, `looks_linear_`.
- Of a branch, so that its block begins as its skip: `zero_last_`.
- For networks without norms: `activation_gain`, and the variance before each block, `predicted_variances`.
"""

from unbraid.nn._fixup import fixup_
from unbraid.nn._init import glorot_, he_, initialise_, looks_linear_, orthogonal_, zero_last_
from unbraid.nn._norm_free import activation_gain, predicted_variances

__all__ = [
    "activation_gain",
    "fixup_",
    "glorot_",
    "he_",
    "initialise_",
    "looks_linear_",
    "orthogonal_",
    "predicted_variances",
    "zero_last_",
]
