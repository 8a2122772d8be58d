"""unbraid.report."""
