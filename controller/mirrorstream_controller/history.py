"""What was seen of a stream before, and what the present alone does not tell: pure. Times are in seconds since the epoch."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mirrorstream.imagestream.eligibility import normalised
from mirrorstream.imagestream.model import Condition, ImageStream, SpecTag, StatusTag, is_pending
from mirrorstream.text.times import seconds_of

NEW_OUTAGE_SECONDS = 1800.0
"""Two turns of the platform's scheduled import. The source of a tag that was recorded through a mirror, and that did not fail again
for longer, may have answered in between: an import that finds the same image again leaves no trace in the stream."""


@dataclass(frozen=True, slots=True)
class History:
    """What a plan needs to know of the past, by tag.

    `pending_since`: when each tag's import was first seen pending at its present generation. `failing_since`: when each tag's
    present source was first seen failing without a success of the platform's in between, as far as a stream tells; a condition's
    own time is younger whenever the message changed (an ephemeral port in it is enough). `unsettled`: the tags whose newest item is
    not known to be an image of the present source, with the source that it is settled under (`mirrorstream.imagestream.settled`).
    """

    pending_since: Mapping[str, float] = field(default_factory=dict)
    failing_since: Mapping[str, float] = field(default_factory=dict)
    unsettled: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class TagHistory:
    """One tag, or the whole repository of a stream."""

    source: str = ""
    pending: tuple[int, float] | None = None
    """While the platform's import is pending: at which generation, and since when."""
    failing: tuple[float, int | None] | None = None
    """While the source fails: since when, and the generation that was recorded through a mirror, if one was."""
    well_since: float | None = None
    """While the tag is well only because it was recorded through a mirror: since when."""
    failed_since: float | None = None
    """Since when the tag is known to fail: a condition whose message changed is younger."""

    def observe(self, tag: SpecTag, status: StatusTag | None, now: float) -> bool:
        """Take in a tag as it is now; whether its source is another one than before."""
        source = normalised(tag.from_.name if tag.from_ else "")
        if other := self.source not in ("", source):
            self.failing = self.failed_since = None
        self.source = source
        if is_pending(tag, status):
            self._fails_again(self._wait(tag.generation or 0, now))
            return other
        self.pending = None
        if status and status.failure:
            since = min(failed_at(status.failure, now), now)
            self._fails_again(since)
            self.failing = self.failing or (since, None)
            self._fail(since)
            return other
        self.failed_since = None
        if self.failing and not (status and status.newest and status.newest.generation == self.failing[1]):
            # Otherwise the tag is well only because we recorded it: the source has not answered since.
            self.failing = None
        return other

    def observe_repository(self, stream: ImageStream, now: float) -> None:
        """Take in a stream whose whole repository is not imported."""
        self._wait(stream.metadata.generation, now)
        if stream.annotations.repository_check:
            self._fail(min(repository_failed_at(stream, now), now))
        else:
            self.failed_since = None

    def record(self, since: float, generation: int, now: float) -> None:
        """Remember that the tag is well because of us, at `generation`, though its source has failed since `since`."""
        self.failing, self.well_since, self.failed_since = (since, generation), now, None

    def _fails_again(self, since: float) -> None:
        """Begin a new outage if the tag was well for long; before the watch brings a record, an older failure is still there."""
        if self.well_since is None or since <= self.well_since:
            return
        if since - self.well_since > NEW_OUTAGE_SECONDS:
            self.failing = None
        self.well_since = None

    def _wait(self, generation: int, now: float) -> float:
        """Take in that an import is pending at this generation; since when."""
        if self.pending is None or self.pending[0] != generation:
            self.pending = (generation, now)
        return self.pending[1]

    def _fail(self, since: float) -> None:
        self.failed_since = since if self.failed_since is None else min(self.failed_since, since)


def failed_at(condition: Condition, now: float) -> float:
    """When the condition was set; `now` when it does not say."""
    at = seconds_of(condition.last_transition_time)
    return now if at is None else at


def repository_failed_at(stream: ImageStream, otherwise: float) -> float:
    """When the platform tried a whole repository and found nothing; `otherwise` if it does not say."""
    at = seconds_of(stream.annotations.repository_check)
    return otherwise if at is None else at


def asked_at(stream: ImageStream) -> float | None:
    """When a user asked for a retry, as `mirrorstream retry` writes it; None if the annotation is not set, or is no time."""
    return seconds_of(stream.annotations.retry)
