"""What is counted, under Prometheus' naming conventions; every label has few possible values."""

import time
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

# A gauge with the time of birth beside every series of a counter: twice as many series, which nobody asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]

Sample = tuple[str, str, tuple[str, ...], Mapping[tuple[str, ...], float]]
"""What is read at each scrape: name (a counter's if it ends in `_total`), help, label names, and values by label values."""
Collect = Callable[[], Iterable[Sample]]

REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 180)
"""Seconds; a dry run waits for a registry, for up to a minute, or three for a whole repository."""


class Metrics:
    """The metrics that every program of ours has, in a registry of their own. `component` says which program it is."""

    def __init__(self, component: str = "library") -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        build = Gauge(
            "mirrorstream_build_info",
            "Always 1; the labels are the version and the program",
            ["version", "component"],
            registry=registry,
        )
        build.labels(version("mirrorstream"), component).set(1)
        self.api_requests = Counter(
            "mirrorstream_api_requests_total",
            "Requests to the API server, by verb and status code (none: no answer)",
            ["verb", "code"],
            registry=registry,
        )
        self.api_seconds = Histogram(
            "mirrorstream_api_request_seconds",
            "Seconds until the API server answered; for a watch, until it began",
            ["verb"],
            buckets=REQUEST_BUCKETS,
            registry=registry,
        )
        self._reloads = Counter(
            "mirrorstream_configuration_reloads_total",
            "Changes of the configuration file, by whether they were accepted",
            ["accepted"],
            registry=registry,
        )
        self._reload_accepted = Gauge(
            "mirrorstream_configuration_last_reload_accepted",
            "1 if the current configuration file is in force, 0 if it was rejected and the previous one stays in force",
            registry=registry,
        )
        self._reload_time = Gauge(
            "mirrorstream_configuration_last_reload_timestamp_seconds",
            "When the configuration file was last read (at the start or after a change), as a Unix time",
            registry=registry,
        )
        for accepted in ("true", "false"):
            self._reloads.labels(accepted)
        self._reload_accepted.set(1)  # a program does not start with a file that it rejects
        self._reload_time.set(time.time())
        self.events_dropped = Counter("mirrorstream_events_dropped_total", "Events that could not be written", registry=registry)
        self.policy_warnings = Gauge(
            "mirrorstream_mirror_rule_warnings",
            "Parts of mirror sets and of the Image config that are invalid, or that machine-config-operator refuses; the log names "
            "the object and field of each",
            registry=registry,
        )

    def observe_request(self, verb: str, code: int, seconds: float) -> None:
        """Count one request to the API server; code 0 is one without an answer."""
        self.api_requests.labels(verb, str(code) if code else "none").inc()
        self.api_seconds.labels(verb).observe(seconds)

    def reloaded(self, accepted: bool) -> None:
        """Count a change of the configuration file."""
        self._reloads.labels("true" if accepted else "false").inc()
        self._reload_accepted.set(accepted)
        self._reload_time.set(time.time())

    def gauges(self, collect: Collect) -> None:
        """Have `collect` asked at each scrape."""
        self.registry.register(_Live(collect))


def observe_mode(mode: str) -> Sample:
    """The gauge of `mode` in the configuration."""
    text = "1 with mode: observe, 0 with mode: active"
    return "mirrorstream_observe_mode", text, (), {(): float(mode == "observe")}


class _Live(Collector):
    """Values that are read when they are asked for."""

    def __init__(self, collect: Collect) -> None:
        self._collect = collect

    def describe(self) -> list[GaugeMetricFamily]:
        """Nothing: the registry need not ask for values before they exist."""
        return []

    def collect(self) -> Iterable[GaugeMetricFamily | CounterMetricFamily]:
        """The present values."""
        for name, text, labels, values in self._collect():
            kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            family = kind(name, text, labels=labels)
            for label_values, value in values.items():
                family.add_metric(list(label_values), value)
            yield family
