"""Leader election by a Lease: of several replicas one acts, and it stops acting in time.

A leader that cannot renew must stop before another may start, also while its request hangs: so the deadline is watched by a thread
of its own, on a clock that the machine's time of day does not move, and that goes on while the machine is suspended. Observing
follows client-go: what counts is when *we* saw the record change, never the times written in it, since nobody's clocks agree.
"""

import datetime
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import structlog

from mirrorstream.kube.client import ApiError, Client, ClientError

log = structlog.get_logger(__name__)

LEASE_SECONDS, RENEW_SECONDS, RETRY_SECONDS = 15.0, 11.0, 2.0
"""A leader that dies is replaced within LEASE; it gives up after RENEW without a success; everybody tries every RETRY."""
REQUEST_SECONDS = 5.5
"""The longest wait for an answer. RENEW is twice that: an API server that takes 5 s for each answer costs nobody the lease."""
RELEASE_SECONDS = 2.0
"""The same at the end, for which a pod has not long."""
BOOTTIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
TAKE_OVER = 0.8
"""The part of the lease after which others take over. They see up to RETRY late that it was renewed, and with that no more than
the whole lease may pass. It is longer than RENEW."""


def boottime() -> float:
    """Seconds since the machine started, those included in which it was suspended, where the system has such a clock (Linux).

    `time.monotonic` stands still in a suspended machine: a leader that wakes up would believe that it still has its lease.
    """
    return time.clock_gettime(BOOTTIME)


class NotLeadingError(ClientError):
    """Nothing may be written: another replica may lead."""


class Election:
    """Takes part in the election for the Lease `namespace`/`name` as `identity`.

    `on_started_leading` is called, from the election's thread, when we become the leader; `on_stopped_leading`, from the watchdog's
    thread, once we may no longer act: it must end the process. With `rejoin` it need not: `leading` is False by then, whatever
    acts for the leader checks that before each write, and this replica goes on as one that waits. `client` must not be rate-
    limited.
    """

    def __init__(
        self,
        client: Client,
        *,
        namespace: str,
        name: str,
        identity: str,
        on_started_leading: Callable[[], None],
        on_stopped_leading: Callable[[str], None],
        rejoin: bool = False,
        clock: Callable[[], float] = boottime,
        now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ) -> None:
        self._client = client
        self._collection = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._path = f"{self._collection}/{name}"
        self._namespace, self._name, self._identity = namespace, name, identity
        self._on_started_leading, self._on_stopped_leading, self._rejoin = on_started_leading, on_stopped_leading, rejoin
        self._clock, self._now = clock, now
        self._stopped = threading.Event()
        self._losing = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._observed: Any = None
        self._written: dict[str, Any] | None = None
        """The Lease as we wrote it last, unless somebody may have changed it since."""
        self._free_at = clock()
        self._attempted_at = clock()
        self._renewed_at = 0.0
        self._problem: tuple[str, dict[str, str]] | None = None
        self.leading = False

    def start(self) -> None:
        """Take part, in threads of its own."""
        for target in (self._run, self._watch_deadline):
            thread = threading.Thread(target=target, name=f"election-{target.__name__}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self.attempt()
            except Exception:  # a bug must not keep this replica from ever leading; a leader that does not renew is watched for
                log.exception("failed to acquire or renew the lease, will retry")
            self._stopped.wait(self.pause())

    def pause(self) -> float:
        """For how long to wait before the next attempt, in seconds: until a lease that we wait for runs out, if that is soon."""
        now = self._clock()
        usual = RETRY_SECONDS * random.uniform(0.9, 1.1)  # noqa: S311  spreads requests, guards nothing
        # An attempt that hung has taken its time already, and a leader has few.
        usual = max(usual - (now - self._attempted_at), RETRY_SECONDS / 10)
        left = self._free_at - now
        # A look that comes a moment early would find nothing and come back late.
        return min(usual, left + 0.01) if left > 0 and not self.leading else usual

    def attempt(self) -> None:
        """Acquire or renew once, if that is possible now."""
        self._attempted_at = self._clock()
        try:
            renewed = self._acquire_or_renew()
        except ClientError as error:
            self._report("cannot reach the lease", error=str(error))
            return
        if renewed is None:
            return
        if not renewed:
            if self.leading:
                self._lose("another replica holds the lease")
            return
        self._problem = None
        if self._rejoin and self._clock() - self._renewed_at > RENEW_SECONDS:
            # The answer came after the lead was given up: only a newer one makes us the leader again.
            return
        if not self.leading and not self._stopped.is_set():
            self.leading = True
            log.info("leading", lease=f"{self._namespace}/{self._name}", identity=self._identity)
            try:
                self._on_started_leading()
            except Exception:  # for example, no thread can be started: a replica that does not rejoin ends, and another one leads
                log.exception("failed to start leading")
                self._lose("failed to start leading")

    def _report(self, event: str, **details: str) -> None:
        """Log a problem once, until it is another or over."""
        if (event, details) != self._problem:
            self._problem = event, details
            log.warning(event, **details)

    def _acquire_or_renew(self) -> bool | None:
        """Whether we hold the lease after one attempt; None: the next one tells. Raises ClientError without an answer."""
        if self.leading and self._written:
            # Nobody else writes the lease of a leader in time: no need to read it first.
            last, self._written = self._written, None
            if self._write("PUT", self._path, last, last["spec"]):
                return True
        lease: dict[str, Any] | None = None
        try:
            lease = self._client.request("GET", self._path, timeout=REQUEST_SECONDS)
        except ApiError as error:
            if error.status != 404:
                raise
        if lease is None:
            return self._write("POST", self._collection, {"metadata": {"name": self._name, "namespace": self._namespace}}, {})
        spec = lease.get("spec") or {}
        if spec != self._observed:
            self._observe(spec)
        holder = spec.get("holderIdentity") or ""
        if holder and holder != self._identity and self._clock() < self._free_at:
            self._report("waiting for the lease", holder=holder)
            return False
        return self._write("PUT", self._path, lease, spec)

    def _observe(self, spec: dict[str, Any]) -> None:
        self._free_at = self._clock() + TAKE_OVER * float(spec.get("leaseDurationSeconds") or LEASE_SECONDS)
        self._observed = spec

    def _write(self, method: str, path: str, lease: dict[str, Any], old: dict[str, Any]) -> bool | None:
        now = self._now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        ours = old.get("holderIdentity") == self._identity
        spec = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": int(LEASE_SECONDS),
            "acquireTime": old.get("acquireTime", now) if ours else now,
            "renewTime": now,
            "leaseTransitions": int(old.get("leaseTransitions") or 0) + (0 if ours or not old else 1),
        }
        body = {**lease, "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": spec}
        began = self._clock()
        try:
            written: dict[str, Any] = self._client.request(method, path, body=body, timeout=REQUEST_SECONDS)
        except ApiError as error:
            if error.status == 409 or (error.status == 404 and method == "PUT"):
                # Another write came first. It may be ours, if its answer was lost: the next attempt finds out. The lease does not
                # count as renewed, since others take over if they see no change.
                if self.leading:
                    self._report("could not renew the lease, another replica wrote it")
                return None
            raise
        self._observe(written.get("spec") or {})
        self._written = written
        # The deadline counts from before the request: the server may have stored it then.
        self._renewed_at = began
        return True

    def _watch_deadline(self) -> None:
        while not self._stopped.wait(0.1):
            self.check_deadline()

    def check_deadline(self) -> None:
        """Give up the lead when it has not been renewed in time, whatever the renewing thread is waiting for."""
        if self.leading and self._clock() - self._renewed_at > RENEW_SECONDS:
            self._lose(f"the lease could not be renewed for {RENEW_SECONDS:.0f} s")

    def check_lead(self) -> float:
        """Raise NotLeadingError unless this replica leads: a thread that stood still must not write beside another replica.

        Also while another thread has just found that the lead is lost and is about to end the process. Returns for how many seconds
        a write may wait until it is sent, before another replica may lead.
        """
        self.check_deadline()
        if not self.leading:
            raise NotLeadingError("another replica may lead by now")
        return TAKE_OVER * LEASE_SECONDS - (self._clock() - self._renewed_at)

    def _lose(self, reason: str) -> None:
        with self._losing:  # the watchdog, the election's thread and writers come here, and one of them tells it
            if not self.leading:
                return
            self.leading = False
        if not self._rejoin:
            self._stopped.set()
        self._on_stopped_leading(reason)

    def stop(self) -> None:
        """Leave the election; a lease that we hold is given up, so that another replica takes over at once."""
        self.leading = False
        self._stopped.set()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(timeout=RELEASE_SECONDS + 1)
        self.leading = False  # again: an attempt that had just succeeded may have come in between
        # Not only a leader's: what we were acquiring when we were stopped is ours, too, though we never led.
        if (self._observed or {}).get("holderIdentity") != self._identity:
            return
        try:
            lease = self._client.request("GET", self._path, timeout=RELEASE_SECONDS)
            spec = lease.get("spec") or {}
            if spec.get("holderIdentity") == self._identity:
                lease["spec"] = {**spec, "holderIdentity": "", "leaseDurationSeconds": 1}
                self._client.request("PUT", self._path, body=lease, timeout=RELEASE_SECONDS)
                log.info("released the lease")
        except ClientError as error:
            log.warning("failed to release the lease, it will expire", error=str(error))
