"""ImageStreams that keep working when the upstream registry cannot be reached: the shared library."""

from mirrorstream.candidates import Candidate, PullSource
from mirrorstream.policy import MirrorPolicy
from mirrorstream.references import Reference, ReferenceError, parse_reference

__all__ = ["Candidate", "MirrorPolicy", "PullSource", "Reference", "ReferenceError", "parse_reference"]
