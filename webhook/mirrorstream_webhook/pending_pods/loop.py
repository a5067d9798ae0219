"""Pods that hang on a pull get going: what slipped through admission is mended in place, by one replica at a time.

The webhook was away, the stream was not known yet, the pod is older than the installation, the kubelet backs off for minutes, the
registry is down: whatever it was, once the decider has a digest for the original reference the pod's images are replaced, and the
kubelet starts it within a second. Reviews never wait for anything in here.
"""

import threading
import time
from collections.abc import Callable, Iterable
from uuid import uuid4

import structlog
from mirrorstream.kube.client import Client, ClientError, load_client
from mirrorstream.kube.credentials import own_name, own_namespace
from mirrorstream.kube.events import EventRecorder
from mirrorstream.kube.informer import Change, Informer
from mirrorstream.kube.leaderelection import Election, boottime
from mirrorstream.kube.objects import Key
from mirrorstream.runtime.metrics import Metrics, Sample
from mirrorstream.runtime.settings import Settings

from mirrorstream_webhook.metrics import PendingPodMetrics
from mirrorstream_webhook.pending_pods.hangs import QUIET, PendingPod, follow_hangs, read_pending
from mirrorstream_webhook.pending_pods.namespace_queue import NamespaceQueue
from mirrorstream_webhook.pending_pods.patch_policy import PatchPolicy
from mirrorstream_webhook.pending_pods.repair import AGAIN_SECONDS, RETRY_LIMIT, Deciding, Pace, PodState, Repairs

log = structlog.get_logger(__name__)

LEASE = "mirrorstream-pending-pods"
PODS = "/api/v1/pods"
PODS_PER_SECOND = 20.0
WORKERS = 8
"""A patch passes the cluster's admission, which takes some 50 ms, and where it is busy several times that: one after another they
would not reach the rate."""
STOP_SECONDS = 1.0
"""How long the end waits for requests that run."""
EVENTS_PER_SECOND = 50
EVALUATIONS_PER_SECOND = 500.0
"""Of each some 100 µs: with ten thousand pods that hang, everything else still gets the processor."""
TICK_SECONDS = 0.1
BOUNDS_SECONDS = 60.0
"""How often the policies that bound this account are looked for."""


def load_pending_pods(kubeconfig: str | None, decider: Deciding, metrics: Metrics, settings: Settings) -> "PendingPods":
    """What a program has of it. Raises ConfigurationError."""
    identity = f"{own_name()}_{uuid4().hex[:8]}"

    def check_lead() -> float:
        return found.check_lead()

    client = load_client(
        kubeconfig, user_agent="mirrorstream-pending-pods", observe=metrics.observe_request, before_write=check_lead
    )
    events = load_client(
        kubeconfig, user_agent="mirrorstream-events", requests_per_second=EVENTS_PER_SECOND, observe=metrics.observe_request
    )
    found = PendingPods(
        client,
        decider,
        EventRecorder(events, "mirrorstream", identity, on_drop=metrics.events_dropped.inc),
        PendingPodMetrics(metrics),
        namespace=own_namespace(),
        identity=identity,
        settings=settings,
    )
    return found


def may_repair(settings: Settings) -> bool:
    """Whether the settings let pods be changed."""
    return settings.mode == "active" and settings.webhook.pendingPods == "repair"


class PendingPods:
    """Watches pending pods, and has those mended that hang; threads of its own do everything.

    `client` is told before each write whether this replica still leads, see `check_lead`. `clock` goes on while the
    machine is suspended.
    """

    def __init__(
        self,
        client: Client,
        decider: Deciding,
        events: EventRecorder,
        metrics: PendingPodMetrics,
        *,
        namespace: str,
        identity: str,
        settings: Settings,
        rate: float = PODS_PER_SECOND,
        clock: Callable[[], float] = boottime,
    ) -> None:
        self._decider = decider
        self._events = events
        self._settings = settings
        self._clock = clock
        self._stopped = threading.Event()
        self._repairs = Repairs(client, decider, events, metrics, self, Pace(rate, clock, self._stopped), clock=clock)
        self.pods: Informer[PendingPod] = Informer(
            client, PODS, read_pending, self.on_pod, name="pods", params={"fieldSelector": "status.phase=Pending"}
        )
        self.election = Election(
            client.unlimited(),
            namespace=namespace,
            name=LEASE,
            identity=identity,
            on_started_leading=self._lead,
            on_stopped_leading=self._lost,
            rejoin=True,
            clock=clock,
        )
        self._patch_policy = PatchPolicy(client)
        self._unbounded: str | None = "not looked for yet"
        """Why this account must not change pods; None if it may."""
        self._looked = False
        """Whether it was looked for since we lead."""
        self._bounds_due = clock()
        self._forbidden_until = 0.0
        self._condition = threading.Condition()
        self._queue = NamespaceQueue()
        self._states: dict[Key, PodState] = {}
        self._version: object = None
        self._version_due = 0.0
        self._said: str | None = None
        self._threads: list[threading.Thread] = []

    # The process.

    def start(self) -> None:
        """Watch, take part in the election, and work once we lead."""
        self._events.start()
        self.pods.start()
        targets = [("pending-pods", self._supervise), *((f"pending-pods-{n}", self._work) for n in range(WORKERS))]
        for name, target in targets:
            thread = threading.Thread(target=target, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Send nothing more, and give the lease back."""
        self._stopped.set()
        with self._condition:
            self._condition.notify_all()
        deadline = time.monotonic() + STOP_SECONDS
        for thread in self._threads:
            thread.join(timeout=max(0.0, deadline - time.monotonic()))
        if not any(thread.is_alive() for thread in self._threads):
            # Otherwise a request of ours hangs, and only when the lease has run out may another replica act.
            self.election.stop()
        self._events.stop()
        self.pods.stop()

    def configure(self, settings: Settings) -> None:
        """Take over changed settings."""
        self._settings = settings
        self._evaluate_all()

    def check_lead(self) -> float:
        """Raise NotLeadingError unless this replica leads; see Election."""
        return self.election.check_lead()

    def _lead(self) -> None:
        self._looked = False
        self._bounds_due = self._clock()

    def _lost(self, reason: str) -> None:
        log.warning("lost the pending pods lease", reason=reason)

    def _supervise(self) -> None:
        """Notice what has no event: another version of the streams and rules, and the policies that bound this account."""
        joined = False
        while not self._stopped.wait(TICK_SECONDS):
            try:
                if not joined and self.pods.synced.is_set():
                    # Without the right to see pods there is nothing to lead.
                    joined = True
                    self.election.start()
                self.tick()
            except Exception:  # a bug must not end the thread that notices changes
                log.exception("check for changes failed, will retry")

    def tick(self) -> None:
        """One look at what may have changed."""
        if not self.election.leading:
            return
        now = self._clock()
        if now >= self._bounds_due:
            self._look_for_bounds(now)
        if not self._looked:
            return
        self._say()
        version = self._decider.version()
        if version != self._version and now >= self._version_due:
            self._version = version
            self._version_due = now + TICK_SECONDS + len(self._states) / EVALUATIONS_PER_SECOND
            self._evaluate_all()

    def _look_for_bounds(self, now: float) -> None:
        before = (self._looked, self._unbounded)
        try:
            self._unbounded = self._patch_policy.problem()
        except ClientError as error:
            # What was known counts on; at the beginning nothing is done, nor said of pods, until it is known.
            log.info("cannot read the policies that bound this account, will retry", error=str(error))
            self._bounds_due = now + AGAIN_SECONDS
            return
        self._bounds_due = now + BOUNDS_SECONDS
        self._looked = True
        if before != (True, self._unbounded):
            self._evaluate_all()

    def _say(self) -> None:
        """Log once whether pods are repaired, and why not."""
        problem = self.problem()
        if (said := problem or "") == self._said:
            return
        self._said = said
        if problem:
            log.warning("pending pods are reported, not repaired", reason=problem)
        else:
            log.info("pending pods are repaired")

    def withdrawn(self) -> None:
        """Take over that the API server says that this account may not patch pods; a role may come back."""
        self._forbidden_until = self._clock() + BOUNDS_SECONDS

    @property
    def observes(self) -> bool:
        """Whether nothing is written, no Event either: mode is observe."""
        return self._settings.mode == "observe"

    def problem(self) -> str | None:
        """Why pods are told of only; None if they are repaired."""
        if not may_repair(self._settings):
            return "webhook.pendingPods is report, or mode is observe"
        if self._clock() < self._forbidden_until:
            return "this account may not patch pods"
        return self._unbounded

    # What changes.

    def on_pod(self, change: Change[PendingPod]) -> None:
        """Take over a pod that appeared, changed, or is pending no more."""
        with self._condition:
            if change.new is None:
                self._states.pop(change.key, None)
                self._queue.discard(change.key)
                return
            state = self._states.get(change.key)
            if change.new is QUIET:
                if state:
                    state.hangs = {}
                return
            if state is None or state.uid != change.new.uid:
                state = self._states[change.key] = PodState(change.new.uid)
            # Until the first list is there nobody saw when the pull failed.
            before = change.old.hangs if change.old else {} if self.pods.synced.is_set() else None
            state.hangs = follow_hangs(state.hangs, before, change.new, self._clock())
            if (images := change.new.images()) != state.images:
                state.images, state.failures, state.not_before = images, 0, 0.0
            if self.election.leading:
                self._add(change.key, self._clock())

    def _evaluate_all(self) -> None:
        with self._condition:
            now = self._clock()
            for key, state in self._states.items():
                if state.hangs:
                    self._queue.add(key, now)
            self._condition.notify_all()

    def _add(self, key: Key, when: float) -> None:
        """Have a pod evaluated; the lock is held."""
        self._queue.add(key, when)
        self._condition.notify()

    # One pod.

    def _work(self) -> None:
        while (key := self._next()) is not None:
            again = RETRY_LIMIT
            try:
                again = self.evaluate(key)
            except Exception:  # a bug in one pod must not end what others wait for
                log.exception("evaluation of a pending pod failed, will retry", namespace=key[0], pod=key[1])
            with self._condition:
                state = self._states.get(key)
                if state:
                    state.busy = False
                    if state.hangs and self.election.leading:
                        self._queue.add(key, self._clock() + again)

    def _next(self) -> Key | None:
        """A pod that is due and that no other thread has; None at the end."""
        with self._condition:
            while not self._stopped.is_set():
                if not (self.election.leading and self._looked):
                    self._condition.wait(TICK_SECONDS)
                    continue
                now = self._clock()
                key = self._queue.take(now)
                if key is None:
                    self._condition.wait(min(self._queue.next(now) or 1.0, 1.0))
                    continue
                state = self._states.get(key)
                if state is None or not state.hangs:
                    continue
                if state.busy:
                    self._queue.add(key, now + TICK_SECONDS)
                    continue
                state.busy = True
                return key
        return None

    def evaluate(self, key: Key) -> float:
        """Deal with one pod; the seconds until it is to be evaluated again."""
        pending, state = self.pods.get(key), self._states.get(key)
        if pending is None or pending is QUIET or state is None or state.uid != pending.uid:
            return AGAIN_SECONDS
        usual = max(AGAIN_SECONDS, len(self._states) / EVALUATIONS_PER_SECOND * 2)
        return self._repairs.evaluate(key, pending, state, usual)

    # What others ask.

    def gauges(self) -> Iterable[Sample]:
        """What is there now."""
        none = ()
        repairing = self.election.leading and self.problem() is None
        text = "1 if this replica repairs pods that cannot pull an image: it holds the Lease and does not only report"
        yield "mirrorstream_webhook_pending_pods_repairing", text, none, {none: float(repairing)}
        if self.election.leading:
            with self._condition:
                hanging = sum(1 for state in self._states.values() if state.hangs)
            text = "Pending pods with a container that cannot pull its image; only the leader has it"
            yield "mirrorstream_webhook_hanging_pods", text, none, {none: float(hanging)}
