"""unbraid.train."""
