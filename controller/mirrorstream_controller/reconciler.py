"""One stream's way from a failure to a recorded import.

Reconciling never blocks on a registry. It starts due imports and returns; each result requeues the stream. So a slow mirror holds
up no worker, and a stream whose slowest tag takes long is recorded in parts. What is due, and when the stream must be reconciled
again, is decided by its `StreamState`.
"""

import time
from collections.abc import Callable, Sequence
from uuid import uuid4

import structlog
from mirrorstream.diagnose.serving import serving_warnings
from mirrorstream.imagestream.model import ImageStream
from mirrorstream.kube.client import ApiError, Client, ClientError
from mirrorstream.kube.errors import retry_after_seconds
from mirrorstream.kube.events import EventRecorder
from mirrorstream.kube.informer import Change
from mirrorstream.kube.objects import Key
from mirrorstream.kube.ratelimit import prioritized
from mirrorstream.kube.workqueue import WorkQueue
from mirrorstream.rules.policy import MirrorPolicy
from mirrorstream.runtime.settings import Settings

from mirrorstream_controller.failing_tags import FailingState, FailingTags
from mirrorstream_controller.import_groups import ImportJob
from mirrorstream_controller.import_queue import ImportQueue
from mirrorstream_controller.import_worker import ImportWorker
from mirrorstream_controller.metrics import ControllerMetrics
from mirrorstream_controller.plan import Action, PlanSettings, TagPlan, plan_stream
from mirrorstream_controller.predicates import count_failing, is_user_request, needs_reconcile
from mirrorstream_controller.reporter import Reporter
from mirrorstream_controller.results import ImportResult, TagResult
from mirrorstream_controller.status_writer import StatusWriter, WriteOutcome
from mirrorstream_controller.stream_events import StreamEvents
from mirrorstream_controller.stream_state import Demand, StreamState
from mirrorstream_controller.streams import Streams
from mirrorstream_controller.unsettled import UnsettledItems

log = structlog.get_logger(__name__)

SPREAD_PER_SECOND = 50
"""After a change of the rules, failed streams are reconciled at this rate."""


class Reconciler:
    """Reconciles streams, starts imports and records their results."""

    def __init__(
        self,
        client: Client,
        queue: WorkQueue,
        imports: ImportQueue,
        events: EventRecorder,
        metrics: ControllerMetrics,
        settings: Settings,
        *,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] | None = None,
    ) -> None:
        """`now` and `clock` are what decisions and waits go by; `wall` is the time of day, by default `now`."""
        self._writer = StatusWriter(client)
        self._queue, self._imports, self._metrics = queue, imports, metrics
        self._settings = settings
        self._events = StreamEvents(events, clock)
        self._reporter = Reporter(self._events, metrics, lambda: self._settings.mode == "active")
        self._worker = ImportWorker(
            client,
            imports,
            metrics,
            lambda: self._settings,
            demand=self._demand,
            on_done=self._on_done,
            now=now,
            wall=wall or now,
        )
        self._now, self._clock = now, clock
        self._states: dict[Key, StreamState] = {}
        """Only the worker that reconciles a stream adds or removes its state."""
        self._priority: set[Key] = set()
        """Streams that a user has asked something of since they were last reconciled."""
        self._policy: MirrorPolicy | None = None
        self._started = now()
        self._spread_until = 0.0
        """Until when streams are to be reconciled because of changed rules, on the monotonic clock."""
        self._unsettled = UnsettledItems()
        self.failing = FailingTags()
        """What the metrics show of the present state; only streams that were reconciled are in it."""
        self.streams: Streams

    # What brings a stream here.

    def on_stream(self, change: Change[ImageStream]) -> None:
        """Queue a stream that changed, if there may be something to do about it.

        To be called for every change, by one thread: it also keeps which items are of a source that their tag had before.
        """
        self._unsettled.update(change)
        if change.new is None and change.key not in self._states and change.key not in self.failing:
            # Nothing is known of it. A replica that stands by has no worker that would take it from the queue.
            self._priority.discard(change.key)
            if self._queue.discard(change.key):
                return
        if not self._settings.controller.namespaces.cover(change.key[0]):
            # It is only counted, so a failure that follows another is nothing new.
            if count_failing(change.old) != count_failing(change.new):
                self._queue.add(change.key)
            return
        # A worker may be counting the stream just now as it was before.
        if change.key in self._states or needs_reconcile(change.new) or needs_reconcile(change.old):
            if priority := change.old is not None and change.new is not None and is_user_request(change.old, change.new):
                self._priority.add(change.key)
            self._queue.add(change.key, priority=priority)

    def on_policy(self, policy: MirrorPolicy) -> None:
        """Take over new mirror rules and reconcile every stream that has something failed."""
        first, self._policy = self._policy is None, policy
        self._metrics.keep_mirrors(policy.mirror_hosts())
        self._metrics.policy_warnings.set(len(policy.warnings))
        self._requeue(spread=not first)

    def configure(self, settings: Settings) -> None:
        """Take over a changed configuration."""
        before, self._settings = self._settings, settings
        self._queue.initial = settings.controller.retry.initialSeconds
        self._queue.maximum = settings.controller.retry.maximumSeconds
        self._imports.resize(settings.controller.concurrentImports)
        for state in list(self._states.values()):
            state.reset()
        self._requeue(spread=True, covered_before=before.controller.namespaces.cover)

    def _requeue(self, *, spread: bool, covered_before: Callable[[str], bool] = lambda namespace: False) -> None:
        """Requeue every stream that the rules or the configuration may concern.

        Of those that the configuration leaves out only the ones that it covered before, and these at once: to forget a stream takes
        no request. Rules that change again in between make it no faster: a stream whose turn has yet to come will see the latest.
        """
        covers, now = self._settings.controller.namespaces.cover, self._clock()
        turn = max(now, self._spread_until)
        for key in self.streams.all_keys():
            if covers(key[0]):
                if needs_reconcile(self.streams.get(key)) and self._queue.add_after(key, turn - now if spread else 0):
                    turn += 1 / SPREAD_PER_SECOND
            elif covered_before(key[0]) and (key in self._states or needs_reconcile(self.streams.get(key))):
                self._queue.add(key)
        if spread:
            self._spread_until = turn

    # Reconciling one stream.

    def reconcile(self, key: Key) -> None:
        """Record what has been imported for a stream and start what is due. Raises nothing; failures are retried."""
        with structlog.contextvars.bound_contextvars(namespace=key[0], stream=key[1], reconcile_id=uuid4().hex):
            # Taken before the stream is read: a later request is for the next reconcile.
            if priority := key in self._priority:
                self._priority.discard(key)
            try:
                self._reconcile(key, priority=priority)
            except ClientError as error:
                log.warning("API request failed, will retry", error=str(error))
                self._retry_later(key, priority=priority, wait=retry_after_seconds(error))
            except Exception:
                log.exception("reconcile failed, will retry")
                self._retry_later(key, priority=priority)
            else:
                self._queue.forget(key)

    def _retry_later(self, key: Key, *, priority: bool, wait: float = 0.0) -> None:
        if priority:
            self._priority.add(key)
        self._queue.add_rate_limited(key, wait=wait)

    def _reconcile(self, key: Key, *, priority: bool) -> None:
        stream, policy, settings = self.streams.get(key), self._policy, self._settings
        if stream is None or not settings.controller.namespaces.cover(key[0]):
            self._states.pop(key, None)
            self._queue.cancel(key)
            self._events.forget(key)
            self.failing.put(key, [FailingState.OPTED_OUT] * count_failing(stream))
            return
        if policy is None:
            return
        state = self._state_of(key, stream)
        now = self._now()
        history = state.observe(stream, now, self._unsettled.of(key))
        plans = plan_stream(stream, policy, PlanSettings.of(settings), history, now)
        # What was imported under other rules, or for another tag, must not be recorded under these.
        for dropped in state.drop_obsolete(plans, active=settings.mode == "active"):
            self._worker.forget(key, dropped)
        for tag in state.raise_priority() if priority else ():
            self._worker.raise_priority(key, tag)
        self._record(key, state)
        now = self._now()
        steps = state.next_steps(plans, now=now, at=self._clock(), priority=priority)
        for plan in steps.start:
            log.info("importing through mirrors", tag=plan.tag, source=plan.source, why=plan.why, candidates=len(plan.candidates))
        self._worker.start([ImportJob(key, plan, policy) for plan in steps.start], priority=priority)
        if priority and any(plan.action is Action.WAIT and plan.candidates for plan in plans):
            # Its import is put off for a moment, and the user waits for it all the same.
            self._priority.add(key)
        self.failing.observe(key, stream, plans, state, observing=settings.mode == "observe", now=now)
        if state.is_empty:
            del self._states[key]
        for plan in steps.refused:
            self._reporter.refused(key, state.uid, plan)
        self._tell(key, state)
        if steps.wake_after is not None:
            self._queue.add_after(key, steps.wake_after)

    def _tell(self, key: Key, state: StreamState) -> None:
        """Write Events once no import of the stream runs any more, or some have waited for long enough."""
        wait = self._events.wait(key)
        if wait is None:
            return
        if wait and state.is_active:
            self._queue.add_after(key, wait)
        else:
            self._events.tell(key)

    def stop(self) -> None:
        """Tell what has not been told; nothing is reconciled any more."""
        self._events.tell_all()

    def _state_of(self, key: Key, stream: ImageStream) -> StreamState:
        """The state of a stream; one that was deleted and created again has a new one."""
        state = self._states.get(key)
        if state is None or state.uid != stream.metadata.uid:
            state = self._states[key] = StreamState(stream.metadata.uid, stream.annotations.retry, self._queue.backoff)
        return state

    # What came of an import, reported by a thread of the import queue.

    def _demand(self, key: Key, plan: TagPlan) -> Demand:
        """Whether an import whose turn has come is still wanted."""
        state = self._states.get(key)
        return state.demand(plan) if state else Demand.NONE

    def _on_done(self, key: Key, result: ImportResult) -> bool:
        """Take in what came of an import; whether it is still wanted."""
        state = self._states.get(key)
        requeue = state.finish(result, observing=self._settings.mode == "observe", at=self._clock()) if state else None
        if state is None or requeue is None:
            return False
        # First of all: the reconcile that this asks for tells it.
        self._reporter.report(key, state.uid, result)
        if requeue.repeat:
            self._priority.add(key)
        if requeue.priority:
            self._queue.add(key, priority=True)
        elif requeue.after is not None:
            self._queue.add_after(key, requeue.after)
        return True

    # Recording.

    def _record(self, key: Key, state: StreamState) -> None:
        """Record what is ready to be recorded."""
        results, priority = state.take_results(self._clock())
        if not results:
            return
        try:
            with prioritized(priority):
                complete = self._write(key, state, results)
        except Exception as error:
            state.back_off(self._clock(), retry_after_seconds(error) if isinstance(error, ClientError) else 0.0)
            self._metrics.status_writes.labels("error").inc()
            raise
        if not complete:
            # Once for all tags of a stream that were not recorded together.
            state.back_off(self._clock())

    def _write(self, key: Key, state: StreamState, results: Sequence[TagResult]) -> bool:
        """Write results into the stream's status; whether all are recorded. Those that are refused keep none of the others back."""
        try:
            outcome, applied = self._writer.record(*key, state.uid, results)
        except ApiError as error:
            if error.status == 429 or error.status >= 500:
                raise
            self._metrics.status_writes.labels("refused").inc()
            if len(results) > 1:
                # The answer does not tell in a form for programs which tag it is about.
                self._write(key, state, results[: len(results) // 2])
                self._write(key, state, results[len(results) // 2 :])
            else:
                self._reporter.not_recorded(key, state.uid, results[0], error)
            return False
        self._metrics.status_writes.labels(outcome).inc()
        if outcome is WriteOutcome.CONFLICT:
            log.info("status write conflict, will retry")
        for skipped, why in applied.skipped:
            log.info("not recorded", tag=skipped.tag, why=why)
        for result in results if outcome is WriteOutcome.GONE else (skipped for skipped, _ in applied.skipped):
            self._worker.forget(key, result)
        for result in applied.recorded:
            self._recorded(key, state, result)
        return not applied.skipped and outcome not in (WriteOutcome.CONFLICT, WriteOutcome.GONE)

    def _recorded(self, key: Key, state: StreamState, result: TagResult) -> None:
        now = self._now()
        began = max(state.failed_since(result.plan) or now, self._started)
        self._metrics.heal_seconds.observe(max(0.0, now - began))  # clocks differ
        state.recorded(result, now=now, at=self._clock())
        self._worker.forget(key, result)
        self._reporter.imported(key, state.uid, result, self._warnings(result))

    def _warnings(self, result: TagResult) -> tuple[str, ...]:
        plan = result.plan
        return serving_warnings(
            self._policy,
            result.reference,
            reference_policy=plan.reference_policy,
            import_mode=plan.import_mode,
            insecure=plan.pulled_insecurely,
        )
