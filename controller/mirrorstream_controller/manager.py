"""The controller as a process: what it is made of, in which order it starts, and how it ends."""

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any
from uuid import uuid4

import structlog
from mirrorstream.kube.client import load_client
from mirrorstream.kube.credentials import own_name, own_namespace
from mirrorstream.kube.events import EventRecorder
from mirrorstream.kube.informer import Informer
from mirrorstream.kube.leaderelection import Election
from mirrorstream.kube.workqueue import WorkQueue
from mirrorstream.rules.source import PolicySource
from mirrorstream.runtime.certs import validity_gauges
from mirrorstream.runtime.health import HealthServer
from mirrorstream.runtime.informer_metrics import informer_gauges, stale_informer
from mirrorstream.runtime.metrics import Sample, observe_mode
from mirrorstream.runtime.settings import Settings, SettingsFile

from mirrorstream_controller.import_queue import ImportQueue
from mirrorstream_controller.metrics import ControllerMetrics
from mirrorstream_controller.reconciler import Reconciler
from mirrorstream_controller.streams import Streams

log = structlog.get_logger(__name__)

WORKERS = 8
LEASE = "mirrorstream-controller"
EVENTS_PER_SECOND = 50

Clock = Callable[[], float]


def steady(wall: Clock = time.time, monotonic: Clock = time.monotonic) -> Clock:
    """A clock in seconds since the epoch that starts as the machine's and is never set: it goes on with the monotonic one.

    For how long an import is pending, or a source fails, is told by two looks at a clock. Were it put an hour back in between, a
    tag would stay failed for an hour longer; put forward, an outage of a minute would let a stale mirror replace an image.
    """
    offset = wall() - monotonic()
    return lambda: offset + monotonic()


class Manager:
    """Wires the controller together; `run` blocks until a signal or the loss of the lease ends it."""

    def __init__(
        self,
        settings: SettingsFile,
        *,
        kubeconfig: str | None = None,
        namespace: str | None = None,
        leader_election: bool = True,
        metrics_port: int = 8080,
        metrics_certificate: str | None = None,
        metrics_key: str | None = None,
        now: Callable[[], float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises ConfigurationError when the cluster, the port or the certificate cannot be used.

        `now` and `clock` are what decisions, back-off and waits go by; by default `now` is the time of day, also when that is set
        later. Connections and the lease have their own time, and items are dated with the time of day as it is.
        """
        wall = now or time.time
        now = now or steady(wall, clock)
        self.metrics = metrics = ControllerMetrics()
        self._settings_file = settings
        self._leader_election = leader_election
        self._namespace = namespace or own_namespace()
        self._identity = f"{own_name()}_{uuid4().hex[:8]}"
        current = settings.current
        self._client = load_client(
            kubeconfig,
            user_agent="mirrorstream-controller",
            requests_per_second=current.controller.apiRequestsPerSecond,
            observe=metrics.observe_request,
            before_write=self._check_lead,
        )
        events_client = load_client(
            kubeconfig,
            user_agent="mirrorstream-events",
            requests_per_second=EVENTS_PER_SECOND,
            observe=metrics.observe_request,
            before_write=self._check_lead,
        )
        self._events = EventRecorder(events_client, "mirrorstream", self._identity, on_drop=metrics.events_dropped.inc)
        retry = current.controller.retry
        self._queue = WorkQueue(initial=retry.initialSeconds, maximum=retry.maximumSeconds, clock=clock)
        self._imports = ImportQueue(current.controller.concurrentImports)
        self._reconciler = Reconciler(
            self._client, self._queue, self._imports, self._events, metrics, current, now=now, clock=clock, wall=wall
        )
        self._reconciler.streams = Streams(self._client, self._reconciler.on_stream)
        self._streams = self._reconciler.streams.informer
        self._policy = PolicySource(
            self._client, self._reconciler.on_policy, tags_through_digest_mirrors=current.mirrors.tagsThroughDigestMirrors
        )
        self._election = Election(
            self._client.unlimited(),
            namespace=self._namespace,
            name=LEASE,
            identity=self._identity,
            on_started_leading=self._lead,
            on_stopped_leading=self._lost,
        )
        self._ended = threading.Event()
        self._exit_status = 0
        self._leading = False
        self._workers: list[threading.Thread] = []
        metrics.gauges(self._gauges)
        self._health = HealthServer(
            metrics_port,
            metrics.registry,
            healthy=self._healthy,
            ready=self._ready,
            certificate=metrics_certificate,
            key=metrics_key,
        )

    def run(self) -> int:
        """Run until SIGTERM or SIGINT (0) or the loss of the lease (1); the process's exit status."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda signum, frame: self._ended.set())
        self.start()
        # A timeout lets signals through on every platform.
        while not self._ended.wait(1.0):
            pass
        self.stop()
        log.info("stopped", status=self._exit_status)
        return self._exit_status

    def start(self) -> None:
        """Start everything, in threads; `run` does it, and waits."""
        settings = self._settings_file.current
        log.info("starting", server=self._client.server, mode=settings.mode, identity=self._identity)
        self._settings_file.subscribe(self._configure, self.metrics.reloaded)
        self._settings_file.start()
        self._health.start()
        self._events.start()
        self._streams.start()
        self._policy.start()
        if self._leader_election:
            self._election.start()
        else:
            self._lead()

    def stop(self) -> None:
        """End in the order that leaves nothing half done: no new work, what runs, the lease, the rest."""
        self._queue.shut_down()
        self._imports.stop()
        deadline = time.monotonic() + 5
        for worker in self._workers:
            worker.join(timeout=max(0.0, deadline - time.monotonic()))
        # Before the lease is given up: after that, another writes.
        self._reconciler.stop()
        self._events.stop()
        self._leading = False
        self.metrics.leader.set(0)
        if self._leader_election:
            self._election.stop()
        self._streams.stop()
        self._policy.stop()
        self._settings_file.stop()
        self._health.stop()

    def _lead(self) -> None:
        self._leading = True
        self.metrics.leader.set(1)
        for number in range(WORKERS):
            worker = threading.Thread(target=self._work, name=f"worker-{number}", daemon=True)
            worker.start()
            # Only then: `stop`, in another thread, waits for those that it finds here. Who starts later finds the queue shut.
            self._workers.append(worker)

    def _check_lead(self) -> float:
        """Write nothing once another may lead: after a standstill of the process, any thread may be the first to go on."""
        return self._election.check_lead() if self._leader_election else math.inf

    def _lost(self, reason: str) -> None:
        """End the process at once: whatever still runs here must not act beside a new leader."""
        log.error("lost leader lease, exiting", reason=reason)
        os._exit(1)

    def _work(self) -> None:
        try:
            while (key := self._queue.get()) is not None:
                try:
                    self._reconciler.reconcile(key)
                finally:
                    self._queue.done(key)
        except BaseException:
            # With a worker less, or a key that nobody gives back, streams would wait without end, and nobody would know why.
            log.exception("worker failed, exiting")
            self._fail()

    def _fail(self) -> None:
        """End with an error, in the usual order."""
        self._exit_status = 1
        self._ended.set()

    def _configure(self, settings: Settings) -> None:
        if self._client.limiter:
            self._client.limiter.rate = settings.controller.apiRequestsPerSecond
        self._policy.configure(tags_through_digest_mirrors=settings.mirrors.tagsThroughDigestMirrors)
        self._reconciler.configure(settings)

    def _informers(self) -> list[Informer[Any]]:
        return [self._streams, *self._policy.informers.values()]

    def _ready(self) -> str | None:
        if not self._streams.synced.is_set():
            return self._streams.problem or "not synced yet: imagestreams.image.openshift.io"
        return self._policy.problem()

    def _healthy(self) -> str | None:
        return stale_informer(self._informers())

    def _gauges(self) -> Iterable[Sample]:
        if self._leading:
            yield from self._leader_gauges()
        yield observe_mode(self._settings_file.current.mode)
        yield from informer_gauges(self._informers())
        yield from validity_gauges("metrics", self._health.validity)

    def _leader_gauges(self) -> Iterable[Sample]:
        """What a replica that stands by knows nothing of: it looks at no stream."""
        none, failing = (), self._reconciler.failing
        text = (
            "Importable tags whose last import failed, by state (failing: imported once a mirror serves it, held, refused, "
            "unmirrored: no mirror rule covers it, opted-out, observed: a mirror serves it, with mode: observe); only the leader "
            "has it"
        )
        yield "mirrorstream_failing_tags", text, ("state",), {(state,): float(count) for state, count in failing.counts().items()}
        text = "When the oldest failure of a tag in the state failing began, as a Unix time; absent while there is none, and "
        text += "with mode: observe; only the leader has it"
        oldest = failing.oldest()
        yield "mirrorstream_longest_failing_tag_timestamp_seconds", text, none, {} if oldest is None else {none: oldest}
        for name, text, value in (
            ("mirrorstream_running_imports", "Imports through mirrors that are queued or running", float(len(self._imports))),
            ("mirrorstream_queue_depth", "Streams in the queue", float(len(self._queue))),
            (
                "mirrorstream_queue_wait_seconds",
                "Age of the oldest queued stream, in seconds",
                self._queue.longest_wait(),
            ),
        ):
            yield name, f"{text}; only the leader has it", none, {none: value}
