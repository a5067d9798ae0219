"""What the webhook counts; every label has few possible values."""

from collections.abc import Iterable

from mirrorstream.metrics import Metrics
from prometheus_client import Counter, Histogram

from mirrorstream_webhook.patch import Result

OUTCOMES = ("patched", "unchanged", "failed")


class ReviewMetrics:
    """Counts reviews by outcome and images by what became of them."""

    def __init__(self, metrics: Metrics) -> None:
        reviews = Counter(
            "mirrorstream_webhook_reviews_total",
            "Reviews answered, by outcome (patched, unchanged, failed: allowed although something went wrong inside)",
            ["outcome"],
            registry=metrics.registry,
        )
        images = Counter(
            "mirrorstream_webhook_images_total", "Images of pods, by what became of them", ["result"], registry=metrics.registry
        )
        refused = Counter(
            "mirrorstream_webhook_bad_requests_total",
            "Requests that were no review, by HTTP status",
            ["code"],
            registry=metrics.registry,
        )
        self._seconds = Histogram(
            "mirrorstream_webhook_review_seconds",
            "Seconds from a review's body to its answer",
            buckets=(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1, 3),
            registry=metrics.registry,
        )
        self._rotations = Counter(
            "mirrorstream_webhook_certificate_reloads_total",
            "Changes of the certificate's files, by whether they were accepted",
            ["accepted"],
            registry=metrics.registry,
        )
        # Children are looked up once: a review takes some ten microseconds.
        self._reviews = {outcome: reviews.labels(outcome) for outcome in OUTCOMES}
        self._images = {result: images.labels(result) for result in Result}
        self._refused = refused

    def reviewed(self, outcome: str, results: Iterable[tuple[Result, int]], seconds: float) -> None:
        """Count one review, and how many of its images came to which result."""
        self._reviews[outcome].inc()
        self._seconds.observe(seconds)
        for result, images in results:
            self._images[result].inc(images)

    def refused(self, code: int) -> None:
        """Count a request that was no review."""
        self._refused.labels(str(code)).inc()

    def rotated(self, accepted: bool) -> None:
        """Count a change of the certificate's files."""
        self._rotations.labels("true" if accepted else "false").inc()
