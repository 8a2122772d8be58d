"""The one style of every figure: its rules, its inks and its palette, which a page with a theme of its own exchanges.

with draw.theme.style():
    figure = Figure()
"""

from unbraid.draw._style import INK, MUTED, PALETTE, PAPER, style

__all__ = ["INK", "MUTED", "PALETTE", "PAPER", "style"]
