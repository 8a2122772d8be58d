"""unbraid.draw: the figures of chapter 11 and one for each result, in one style.

Every function returns a matplotlib Figure made without pyplot, so nothing global changes and nothing opens; `save`
writes it as PNG or SVG and `svg` gives its text.

    draw.save(draw.unravelled(4), "figure.svg")

`plain` (figure 11.1), `network` (11.4a), `unravelled` (11.4b), `order` (11.5); the others show results, and draw into
`ax` where it is given. `INK`, `PAPER`, `MUTED` and `PALETTE` are the colours that a page with a theme of its own
exchanges.
"""

from unbraid.draw._blocks import blocks, left
from unbraid.draw._contributions import agreement, contributions
from unbraid.draw._depth import DepthCurve, depth
from unbraid.draw._epochs import epochs
from unbraid.draw._gradients import autocorrelation, chain, coherence, predictiveness, signal, skip_gain
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
from unbraid.draw._style import INK, MUTED, PALETTE, PAPER, style
from unbraid.draw._sweep import sweep
from unbraid.draw._terms import terms
from unbraid.draw._unravelled import unravelled

__all__ = [
    "INK",
    "MUTED",
    "PALETTE",
    "PAPER",
    "DepthCurve",
    "agreement",
    "autocorrelation",
    "blocks",
    "chain",
    "coherence",
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
    "predictiveness",
    "ranking",
    "reorderings",
    "save",
    "signal",
    "skip_gain",
    "spectra",
    "spectrum",
    "style",
    "subsets",
    "svg",
    "sweep",
    "terms",
    "unravelled",
    "values",
]
