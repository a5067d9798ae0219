"""How often a program may list and watch while that fails, counted from the back-off's own constants."""

from collections import Counter

from mirrorstream.kube.informer import BACKOFF_INITIAL, BACKOFF_MAXIMUM

from e2e.testbed.interceptor import Interceptor


def most_requests(seconds: float) -> int:
    """A number of lists, or of watches, of one resource in so many seconds that only a tight loop exceeds.

    It is twice what the back-off allows: on a busy machine requests arrive late and together, and the seconds are measured late
    too. A loop without waits makes hundreds of requests a second.
    """
    return 2 * attempts(seconds)


def attempts(seconds: float) -> int:
    """The most attempts in so many seconds that the back-off allows: one at once, one after a list, then the shortest waits."""
    number, waited = 2, 0.0
    while waited < seconds:
        waited += min(BACKOFF_MAXIMUM, BACKOFF_INITIAL * 2 ** (number - 2)) / 2
        number += 1
    return number


def busiest(between: Interceptor, since: float) -> tuple[tuple[str, str], int]:
    """The verb and the path of the lists, or watches, that came most often since then (monotonic), and how often they came.

    Each resource counts for itself, so it does not matter how many the program watches.
    """
    counts = Counter((seen.verb, seen.path) for verb in ("list", "watch") for seen in between.seen(verb, "") if seen.at >= since)
    return max(counts.items(), key=lambda item: item[1], default=(("", ""), 0))
