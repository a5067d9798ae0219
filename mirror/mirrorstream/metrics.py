"""What is counted, under Prometheus' naming conventions; every label has few possible values."""

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

Live = tuple[str, str, tuple[str, ...], Mapping[tuple[str, ...], float]]
"""A gauge that is read at each scrape: name, help, label names, and values by label values."""
Collect = Callable[[], Iterable[Live]]


class Metrics:
    """The metrics that every program of ours has, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.api_requests = Counter(
            "mirrorstream_api_requests_total", "Requests to the API server", ["method", "code"], registry=registry
        )
        self.api_seconds = Histogram(
            "mirrorstream_api_request_seconds", "Seconds of requests to the API server", ["method"], registry=registry
        )
        self.reloads = Counter("mirrorstream_configuration_reloads_total", "Configuration reloads", ["accepted"], registry=registry)
        self.policy_warnings = Gauge(
            "mirrorstream_mirror_rule_warnings", "Parts of mirror rules that cannot be used", registry=registry
        )

    def observe_request(self, method: str, code: int, seconds: float) -> None:
        """Count one request to the API server; code 0 is one without an answer."""
        self.api_requests.labels(method, str(code) if code else "none").inc()
        self.api_seconds.labels(method).observe(seconds)

    def gauges(self, collect: Collect) -> None:
        """Have `collect` asked at each scrape."""
        self.registry.register(_Live(collect))


class _Live(Collector):
    """Values that are read when they are asked for."""

    def __init__(self, collect: Collect) -> None:
        self._collect = collect

    def describe(self) -> list[GaugeMetricFamily]:
        """Nothing: the registry need not ask for values before they exist."""
        return []

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The present values."""
        for name, text, labels, values in self._collect():
            family = GaugeMetricFamily(name, text, labels=labels)
            for label_values, value in values.items():
                family.add_metric(list(label_values), value)
            yield family
