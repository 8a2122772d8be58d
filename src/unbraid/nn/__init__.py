"""unbraid.nn."""
