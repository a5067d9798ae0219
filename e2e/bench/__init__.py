"""How fast it is, measured here and now, with what it is measured against in the same run."""
