"""What the informers of a process together say: metrics, and whether the API server is still heard."""

from collections.abc import Iterable
from typing import Any

from mirrorstream.kube.informer import Informer
from mirrorstream.runtime.metrics import Sample

STALE_SECONDS = 600.0
"""The process is unhealthy when an informer received nothing for this time; bookmarks come every minute."""


def stale_informer(informers: Iterable[Informer[Any]]) -> str | None:
    """Which informer has heard nothing for too long; None if all is well. One that says why it cannot watch is no silence."""
    for informer in informers:
        if informer.problem is None and informer.staleness() > STALE_SECONDS:
            return f"nothing heard of {informer.name} for {informer.staleness():.0f} s"
    return None


def informer_gauges(informers: Iterable[Informer[Any]]) -> Iterable[Sample]:
    """The gauges by resource."""
    informers = list(informers)
    for name, text, value in (
        (
            "mirrorstream_informer_staleness_seconds",
            "Seconds since the last list, event or bookmark of the resource; a bookmark arrives every minute. A 403 does not count",
            Informer.staleness,
        ),
        ("mirrorstream_informer_objects", "Objects of the resource in the cache", Informer.count),
        (
            "mirrorstream_informer_malformed_objects_total",
            "Objects of the resource that could not be decoded and were skipped; the log names each",
            lambda informer: informer.malformed,
        ),
    ):
        yield name, text, ("resource",), {(informer.name,): float(value(informer)) for informer in informers}
