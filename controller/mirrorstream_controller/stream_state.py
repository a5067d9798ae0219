"""What the controller knows of one stream: its history, and what has become of the import of each tag.

The reconciler asks what to do next and does it; the import worker's results come in by `finish`. Each method is one atomic step,
so both may call at any time. A restart loses all of it without harm.

Times are seconds since the epoch (`now`), those of attempts seconds on a monotonic clock (`at`).
"""

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from mirrorstream.imagestream.model import WHOLE_REPOSITORY, ImageStream, listed_tags

from mirrorstream_controller.history import History, TagHistory
from mirrorstream_controller.plan import Action, Fingerprint, TagPlan
from mirrorstream_controller.results import FailedImport, FetchedImport, HeldImport, ImportResult, TagResult

OBSERVED = math.inf
"""Until when a tag is held that a mirror serves to an observer."""
PART_SECONDS = 2.0
"""A stream's first results wait at most this long for the others."""
WAKE_LATE_SECONDS = 0.01
"""A reconcile that comes a moment early would find nothing due and not come back."""


class Phase(StrEnum):
    """What has become of a tag's import."""

    IDLE = "idle"
    RUNNING = "running"
    FETCHED = "fetched"
    HELD = "held"
    BACKING_OFF = "backing off"


NEXT_PHASES: Mapping[Phase, frozenset[Phase]] = {
    Phase.IDLE: frozenset({Phase.IDLE, Phase.RUNNING, Phase.BACKING_OFF}),
    Phase.RUNNING: frozenset({Phase.FETCHED, Phase.HELD, Phase.BACKING_OFF, Phase.IDLE}),
    Phase.FETCHED: frozenset({Phase.BACKING_OFF, Phase.IDLE}),
    Phase.HELD: frozenset({Phase.RUNNING, Phase.IDLE}),
    Phase.BACKING_OFF: frozenset({Phase.RUNNING, Phase.IDLE}),
}
"""Every transition that `TagState` describes; all others are forbidden."""


class Demand(StrEnum):
    """Whether an import whose turn has come is still wanted."""

    NONE = "none"
    WANTED = "wanted"
    PRIORITY = "priority"
    """A user waits for it."""


@dataclass(frozen=True, slots=True)
class NextSteps:
    """What the reconciler has to do about a stream."""

    start: tuple[TagPlan, ...]
    """The imports to start; they count as running."""
    refused: tuple[TagPlan, ...]
    """The refusals that have not been reported yet."""
    wake_after: float | None
    """In how many seconds the stream must be reconciled though nothing changed."""


@dataclass(frozen=True, slots=True)
class Requeue:
    """When the stream must be reconciled after the result of an import."""

    after: float | None
    """In seconds; None: another result of the stream will do."""
    priority: bool = False
    repeat: bool = False
    """Whether the import must run once more, with priority: the user asked while it ran."""


@dataclass(slots=True)
class TagState:
    """One tag, or, as WHOLE_REPOSITORY, the repository of the stream.

    | from        | to          | when                                                                                        |
    |-------------|-------------|---------------------------------------------------------------------------------------------|
    | idle        | running     | an import is planned                                                                        |
    | idle        | idle        | the plan refuses the import                                                                 |
    | idle        | backing off | its result was recorded while the configuration changed                                     |
    | running     | fetched     | a mirror served the image                                                                   |
    | running     | held        | a mirror served an image that must not be recorded yet, or the controller only observes     |
    | running     | backing off | no mirror served the image, or the import could not be made                                 |
    | running     | idle        | the plan changed; or a user asked for another attempt, and this one brought nothing         |
    | fetched     | backing off | the result is handed out to be recorded; until the watch brings that, the tag looks failed  |
    | fetched     | idle        | the plan changed, or the controller only observes                                           |
    | held        | running     | its time has come, or the plan changed                                                      |
    | held        | idle        | a user asked, the configuration or the source changed, or the plan refuses the import       |
    | backing off | running     | the stream's back-off is over, or the plan changed                                          |
    | backing off | idle        | a user asked, the configuration changed, or the plan refuses the import                     |
    """

    history: TagHistory = field(default_factory=TagHistory)
    phase: Phase = Phase.IDLE
    fingerprint: Fingerprint = ()
    """The plan that the phase is about; of an idle tag, the refusal that was reported."""
    held_until: float | None = None
    """When a held image may be recorded, or OBSERVED. It stays while the tag is imported again, for what the metrics show."""
    results: tuple[TagResult, ...] = ()
    fetched_at: float = 0.0
    priority: bool = False
    """Whether a user waits for the import that runs, or for its result."""

    def enter(self, phase: Phase, fingerprint: Fingerprint) -> None:
        """Go to `phase`. Raises RuntimeError when that is forbidden."""
        if phase not in NEXT_PHASES[self.phase]:
            raise RuntimeError(f"forbidden transition of a tag: from {self.phase} to {phase}")
        self.phase, self.fingerprint = phase, fingerprint
        self.results = ()
        if phase not in (Phase.RUNNING, Phase.FETCHED):
            self.held_until, self.priority = None, False

    @property
    def is_active(self) -> bool:
        """Whether an import runs, or its result waits to be recorded."""
        return self.phase in (Phase.RUNNING, Phase.FETCHED)

    @property
    def is_needed(self) -> bool:
        """Whether a later reconcile depends on what is known."""
        return self.is_active or self.history.pending is not None or self.history.failing is not None

    def reset(self) -> None:
        """Let the next attempt be made at once. An import that runs, or its result, is not lost."""
        self.held_until = None
        if not self.is_active:
            self.enter(Phase.IDLE, ())

    def drop(self) -> tuple[TagResult, ...]:
        """Drop an import that is not wanted any more. Returns its results."""
        results = self.results
        if self.is_active:
            self.enter(Phase.IDLE, ())
        return results

    def is_due(self, plan: TagPlan, *, now: float, next_attempt_due: bool) -> bool:
        """Whether the import of `plan` must be started now."""
        if plan.action is not Action.IMPORT or self.is_active:
            return False
        if self.phase is Phase.IDLE or self.fingerprint != plan.fingerprint:
            return True
        return now >= self.held_until if self.held_until is not None else next_attempt_due


class StreamState:
    """One stream; safe to use from many threads."""

    def __init__(self, uid: str, retry_token: str, backoff: Callable[[int], float]) -> None:
        """`backoff` answers the wait, in seconds, after a number of failures in a row."""
        self.uid = uid
        self._retry_token = retry_token
        self._backoff = backoff
        self._lock = threading.Lock()
        self._tags: dict[str, TagState] = {}
        self._failures = 0
        self._next_attempt = 0.0

    # What the reconciler saw, and what it has to do.

    def observe(self, stream: ImageStream, now: float, unsettled: Mapping[str, str] | None = None) -> History:
        """Take in the stream as it is now; what the plan needs to know of the past, with the `unsettled` tags."""
        with self._lock:
            if self._retry_token != stream.annotations.retry:
                self._retry_token = stream.annotations.retry
                self._reset()
            before, self._tags = self._tags, {}
            statuses = stream.status_by_tag()
            for tag in stream.spec_tags:
                if tag.importable:
                    state = self._tags[tag.name] = before.get(tag.name) or TagState()
                    if state.history.observe(tag, statuses.get(tag.name), now):
                        state.reset()
            if stream.spec.docker_image_repository and not listed_tags(stream):
                state = self._tags[WHOLE_REPOSITORY] = before.get(WHOLE_REPOSITORY) or TagState()
                state.history.observe_repository(stream, now)
            histories = {name: tag.history for name, tag in self._tags.items()}
        return History(
            {name: history.pending[1] for name, history in histories.items() if history.pending},
            {name: history.failing[0] for name, history in histories.items() if history.failing},
            unsettled or {},
        )

    def drop_obsolete(self, plans: Iterable[TagPlan], *, active: bool) -> list[TagResult]:
        """Drop imports that no plan asks for any more, and, unless `active`, their results: the rules or the tag changed.

        Returns the results that were dropped.
        """
        wanted = {plan.tag: plan for plan in plans}
        dropped: list[TagResult] = []
        with self._lock:
            for name, tag in self._tags.items():
                plan = wanted.get(name)
                is_wanted = plan is not None and plan.action is Action.IMPORT and plan.fingerprint == tag.fingerprint
                if not is_wanted or (tag.phase is Phase.FETCHED and not active):
                    dropped += tag.drop()
                if plan is None:
                    tag.reset()
        return dropped

    def raise_priority(self) -> list[str]:
        """A user waits for all that runs, and for its results; the tags whose imports run."""
        with self._lock:
            for tag in self._tags.values():
                tag.priority = tag.is_active
            return [name for name, _ in self._in(Phase.RUNNING)]

    def take_results(self, at: float) -> tuple[list[TagResult], bool]:
        """The results to record now, and whether a user waits for one.

        All of them: once nothing runs any more, a user waits, or the first has waited long enough.
        """
        with self._lock:
            fetched = [tag for _, tag in self._in(Phase.FETCHED)]
            priority = any(tag.priority for tag in fetched)
            if not fetched or (self._is_running() and not priority and at < self._part_due()):
                return [], False
            results = [result for tag in fetched for result in tag.results]
            for tag in fetched:
                tag.enter(Phase.BACKING_OFF, tag.fingerprint)
            return results, priority

    def next_steps(self, plans: Iterable[TagPlan], *, now: float, at: float, priority: bool) -> NextSteps:
        """What to do by `plans`, of which those that are obsolete have been dropped. `priority`: a user waits for it."""
        plans, start, refused = list(plans), [], []
        with self._lock:
            for plan in plans:
                tag = self._tags[plan.tag]
                if plan.action is Action.REFUSE:
                    if tag.fingerprint != (*plan.fingerprint, plan.why):
                        tag.enter(Phase.IDLE, (*plan.fingerprint, plan.why))
                        refused.append(plan)
                elif tag.is_due(plan, now=now, next_attempt_due=at >= self._next_attempt):
                    tag.enter(Phase.RUNNING, plan.fingerprint)
                    tag.priority = priority
                    start.append(plan)
            wake = min((wait for plan in plans if (wait := self._wait(plan, now, at)) is not None), default=math.inf)
        return NextSteps(tuple(start), tuple(refused), max(wake, 0.0) + WAKE_LATE_SECONDS if wake < math.inf else None)

    def _wait(self, plan: TagPlan, now: float, at: float) -> float | None:
        """In how many seconds there is something to do by `plan`; None: when something changes."""
        if plan.action is Action.WAIT:
            return None if plan.again_at is None else plan.again_at - now
        tag = self._tags[plan.tag]
        if plan.action is not Action.IMPORT or tag.phase is Phase.RUNNING:
            return None
        if tag.phase is Phase.FETCHED:
            return self._part_due() - at
        return tag.held_until - now if tag.held_until is not None else self._next_attempt - at

    # What came of an import.

    def demand(self, plan: TagPlan) -> Demand:
        """Whether the import of `plan` is still wanted."""
        with self._lock:
            tag = self._running(plan)
            return Demand.NONE if tag is None else Demand.PRIORITY if tag.priority else Demand.WANTED

    def finish(self, result: ImportResult, *, observing: bool, at: float) -> Requeue | None:
        """Take in what came of an import; None if it is not wanted any more. `observing`: nothing is recorded."""
        plan, failed = result.plan, isinstance(result, FailedImport)
        with self._lock:
            tag = self._running(plan)
            if tag is None:
                return None
            began_before_retry = plan.retry_token != self._retry_token
            priority = began_before_retry if failed else tag.priority
            if isinstance(result, FetchedImport):
                tag.enter(Phase.FETCHED, plan.fingerprint)
                tag.results, tag.fetched_at = result.results, at
            elif began_before_retry:
                # The user wants to know what a mirror has now.
                tag.drop()
            elif isinstance(result, FailedImport):
                tag.enter(Phase.BACKING_OFF, plan.fingerprint)
                if at >= self._next_attempt:
                    # Once for all tags of a stream that fail together.
                    self._back_off(at)
            elif isinstance(result, HeldImport) or observing:
                tag.enter(Phase.HELD, plan.fingerprint)
                tag.held_until = result.until if isinstance(result, HeldImport) else OBSERVED
            else:
                # The controller does not observe any more, and of what it observed there are no Images.
                tag.drop()
            if isinstance(result, FailedImport):
                self._next_attempt = max(self._next_attempt, at + result.retry_after)
            if failed or priority or not self._is_running():
                after: float | None = 0.0
            else:
                after = PART_SECONDS if any(self._in(Phase.FETCHED)) else None
            return Requeue(after, priority, repeat=priority and tag.phase is Phase.IDLE)

    def recorded(self, result: TagResult, *, now: float, at: float) -> None:
        """The result is recorded: the tag is well because of us."""
        since = result.plan.failing_since
        with self._lock:
            history = self._tags.setdefault(result.tag, TagState()).history
            history.record(since if since is not None else now, result.plan.generation, now)
            self._failures = 0
            # Until the watch brings our own write, the stream we know still looks failed.
            planned = self._tags.get(result.plan.tag)
            if planned and planned.phase is Phase.IDLE:
                planned.enter(Phase.BACKING_OFF, result.plan.fingerprint)
            self._next_attempt = max(self._next_attempt, at + self._backoff(1))

    def back_off(self, at: float, wait: float = 0.0) -> None:
        """Have what was not recorded planned again after the back-off and `wait` seconds, unless the stream changes before."""
        with self._lock:
            self._back_off(at + wait)

    def reset(self) -> None:
        """Let everything be tried again at once."""
        with self._lock:
            self._reset()

    # What is known.

    def failed_since(self, plan: TagPlan) -> float | None:
        """Since when the tag of `plan` fails, as far back as that is known."""
        with self._lock:
            tag = self._tags.get(plan.tag)
            known = (plan.failed_at, tag.history.failed_since if tag else None)
        return min((since for since in known if since is not None), default=None)

    def held_until(self, tag: str) -> float | None:
        """When what a mirror serves may be recorded, or OBSERVED; None if the tag is not held."""
        with self._lock:
            return self._tags[tag].held_until if tag in self._tags else None

    @property
    def is_active(self) -> bool:
        """Whether an import runs, or a result waits to be recorded."""
        with self._lock:
            return any(tag.is_active for tag in self._tags.values())

    @property
    def is_empty(self) -> bool:
        """Whether nothing needs to be remembered."""
        with self._lock:
            return not any(tag.is_needed for tag in self._tags.values())

    # With the lock held.

    def _in(self, phase: Phase) -> Iterator[tuple[str, TagState]]:
        return ((name, tag) for name, tag in self._tags.items() if tag.phase is phase)

    def _is_running(self) -> bool:
        return any(self._in(Phase.RUNNING))

    def _part_due(self) -> float:
        return PART_SECONDS + min(tag.fetched_at for _, tag in self._in(Phase.FETCHED))

    def _running(self, plan: TagPlan) -> TagState | None:
        """The tag of `plan` if the import that runs is that of `plan`."""
        tag = self._tags.get(plan.tag)
        return tag if tag and tag.phase is Phase.RUNNING and tag.fingerprint == plan.fingerprint else None

    def _back_off(self, begin: float) -> None:
        self._failures += 1
        self._next_attempt = begin + self._backoff(self._failures)

    def _reset(self) -> None:
        for tag in self._tags.values():
            tag.reset()
        self._failures, self._next_attempt = 0, 0.0
