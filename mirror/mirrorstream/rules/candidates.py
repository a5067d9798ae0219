"""The answers of the mirror rules: where a node would pull from, and what the controller tries."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PullSource:
    """One place that a node tries for an image, in its order; `reference` is fully normalised."""

    reference: str
    insecure: bool
    blocked: bool


@dataclass(frozen=True, slots=True)
class Candidate:
    """One reference that the controller imports a tag through.

    `insecure` is the mirror's own setting; `mirror_set` names the object that the mirror came from, as
    `ImageDigestMirrorSet/redhat` (the lexically first, where several name the same mirror).
    """

    reference: str
    insecure: bool
    mirror_set: str

    @property
    def host(self) -> str:
        """The mirror's `host[:port]`."""
        return self.reference.partition("/")[0]


THE_SOURCE = "it is the source itself"
"""The reason for a mirror that is none."""


@dataclass(frozen=True, slots=True)
class SkippedMirror:
    """A mirror that is not tried, and why."""

    reference: str
    mirror_set: str
    reason: str
