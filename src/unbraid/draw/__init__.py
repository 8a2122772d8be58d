"""unbraid.draw."""
