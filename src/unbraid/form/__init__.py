"""unbraid.form."""
