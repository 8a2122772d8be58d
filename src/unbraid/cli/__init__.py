"""unbraid.cli."""
