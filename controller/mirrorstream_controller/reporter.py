"""Telling what happened: Events for the stream's owner, metrics for the administrator, lines in the log.

One place for the words, so that the same outcome reads the same everywhere.
"""

import math
from collections.abc import Callable, Sequence

import structlog
from mirrorstream.imagestream.outcomes import FAILED, HELD, IMPORTED, REFUSED, Attempt, AttemptResult, CandidateAnswer
from mirrorstream.kube.client import ClientError
from mirrorstream.kube.events import NORMAL, WARNING
from mirrorstream.kube.objects import Key
from mirrorstream.text.times import rfc3339

from mirrorstream_controller.metrics import ControllerMetrics
from mirrorstream_controller.plan import TagPlan
from mirrorstream_controller.results import (
    FailedCandidates,
    FailedImport,
    HeldImport,
    ImportResult,
    ObservedImport,
    TagResult,
    UnmadeImport,
)
from mirrorstream_controller.stream_events import Outcome, StreamEvents

log = structlog.get_logger(__name__)


class Reporter:
    """Reports outcomes; no Event is written unless `active()`, since an observer writes nothing."""

    def __init__(self, events: StreamEvents, metrics: ControllerMetrics, active: Callable[[], bool]) -> None:
        self._events, self._metrics, self._active = events, metrics, active

    def report(self, key: Key, uid: str, result: ImportResult) -> None:
        """What came of an import; of one that was fetched, its recording tells."""
        match result:
            case UnmadeImport():
                self._unmade(key, uid, result)
            case FailedImport():
                self._failed(key, uid, result)
            case HeldImport():
                self._held(key, uid, result)
            case ObservedImport():
                self._observed(result)

    def imported(self, key: Key, uid: str, result: TagResult, warnings: Sequence[str] = ()) -> None:
        """A tag was recorded; `warnings` are about its image."""
        self._count("imported", result.plan)
        log.info("imported", tag=result.tag, reference=result.reference, through=result.through, mirror_set=result.mirror_set)
        answers = (CandidateAnswer(result.through, result.mirror_set),)
        attempt = _attempt(result.plan, AttemptResult.IMPORTED, tag=result.tag, answers=answers)
        why = "; ".join((f"since the source failed: {_why(result.plan)}", *warnings))
        text = f"{result.reference} through {result.through} ({result.mirror_set}), {why}"
        shared = f"through {result.through.partition('/')[0]} ({result.mirror_set}), {why}"
        self._say(key, uid, Outcome(NORMAL, IMPORTED, text, attempt, shared))

    def refused(self, key: Key, uid: str, plan: TagPlan) -> None:
        """A failure that must not be walked around."""
        self._count("refused", plan)
        log.info("not importing through mirrors", tag=plan.tag, source=plan.source, why=plan.why)
        text = f"{plan.source} is not imported through a mirror: {plan.why}"
        self._say(key, uid, Outcome(WARNING, REFUSED, text, _attempt(plan, AttemptResult.REFUSED, plan.why)))

    def not_recorded(self, key: Key, uid: str, result: TagResult, error: ClientError) -> None:
        """The API server refused the status write: an admission limit, say."""
        self._count("refused", result.plan)
        log.warning("status write refused", tag=result.tag, error=str(error))
        why = f"the API server refused to record the import: {error}"
        served = CandidateAnswer(result.through, result.mirror_set)
        attempt = _attempt(result.plan, AttemptResult.NOT_RECORDED, why, tag=result.tag, answers=(served,))
        self._say(key, uid, Outcome(WARNING, REFUSED, why, attempt))

    def _failed(self, key: Key, uid: str, result: FailedImport) -> None:
        """No candidate serves the image; the same reasons again only raise the Event's count."""
        plan, tried = result.plan, result.tried
        self._count("failed", plan)
        reasons = "; ".join(f"{candidate.reference}: {failure.kind}: {failure.message}" for candidate, failure in tried)
        text = f"{plan.source} ({_why(plan)}) is in no mirror: {reasons}"
        self._say(key, uid, Outcome(WARNING, FAILED, text, _attempt(plan, AttemptResult.FAILED, answers=_failed_answers(tried))))

    def _unmade(self, key: Key, uid: str, result: UnmadeImport) -> None:
        self._count("error", result.plan)
        if result.refusal:
            text = f"the API server refused the import: {result.refusal}"
            self._say(key, uid, Outcome(WARNING, FAILED, text, _attempt(result.plan, AttemptResult.ERROR, text)))

    def _held(self, key: Key, uid: str, held: HeldImport) -> None:
        """A mirror has another image than the source had, and the source has not failed for long."""
        plan, candidate = held.plan, held.candidate
        self._count("held", plan)
        log.info("keeping the source's image: the source has not failed for long enough", tag=plan.tag, digest=held.digest)
        # Said the same way after each attempt, so that the Event's count rises.
        until = rfc3339(math.ceil(held.until))
        # The digest comes last: where there is little room, it is what is cut.
        why = (
            f"serves another image than the source did; from {until} on, if the source still fails, the tag gets it: {held.digest}"
        )
        answers = (*_failed_answers(held.tried), CandidateAnswer(candidate.reference, candidate.mirror_set))
        attempt = _attempt(plan, AttemptResult.HELD, why, answers=answers)
        self._say(key, uid, Outcome(NORMAL, HELD, f"{candidate.reference} {why}", attempt))

    def _observed(self, observed: ObservedImport) -> None:
        """What would be recorded if this were not an observer."""
        for result in observed.results:
            self._count("observed", observed.plan)
            log.info("would record", tag=result.tag, reference=result.reference, through=result.through)

    def _count(self, result: str, plan: TagPlan) -> None:
        self._metrics.imports.labels(result, plan.failure.kind if plan.failure else "").inc()

    def _say(self, key: Key, uid: str, outcome: Outcome) -> None:
        if self._active():
            self._events.add(key, uid, outcome)


def _why(plan: TagPlan) -> str:
    return plan.failure.kind if plan.failure else "failed"


def _failed_answers(tried: FailedCandidates) -> tuple[CandidateAnswer, ...]:
    return tuple(CandidateAnswer(c.reference, c.mirror_set, failure.kind, failure.message) for c, failure in tried)


def _attempt(
    plan: TagPlan, result: AttemptResult, message: str = "", *, tag: str = "", answers: tuple[CandidateAnswer, ...] = ()
) -> Attempt:
    """The outcome for programs."""
    return Attempt(
        tag or plan.tag, result, plan.source, plan.failure.kind if plan.failure else "", message, answers, plan.retry_token
    )
