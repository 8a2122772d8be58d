"""unbraid.unravel."""
