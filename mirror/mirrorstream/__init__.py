"""ImageStreams that keep working when the upstream registry cannot be reached: the shared library."""
