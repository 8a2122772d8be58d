"""The second linearisation: every factor that is not linear held at its value at one input, so that values split.

Only this room knows the rules.
"""

from unbraid.freeze._freeze import freeze

__all__ = [
    "freeze",
]
