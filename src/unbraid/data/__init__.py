"""unbraid.data."""
