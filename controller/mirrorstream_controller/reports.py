"""Telling what happened: Events for the stream's owner, metrics for the administrator, lines in the log.

One place for the words, so that the same outcome reads the same everywhere.
"""

import datetime
import math
from collections.abc import Callable, Iterable

import structlog
from mirrorstream.attempts import FAILED, HELD, IMPORTED, OUTCOME_ANNOTATION, REFUSED, Answer, Attempt, Result, encode_attempt
from mirrorstream.candidates import Candidate
from mirrorstream.failures import Failure
from mirrorstream.imagestreams import WHOLE_REPOSITORY
from mirrorstream.kube.client import ApiError, ClientError
from mirrorstream.kube.events import NORMAL, WARNING, EventRecorder, Involved

from mirrorstream_controller.metrics import ControllerMetrics
from mirrorstream_controller.plan import TagPlan
from mirrorstream_controller.recorder import Held, TagResult

log = structlog.get_logger(__name__)

Key = tuple[str, str]
Tried = tuple[tuple[Candidate, Failure], ...]
"""The candidates that did not serve an image, each with its reason."""


class Reports:
    """Reports outcomes; no Event is written unless `active()`, since an observer writes nothing."""

    def __init__(self, events: EventRecorder, metrics: ControllerMetrics, active: Callable[[], bool]) -> None:
        self._events, self._metrics, self._active = events, metrics, active

    def imported(self, key: Key, uid: str, result: TagResult) -> None:
        """A tag was recorded."""
        self._count("imported", result.plan)
        log.info("imported", tag=result.tag, reference=result.reference, through=result.through, mirror_set=result.mirror_set)
        message = f"tag {result.tag}: {result.reference} through {result.through} ({result.mirror_set})"
        attempt = _attempt(result.plan, Result.IMPORTED, tag=result.tag, answers=(Answer(result.through, result.mirror_set),))
        self._say(key, uid, NORMAL, IMPORTED, f"{message}, since the source failed: {_why(result.plan)}", attempt)

    def failed(self, key: Key, uid: str, plan: TagPlan, tried: Tried) -> None:
        """No candidate serves the image; the same reasons again only raise the Event's count."""
        self._count("failed", plan)
        reasons = "; ".join(f"{candidate.reference}: {failure.kind}: {failure.message}" for candidate, failure in tried)
        attempt = _attempt(plan, Result.FAILED, answers=_failed(tried))
        self._say(key, uid, WARNING, FAILED, f"{_what(plan)}: {plan.source} ({_why(plan)}) is in no mirror: {reasons}", attempt)

    def not_made(self, key: Key, uid: str, plan: TagPlan, error: ClientError | None) -> None:
        """The API server did not let us import, or could not be asked: nothing is known about the mirrors."""
        self._count("error", plan)
        if isinstance(error, ApiError) and error.status < 500:
            message = f"the API server refused the import: {error}"
            self._say(key, uid, WARNING, FAILED, f"{_what(plan)}: {message}", _attempt(plan, Result.ERROR, message))

    def refused(self, key: Key, uid: str, plan: TagPlan) -> None:
        """A failure that must not be walked around."""
        self._count("refused", plan)
        log.info("not importing through mirrors", tag=plan.tag, source=plan.source, why=plan.why)
        message = f"{_what(plan)}: {plan.source} is not imported through a mirror: {plan.why}"
        self._say(key, uid, WARNING, REFUSED, message, _attempt(plan, Result.REFUSED, plan.why))

    def not_recorded(self, key: Key, uid: str, results: list[TagResult], error: ClientError) -> None:
        """The API server refused the status write: an admission limit, say."""
        log.warning("the status write was refused", error=str(error))
        why = f"the API server refused to record the import: {error}"
        for result in results:
            # An Event each: whoever asks about a tag finds it.
            self._count("refused", result.plan)
            served = Answer(result.through, result.mirror_set)
            attempt = _attempt(result.plan, Result.NOT_RECORDED, why, tag=result.tag, answers=(served,))
            self._say(key, uid, WARNING, REFUSED, f"tag {result.tag}: {why}", attempt)

    def held(self, key: Key, uid: str, held: Held, tried: Tried) -> None:
        """A mirror has another image than the source had, and the source has not failed for long; `tried` did not serve any."""
        plan, candidate = held.plan, held.candidate
        self._count("held", plan)
        log.info("kept what the source served: it has not failed for long enough", tag=plan.tag, digest=held.digest)
        # Said the same way after each attempt, so that the Event's count rises.
        until = datetime.datetime.fromtimestamp(math.ceil(held.until), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        # The digest comes last: where there is little room, it is what is cut.
        why = (
            f"serves another image than the source did; from {until} on, if the source still fails, the tag gets it: {held.digest}"
        )
        answers = (*_failed(tried), Answer(candidate.reference, candidate.mirror_set))
        self._say(
            key, uid, NORMAL, HELD, f"{_what(plan)}: {candidate.reference} {why}", _attempt(plan, Result.HELD, why, answers=answers)
        )

    def observed(self, plan: TagPlan, results: Iterable[TagResult]) -> None:
        """What would be recorded if this were not an observer."""
        for result in results:
            self._count("observed", plan)
            log.info("would record", tag=result.tag, reference=result.reference, through=result.through)

    def _count(self, result: str, plan: TagPlan) -> None:
        self._metrics.imports.labels(result, plan.failure.kind if plan.failure else "").inc()

    def _say(self, key: Key, uid: str, event_type: str, reason: str, message: str, attempt: Attempt) -> None:
        if self._active():
            involved = Involved("image.openshift.io/v1", "ImageStream", key[0], key[1], uid)
            self._events.event(involved, event_type, reason, message, ((OUTCOME_ANNOTATION, encode_attempt(attempt)),))


def _what(plan: TagPlan) -> str:
    return "repository" if plan.tag == WHOLE_REPOSITORY else f"tag {plan.tag}"


def _why(plan: TagPlan) -> str:
    return plan.failure.kind if plan.failure else "failed"


def _failed(tried: Tried) -> tuple[Answer, ...]:
    return tuple(Answer(c.reference, c.mirror_set, failure.kind, failure.message) for c, failure in tried)


def _attempt(plan: TagPlan, result: Result, message: str = "", *, tag: str = "", answers: tuple[Answer, ...] = ()) -> Attempt:
    """The outcome for programs."""
    return Attempt(tag or plan.tag, result, plan.source, plan.failure.kind if plan.failure else "", message, answers, plan.asked)
