"""What the controller counts; every label has few possible values."""

from mirrorstream.metrics import Metrics
from prometheus_client import Counter, Gauge, Histogram


class ControllerMetrics(Metrics):
    """The controller's metrics, beside those that every program has."""

    def __init__(self) -> None:
        super().__init__()
        registry = self.registry
        self.imports = Counter(
            "mirrorstream_imports_total",
            "Tags dealt with, by result (imported, failed, refused, held, observed, error) and by why the platform's import failed",
            ["result", "failure"],
            registry=registry,
        )
        self.heal_seconds = Histogram(
            "mirrorstream_heal_seconds",
            "Seconds from seeing a tag's failure to its recorded import",
            buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
            registry=registry,
        )
        self.status_writes = Counter(
            "mirrorstream_status_writes_total", "Status writes of streams, by outcome", ["outcome"], registry=registry
        )
        self.leader = Gauge("mirrorstream_leader", "Whether this replica leads", registry=registry)
        self.events_dropped = Counter("mirrorstream_events_dropped_total", "Events that could not be written", registry=registry)
