"""unbraid.walk."""
