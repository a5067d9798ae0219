"""One stream's way from a failure to a recorded import.

A look at a stream never waits for a registry: it starts what is due and returns, and results bring the stream back. So a slow
mirror holds up no worker, and a stream whose slowest tag takes long is recorded in parts.
"""

import math
import threading
import time
from collections.abc import Callable

import structlog
from mirrorstream.imagestreams import ImageStream
from mirrorstream.kube.client import ApiError, Client, ClientError
from mirrorstream.kube.errors import asked_wait
from mirrorstream.kube.events import EventRecorder
from mirrorstream.kube.informer import Change, Informer
from mirrorstream.kube.limiter import ahead_of_others
from mirrorstream.policy import MirrorPolicy
from mirrorstream.settings import Settings

from mirrorstream_controller.changes import count_failing, is_asked, is_interesting
from mirrorstream_controller.failing import FailingTags, State
from mirrorstream_controller.memory import OBSERVED, StreamMemory
from mirrorstream_controller.metrics import ControllerMetrics
from mirrorstream_controller.plan import Action, TagPlan, plan_stream
from mirrorstream_controller.pool import ImportPool
from mirrorstream_controller.recorder import Held, Outcome, Recorder, Served, TagResult
from mirrorstream_controller.reports import Reports
from mirrorstream_controller.tries import Interest, Tries, plan_settings
from mirrorstream_controller.workqueue import Key, WorkQueue

log = structlog.get_logger(__name__)

PART_SECONDS = 2.0
"""A stream's first results wait at most this long for the others."""
SPREAD_PER_SECOND = 50
"""After a change of the rules, failed streams are looked at again at this rate."""


class Reconciler:
    """Looks at streams, starts imports and records their results."""

    def __init__(
        self,
        client: Client,
        queue: WorkQueue,
        pool: ImportPool,
        events: EventRecorder,
        metrics: ControllerMetrics,
        settings: Settings,
        *,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._recorder = Recorder(client)
        self._queue, self._pool, self._metrics = queue, pool, metrics
        self._settings = settings
        self._reports = Reports(events, metrics, lambda: self._settings.mode == "active")
        self._tries = Tries(
            client,
            pool,
            self._reports,
            metrics,
            lambda: self._settings,
            interest=self._interest,
            on_served=self._served,
            on_failed=self._back_off,
            now=now,
        )
        self._now, self._clock = now, clock
        self._lock = threading.Lock()
        self._streams: dict[Key, StreamMemory] = {}
        self._asked: set[Key] = set()
        """Streams that a user has asked something of since they were last looked at.

        A set's own steps are atomic. The lock is not for it: workers plan while they hold that, and the watch would fall behind.
        """
        self._policy: MirrorPolicy | None = None
        self._passes = 0
        self._started = now()
        self._spread_until = 0.0
        """Until when streams are to be looked at because of changed rules, on the monotonic clock."""
        self.failing = FailingTags()
        """What the metrics show of the present state; only what was looked at is in it."""
        self.informer: Informer[ImageStream]

    # What brings a stream here.

    def on_stream(self, change: Change[ImageStream]) -> None:
        """Queue a stream that changed, if there may be something to do about it."""
        if not self._settings.controller.namespaces.cover(change.key[0]):
            # It is only counted, so a failure that follows another is nothing new.
            if count_failing(change.old) != count_failing(change.new):
                self._queue.add(change.key)
            return
        # What was interesting may be in a worker's hands just now, and counted as it was.
        if change.key in self._streams or is_interesting(change.new) or is_interesting(change.old):
            if asked := change.old is not None and change.new is not None and is_asked(change.old, change.new):
                self._asked.add(change.key)
            self._queue.add(change.key, urgent=asked)

    def on_policy(self, policy: MirrorPolicy) -> None:
        """Take over new mirror rules and look again at every stream that has something failed."""
        first, self._policy = self._policy is None, policy
        self._metrics.keep_mirrors(policy.mirror_hosts())
        self._metrics.policy_warnings.set(len(policy.warnings))
        self._requeue(spread=not first)

    def configure(self, settings: Settings) -> None:
        """Take over a changed configuration."""
        before, self._settings = self._settings, settings
        self._queue.initial = settings.controller.retry.initialSeconds
        self._queue.maximum = settings.controller.retry.maximumSeconds
        self._pool.resize(settings.controller.concurrentImports)
        with self._lock:
            for memory in self._streams.values():
                memory.forget_attempts()
        self._requeue(spread=True, covered_before=before.controller.namespaces.cover)

    def _requeue(self, *, spread: bool, covered_before: Callable[[str], bool] = lambda namespace: False) -> None:
        """Have every stream looked at that rules or configuration may mean something to.

        Of those that are left out only the ones that have just been, and these at once: to forget a stream takes no request. Rules
        that change again meanwhile make it no faster: what waits for its turn will see the latest, the others come after it.
        """
        covers, now = self._settings.controller.namespaces.cover, self._clock()
        turn = max(now, self._spread_until)
        for key in self.informer.all_keys():
            if covers(key[0]):
                if is_interesting(self.informer.get(key)) and self._queue.add_after(key, turn - now if spread else 0):
                    turn += 1 / SPREAD_PER_SECOND
            elif covered_before(key[0]) and (key in self._streams or is_interesting(self.informer.get(key))):
                self._queue.add(key)
        if spread:
            self._spread_until = turn

    # A look at one stream.

    def reconcile(self, key: Key) -> None:
        """Record what has been imported for a stream and start what is due. Raises nothing; failures are tried again later."""
        self._passes += 1
        with structlog.contextvars.bound_contextvars(namespace=key[0], stream=key[1], reconcile_id=f"{self._passes:x}"):
            # Taken before the stream is read: what was asked for later is for the next look.
            if asked := key in self._asked:
                self._asked.discard(key)
            try:
                self._reconcile(key, asked=asked)
            except ClientError as error:
                log.warning("the API server could not be asked, trying again", error=str(error))
                self._again_later(key, asked=asked, wait=asked_wait(error))
            except Exception:
                log.exception("a stream could not be dealt with, trying again")
                self._again_later(key, asked=asked)
            else:
                self._queue.forget(key)

    def _again_later(self, key: Key, *, asked: bool, wait: float = 0.0) -> None:
        if asked:
            self._asked.add(key)
        self._queue.add_rate_limited(key, wait=wait)

    def _reconcile(self, key: Key, *, asked: bool) -> None:
        stream, policy, settings = self.informer.get(key), self._policy, self._settings
        if stream is None or not settings.controller.namespaces.cover(key[0]):
            with self._lock:
                self._streams.pop(key, None)
            self._queue.cancel(key)
            self.failing.put(key, [State.EXCLUDED] * count_failing(stream))
            return
        if policy is None:
            return
        now = self._now()
        with self._lock:
            memory = self._remembered(key, stream)
            past = memory.look(stream, now)
            plans = plan_stream(stream, policy, plan_settings(settings), past, now)
            # What was imported under other rules, or for another tag, must not be recorded under these.
            memory.keep_wanted(plans, active=settings.mode == "active")
        hurried, results = self._take_results(key)
        if results:
            with ahead_of_others(hurried):
                self._record(key, results)
        now, monotonic = self._now(), self._clock()
        with self._lock:
            due = [plan for plan in plans if memory.is_due(plan, now=now, monotonic=monotonic)]
            started = memory.start(due, asked=asked)
            waits = self._waits(memory, plans, now=now, monotonic=monotonic)
            self.failing.look(key, stream, plans, memory, observing=settings.mode == "observe", now=now)
            if memory.idle:
                del self._streams[key]
        for plan in due:
            log.info("importing through mirrors", tag=plan.tag, source=plan.source, why=plan.why, candidates=len(plan.candidates))
            self._tries.start(key, stream.metadata.uid, plan, policy, urgent=asked)
        for tag in started:
            self._tries.hurry(key, tag)
        for plan in plans:
            if plan.action is Action.REFUSE:
                self._refuse(key, stream, memory, plan)
        if waits:
            self._queue.add_after(key, min(waits))

    def _remembered(self, key: Key, stream: ImageStream) -> StreamMemory:
        """What is remembered of a stream, but for what its retry annotation says to forget; the lock is held."""
        memory = self._streams.get(key)
        if memory is None or memory.uid != stream.metadata.uid:
            memory = self._streams[key] = StreamMemory(stream.metadata.uid, retry=stream.annotations.retry)
        if memory.retry != stream.annotations.retry:
            memory.retry = stream.annotations.retry
            memory.forget_attempts()
        return memory

    def _waits(self, memory: StreamMemory, plans: tuple[TagPlan, ...], *, now: float, monotonic: float) -> list[float]:
        """In how many seconds the stream must be looked at again though nothing changed."""
        waits = [plan.again_at - now for plan in plans if plan.action is Action.WAIT and plan.again_at is not None]
        for plan in plans:
            if plan.action is Action.IMPORT and plan.tag not in memory.running:
                held = memory.held_until.get(plan.tag)
                waits.append(held - now if held is not None else memory.next_attempt - monotonic)
        # A look that comes a moment early would find nothing due and not come back.
        return [max(wait, 0.0) + 0.01 for wait in waits if wait < math.inf]

    def _refuse(self, key: Key, stream: ImageStream, memory: StreamMemory, plan: TagPlan) -> None:
        """Say once why a tag is left failed."""
        with self._lock:
            if memory.tried.get(plan.tag) == (*plan.fingerprint, plan.why):
                return
            memory.tried[plan.tag] = (*plan.fingerprint, plan.why)
        self._reports.refused(key, stream.metadata.uid, plan)

    # What came of an import, told by one of the pool's threads.

    def _interest(self, key: Key, plan: TagPlan) -> Interest:
        """Whether an import whose turn has come is still worth making."""
        with self._lock:
            memory = self._streams.get(key)
            if memory is None or memory.running.get(plan.tag) != plan.fingerprint:
                return Interest.NONE
            return Interest.ASKED if plan.tag in memory.asked else Interest.WANTED

    def _served(self, key: Key, plan: TagPlan, served: Served) -> bool:
        """Keep what a mirror served until the stream is looked at; whether it is still wanted."""
        with self._lock:
            memory = self._streams.get(key)
            if memory is None or memory.running.get(plan.tag) != plan.fingerprint:
                return False  # the stream or the tag is another one by now
            del memory.running[plan.tag]
            memory.tried[plan.tag] = plan.fingerprint
            if not isinstance(served, tuple) and plan.asked != memory.retry:
                # Whoever asked meanwhile wants to know what a mirror has now.
                del memory.tried[plan.tag]
            elif isinstance(served, Held):
                memory.held_until[plan.tag] = served.until
            elif isinstance(served, tuple):
                memory.first_result = memory.first_result if memory.results else self._clock()
                memory.results.extend(served)
            elif self._settings.mode == "observe":
                memory.held_until[plan.tag] = OBSERVED
            else:
                # Nobody observes any more, and for this there are no Images.
                del memory.tried[plan.tag]
            asked = plan.tag in memory.asked
            memory.asked.discard(plan.tag)
            memory.hurried = memory.hurried or (asked and bool(memory.results))
            once_more = asked and plan.tag not in memory.tried
            wait = 0.0 if not memory.running else PART_SECONDS if memory.results else None
        if once_more:
            self._asked.add(key)
        if asked:
            self._queue.add(key, urgent=True)
        elif wait is not None:
            self._queue.add_after(key, wait)
        return True

    def _back_off(self, key: Key, plan: TagPlan, wait: float = 0.0) -> None:
        """Let the tag wait for the stream's next attempt, at least `wait` seconds: what the API server asked for."""
        with self._lock:
            memory = self._streams.get(key)
            if memory is None or memory.running.get(plan.tag) != plan.fingerprint:
                return
            del memory.running[plan.tag]
            memory.held_until.pop(plan.tag, None)  # what a mirror had before, it does not have now
            if plan.asked == memory.retry:
                memory.tried[plan.tag] = plan.fingerprint
            else:
                # Whoever asked meanwhile did not ask for this attempt: there is one more, at once.
                memory.tried.pop(plan.tag, None)
                self._asked.add(key)
            memory.asked.discard(plan.tag)
            if plan.asked == memory.retry and self._clock() >= memory.next_attempt:
                # Once for all tags of a stream that fail together.
                memory.failures += 1
                memory.next_attempt = self._clock() + self._queue.backoff(memory.failures)
            memory.next_attempt = max(memory.next_attempt, self._clock() + wait)
        self._queue.add(key, urgent=key in self._asked)

    # Recording.

    def _take_results(self, key: Key) -> tuple[bool, list[TagResult]]:
        """The results to record now: all, once nothing runs any more, a user waits for one, or the first has waited long enough.

        With them, whether a user waits.
        """
        with self._lock:
            memory = self._streams.get(key)
            if memory is None or not memory.results:
                return False, []
            hurried = memory.hurried
            if memory.running and not hurried and self._clock() < memory.first_result + PART_SECONDS:
                return False, []
            results, memory.results, memory.hurried = memory.results, [], False
            return hurried, results

    def _record(self, key: Key, results: list[TagResult]) -> None:
        with self._lock:
            uid = self._streams[key].uid
        try:
            outcome, applied = self._recorder.record(*key, uid, results)
        except ClientError as error:
            self._again(key, wait=asked_wait(error))
            if not isinstance(error, ApiError) or error.status == 429 or error.status >= 500:
                self._metrics.status_writes.labels("error").inc()
                raise
            self._metrics.status_writes.labels("refused").inc()
            self._reports.not_recorded(key, uid, results, error)
            return
        self._metrics.status_writes.labels(outcome).inc()
        if outcome is Outcome.CONFLICT:
            log.info("others keep writing the stream, planning again")
            self._again(key)
            return
        for skipped, why in applied.skipped:
            log.info("not recorded", tag=skipped.tag, why=why)
        if applied.skipped:
            self._again(key)
        for result in applied.recorded:
            self._recorded(key, uid, result)

    def _recorded(self, key: Key, uid: str, result: TagResult) -> None:
        with self._lock:
            memory = self._streams.get(key)
            if memory is not None:
                now = self._now()
                began = max(memory.failed_since(result.plan) or now, self._started)
                self._metrics.heal_seconds.observe(max(0.0, now - began))  # clocks differ
                memory.healed(result, now)
                memory.failures = 0
                # Until the watch brings our own write, the stream we know still looks failed.
                memory.tried[result.plan.tag] = result.plan.fingerprint
                memory.next_attempt = max(memory.next_attempt, self._clock() + self._queue.backoff(1))
        self._reports.imported(key, uid, result)

    def _again(self, key: Key, *, wait: float = 0.0) -> None:
        """Have what was not recorded planned again after the back-off, unless the stream's change is seen before."""
        with self._lock:
            memory = self._streams.get(key)
            if memory is not None:
                memory.failures += 1
                memory.next_attempt = self._clock() + wait + self._queue.backoff(memory.failures)
