"""Several replicas of one controller, and what must be true of all of them together."""

import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from mirrorstream.kube.leaderelection import LEASE_SECONDS, RENEW_SECONDS

from e2e.testbed.cluster import Cluster, Namespace
from e2e.testbed.interceptor import Interceptor
from e2e.testbed.programs.program import Controller
from e2e.testbed.streams import tag
from e2e.testbed.support.waiting import wait_for


@dataclass
class Replica:
    """A controller that takes part in the election, and what its requests pass; the API server's log has its `mark`."""

    mark: str
    program: Controller
    between: Interceptor

    @property
    def leads(self) -> bool:
        """Whether it says so."""
        assert self.program.process.ended is None, self.program.log()
        return self.program.metric("mirrorstream_leader") == 1

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stopped by SIGSTOP."""
        self.program.process.send(signal.SIGSTOP)
        try:
            yield
        finally:
            self.program.process.send(signal.SIGCONT)

    def wait_lost(self) -> None:
        """Wait until it has ended because it may not lead any more."""
        ended = wait_for("it ends", lambda: self.program.process.ended, seconds=RENEW_SECONDS + 5)
        assert ended == 1
        assert "lost leader lease" in self.program.log()


class Team:
    """Replicas of one controller: the first one leads at the beginning."""

    def __init__(self, ns: Namespace, cluster: Cluster, make: Callable[[str, Mapping[str, str]], Replica]) -> None:
        assert cluster.log
        self._ns, self._cluster, self._make = ns, cluster, make
        self._from = cluster.log.mark()
        self._number = 0
        self.running: list[Replica] = []
        self._streams: list[str] = []
        self._digest = ns.put("good", "app:v1")
        ns.digest_mirrors()

    def add(self, number: int = 1, environment: Mapping[str, str] | None = None) -> list[Replica]:
        """Start so many more."""
        for _ in range(number):
            self._number += 1
            self.running.append(self._make(f"{self._ns.name}/{self._number}", environment or {}))
            if self._number == 1:
                self.wait_leader()
        return list(self.running)

    def without(self, gone: Replica) -> list[Replica]:
        """The others, once one does not run any more."""
        self.running.remove(gone)
        return list(self.running)

    def wait_leader(self) -> Replica:
        """Wait until one of those that run leads; which."""
        return wait_for("one leads", lambda: next((r for r in self.running if r.leads), None), seconds=2 * LEASE_SECONDS)

    def create(self, *names: str) -> None:
        """Create streams that fail and that the mirror serves."""
        for name in names:
            self._ns.create(name, tag("v1", self._ns.source("app:v1")))
            self._streams.append(name)

    def check(self, *harmless: str) -> Counter[str]:
        """Check that everything heals, once, by one leader at a time; how many writes of each replica took effect.

        The order is that of the API server's log. Writes of status and of Images by another replica than the one that has written
        the lease last are what must not be, but for those to the status of the streams that are `harmless`.
        """
        for name in self._streams:
            self._ns.wait_healed(name, "v1", self._digest)
            assert len(self._ns.tag_status(name, "v1")["items"]) == 1, name
        leading = [replica.mark for replica in self.running if replica.leads]
        assert len(leading) == 1, leading
        holder, effective = "", Counter[str]()
        for request in self._cluster.requests(self._from):
            mark = request.agent.rpartition(" ")[2]
            if not mark.startswith(f"{self._ns.name}/") or not 200 <= request.status < 300:
                continue
            if request.verb not in ("create", "update"):
                continue
            if "/leases" in request.path:
                holder = mark
            elif request.path.endswith(("/status", "/v1/images")):
                effective[mark] += 1
                expected = any(request.path.endswith(f"/imagestreams/{name}/status") for name in harmless)
                assert mark == holder or expected, f"{mark} wrote {request} while {holder} had the lease"
        return effective
