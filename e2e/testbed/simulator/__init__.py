"""A cluster in one process: a small generic API server, and image.openshift.io/v1 behaving as it was recorded.

It exists for speed, for the demo and for faults on command. It is held to recordings of the real API, and mirrorstream's own
tests run on the real one too.
"""
