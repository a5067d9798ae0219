"""What config/ renders to."""
