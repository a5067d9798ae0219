"""What the controller counts; every label has few possible values.

Only the leader looks at streams, so only it has, or raises, what is about tags, imports and the queue.
"""

import threading
from collections.abc import Set as AbstractSet

from mirrorstream.runtime.metrics import Metrics
from prometheus_client import Counter, Gauge, Histogram

SERVED = "served"
"""The label for a mirror that served what it was asked for; the others are failure classes."""


class ControllerMetrics(Metrics):
    """The controller's metrics, beside those that every program has."""

    def __init__(self) -> None:
        super().__init__("controller")
        registry = self.registry
        self.imports = Counter(
            "mirrorstream_imports_total",
            "Failed tags that the leader handled, by result (imported, failed: no mirror serves it, refused, held, observed, "
            "error) and by the class of failure of the platform's own import",
            ["result", "failure"],
            registry=registry,
        )
        self._answered: set[tuple[str, str]] = set()
        self._lock = threading.Lock()
        self.answers = Counter(
            "mirrorstream_mirror_answers_total",
            "Answers of mirrors to imports, by the mirror's host and by answer: served, or the class of failure; counted by the "
            "leader",
            ["mirror", "answer"],
            registry=registry,
        )
        self.heal_seconds = Histogram(
            "mirrorstream_heal_seconds",
            "Seconds from a tag's failure until its import through a mirror is recorded; from the start of this process if the tag "
            "failed before. The API dates failures by the whole second. Counted by the leader",
            buckets=(0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14400),
            registry=registry,
        )
        self.status_writes = Counter(
            "mirrorstream_status_writes_total",
            "Status writes of ImageStreams by the leader, by outcome (written, nothing-left, conflict, gone, refused, error)",
            ["outcome"],
            registry=registry,
        )
        self.leader = Gauge(
            "mirrorstream_leader",
            "1 on the leader, 0 on other replicas; always 1 without leader election",
            registry=registry,
        )

    def answered(self, mirror: str, answer: str) -> None:
        """Count what a mirror's host answered."""
        with self._lock:
            self._answered.add((mirror, answer))
            self.answers.labels(mirror, answer).inc()

    def keep_mirrors(self, hosts: AbstractSet[str]) -> None:
        """Drop the series of mirrors that no rule names any more: rules come and go, and a process stays for months."""
        with self._lock:
            for mirror, answer in [found for found in self._answered if found[0] not in hosts]:
                self._answered.discard((mirror, answer))
                self.answers.remove(mirror, answer)
