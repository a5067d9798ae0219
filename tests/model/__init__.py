"""Models of what mirrorstream decides and does, checked over every state rather than by example."""

import os

SOAK = bool(os.environ.get("MIRRORSTREAM_SOAK"))
"""Whether time does not matter, as with `make soak`: everything is checked that is only sampled otherwise."""
