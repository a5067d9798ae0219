"""What only a node shows: pods that run, or do not."""
