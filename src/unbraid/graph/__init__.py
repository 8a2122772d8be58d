"""unbraid.graph."""
