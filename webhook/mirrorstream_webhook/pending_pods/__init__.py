"""Pods that hang on a pull: found, decided about, and mended in place by one replica."""
