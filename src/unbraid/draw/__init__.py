"""unbraid.draw: the figures of chapter 11 and one for each result, in one style.

Every function returns a matplotlib Figure made without pyplot, so nothing global changes and nothing opens; `save`
writes it as PNG or SVG and `svg` gives its text.

    draw.save(draw.unravelled(4), "figure.svg")

`plain` (figure 11.1), `network` (11.4a), `unravelled` (11.4b), `order` (11.5); the others show results, and draw into
`ax` where it is given. Those of `unbraid.gradients` are drawn by `draw.gradients`, edges by `draw.circuits`; the style
of all, its inks and its palette, are `draw.theme`.
"""

from typing import TYPE_CHECKING

from unbraid.draw import circuits as circuits
from unbraid.draw import gradients as gradients
from unbraid.draw import theme as theme
from unbraid.draw._blocks import blocks, left
from unbraid.draw._contributions import agreement, contributions
from unbraid.draw._depth import DepthCurve, depth
from unbraid.draw._epochs import epochs
from unbraid.draw._lesion import lesion_pairs, lesions, reorderings, subsets
from unbraid.draw._network import network
from unbraid.draw._order import order
from unbraid.draw._parts import parts
from unbraid.draw._paths import paths
from unbraid.draw._plain import plain
from unbraid.draw._ranking import ranking
from unbraid.draw._save import save, svg
from unbraid.draw._spectra import spectra
from unbraid.draw._spectrum import spectrum, values
from unbraid.draw._sweep import sweep
from unbraid.draw._terms import terms
from unbraid.draw._unravelled import unravelled

__all__ = [
    "DepthCurve",
    "agreement",
    "blocks",
    "contributions",
    "depth",
    "epochs",
    "left",
    "lesion_pairs",
    "lesions",
    "network",
    "order",
    "parts",
    "paths",
    "plain",
    "ranking",
    "reorderings",
    "save",
    "spectra",
    "spectrum",
    "subsets",
    "svg",
    "sweep",
    "terms",
    "unravelled",
    "values",
]

if not TYPE_CHECKING:  # which would take any name for known

    def __getattr__(name: str) -> object:
        # What is in `gradients` and `theme` now stood here once: code that was written then goes on, as it means the
        # same.
        for face in (gradients, theme):
            if name in face.__all__:
                return getattr(face, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
