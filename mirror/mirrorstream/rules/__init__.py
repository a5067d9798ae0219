"""How a node resolves mirrors: where it pulls an image from, and what the controller tries."""

from mirrorstream.rules.candidates import Candidate, PullSource
from mirrorstream.rules.policy import MirrorPolicy
from mirrorstream.rules.references import Reference, ReferenceError, parse_reference

__all__ = ["Candidate", "MirrorPolicy", "PullSource", "Reference", "ReferenceError", "parse_reference"]
