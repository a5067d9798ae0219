"""What came of an import, as the import worker reports it."""

from dataclasses import dataclass

from mirrorstream.imagestream.failures import Failure
from mirrorstream.rules.candidates import Candidate

from mirrorstream_controller.plan import TagPlan

FailedCandidates = tuple[tuple[Candidate, Failure], ...]
"""The candidates that did not serve an image, each with its reason."""


@dataclass(frozen=True, slots=True)
class TagResult:
    """An image to record: for the tag of `plan`, or, for a whole repository, for `tag`."""

    plan: TagPlan
    tag: str
    digest: str
    reference: str
    """The recorded `repository@digest`."""
    through: str
    """The candidate that served it."""
    mirror_set: str
    created: str = ""
    """When the item is made: RFC 3339 text. The Image's annotation has it already. Empty if no item is made."""
    ours: frozenset[str] = frozenset()
    """The `created` of the items with this image that mirrorstream recorded; all others are the platform's."""


@dataclass(frozen=True, slots=True)
class FetchedImport:
    """A mirror served the image, and there is an Image for each of `results`."""

    plan: TagPlan
    results: tuple[TagResult, ...]


@dataclass(frozen=True, slots=True)
class HeldImport:
    """A mirror served an image that is not recorded yet: the source had another one, and has not failed for long."""

    plan: TagPlan
    digest: str
    candidate: Candidate
    until: float
    """When it may replace the other one, in seconds since the epoch."""
    tried: FailedCandidates = ()
    """The candidates before it, which did not serve any."""


@dataclass(frozen=True, slots=True)
class ObservedImport:
    """What would be recorded, were this not an observer: there need be no Images for it."""

    plan: TagPlan
    results: tuple[TagResult, ...]


@dataclass(frozen=True, slots=True)
class FailedImport:
    """No mirror served the image: `tried` has the answer of each candidate."""

    plan: TagPlan
    tried: FailedCandidates = ()
    retry_after: float = 0.0
    """For how many seconds the API server asked not to be asked again."""


@dataclass(frozen=True, slots=True)
class UnmadeImport(FailedImport):
    """The API server did not accept an import, or could not be asked: nothing is known about the mirrors."""

    refusal: str = ""
    """What the API server said, if it refused the import."""


ImportResult = FetchedImport | HeldImport | ObservedImport | FailedImport
