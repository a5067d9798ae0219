"""What the informers of a process together say: metrics, and whether the API server is still heard."""

from collections.abc import Iterable
from typing import Any

from mirrorstream.kube.informer import Informer
from mirrorstream.metrics import Live

STALE_SECONDS = 600.0
"""An informer that has heard nothing for so long, though bookmarks come every minute, makes the process unhealthy."""


def silence(informers: Iterable[Informer[Any]]) -> str | None:
    """Which informer has heard nothing for too long; None if all is well. One that says why it cannot watch is no silence."""
    for informer in informers:
        if informer.problem is None and informer.staleness() > STALE_SECONDS:
            return f"nothing heard of {informer.name} for {informer.staleness():.0f} s"
    return None


def informer_gauges(informers: Iterable[Informer[Any]]) -> Iterable[Live]:
    """The gauges by resource."""
    informers = list(informers)
    for name, text, value in (
        (
            "mirrorstream_informer_staleness_seconds",
            "Seconds since the API server last said how the resource is: bookmarks come every minute when nothing happens; that it "
            "may not be seen (403) says nothing of it",
            Informer.staleness,
        ),
        ("mirrorstream_informer_objects", "Objects known of the resource", Informer.count),
        (
            "mirrorstream_informer_malformed_objects_total",
            "Objects of the resource that could not be read and were left out; the log names each",
            lambda informer: informer.malformed,
        ),
    ):
        yield name, text, ("resource",), {(informer.name,): float(value(informer)) for informer in informers}
