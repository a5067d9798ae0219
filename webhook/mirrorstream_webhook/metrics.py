"""What the webhook counts; every label has few possible values."""

import threading
from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate

from mirrorstream.runtime.metrics import Metrics
from prometheus_client import Counter
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from mirrorstream_webhook.patch import Result

OUTCOMES = ("patched", "unchanged", "failed")
BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0, 3.0)


class ReviewMetrics:
    """Counts reviews by outcome, images by what became of them, and what happened to the certificate."""

    def __init__(self, metrics: Metrics) -> None:
        self._tally = _Tally()
        metrics.registry.register(self._tally)
        self._refused = Counter(
            "mirrorstream_webhook_bad_requests_total",
            "Requests that are not a valid review, by HTTP status",
            ["code"],
            registry=metrics.registry,
        )
        self._rotations = Counter(
            "mirrorstream_webhook_certificate_reloads_total",
            "Changes of the certificate files, by whether they were accepted",
            ["accepted"],
            registry=metrics.registry,
        )
        for accepted in ("true", "false"):
            self._rotations.labels(accepted)
        self.reviewed = self._tally.reviewed

    def refused(self, code: int) -> None:
        """Count a request that was no review."""
        self._refused.labels(str(code)).inc()

    def rotated(self, accepted: bool) -> None:
        """Count a change of the certificate's files."""
        self._rotations.labels("true" if accepted else "false").inc()


class _Tally(Collector):
    """The counters of reviews, under one lock: as many of the package's own take longer than a whole review."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._outcomes = dict.fromkeys(OUTCOMES, 0)
        self._images = dict.fromkeys(Result, 0)
        self._buckets = [0] * (len(BUCKETS) + 1)
        self._seconds = 0.0

    def reviewed(self, outcome: str, results: Iterable[Result], seconds: float) -> None:
        """Count one review, and its images by their results."""
        with self._lock:
            self._outcomes[outcome] += 1
            self._buckets[bisect_left(BUCKETS, seconds)] += 1
            self._seconds += seconds
            for result in results:
                self._images[result] += 1

    def collect(self) -> Iterable[CounterMetricFamily | HistogramMetricFamily]:
        """The present values."""
        with self._lock:
            outcomes, images, buckets, seconds = dict(self._outcomes), dict(self._images), list(self._buckets), self._seconds
        text = "Reviews answered, by outcome (patched, unchanged, failed: an internal error, what it was about stays)"
        reviews = CounterMetricFamily("mirrorstream_webhook_reviews", text, labels=["outcome"])
        for outcome, count in outcomes.items():
            reviews.add_metric([outcome], count)
        text = "Images of pods, by result (rewritten, or why the image stays)"
        by_result = CounterMetricFamily("mirrorstream_webhook_images", text, labels=["result"])
        for result, count in images.items():
            by_result.add_metric([result], count)
        latency = HistogramMetricFamily("mirrorstream_webhook_review_seconds", "Seconds from receiving a review to answering it")
        bounds = [*map(str, BUCKETS), "+Inf"]
        latency.add_metric([], list(zip(bounds, accumulate(buckets), strict=True)), seconds)
        return [reviews, by_result, latency]


PENDING_RESULTS = ("repaired", "reported", "refused", "conflict", "failed")


class PendingPodMetrics:
    """Counts what was done about pending pods that hang on a pull."""

    def __init__(self, metrics: Metrics) -> None:
        self._pods = Counter(
            "mirrorstream_webhook_pending_pods_total",
            "Repairs of pods that cannot pull an image, by result: repaired, reported (an Event says why the pod stays), refused "
            "(by the API server), conflict and failed (both are retried)",
            ["result"],
            registry=metrics.registry,
        )
        for result in PENDING_RESULTS:
            self._pods.labels(result)

    def counted(self, result: str) -> None:
        """Count one of `PENDING_RESULTS`."""
        self._pods.labels(result).inc()
