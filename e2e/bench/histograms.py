"""Histograms of an exposition, and the quantiles that a dashboard shows of them."""

import math
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Histogram:
    """`buckets` are (upper bound, how many are at most that), in order, the last bound infinite."""

    buckets: tuple[tuple[float, float], ...]
    total: float

    @property
    def count(self) -> float:
        """How many were observed."""
        return self.buckets[-1][1] if self.buckets else 0.0

    @property
    def mean(self) -> float:
        """Their mean."""
        return self.total / self.count

    def __sub__(self, earlier: "Histogram") -> "Histogram":
        """What was observed since an earlier reading."""
        before = dict(earlier.buckets)
        return Histogram(tuple((le, count - before.get(le, 0.0)) for le, count in self.buckets), self.total - earlier.total)

    def quantile(self, share: float) -> float:
        """As Prometheus' histogram_quantile: interpolated inside the bucket that it falls into; 0 is the first one's lower end."""
        wanted = share * self.count
        low, below = 0.0, 0.0
        for le, count in self.buckets:
            if count >= wanted:
                return low if math.isinf(le) else low + (le - low) * (wanted - below) / (count - below)
            low, below = le, count
        return low

    def share_within(self, bound: float) -> float:
        """The share that is at most `bound`, which is a bucket's."""
        return dict(self.buckets)[bound] / self.count


def read_histogram(text: str, metric: str, **labels: str) -> Histogram:
    """A histogram of an exposition, summed over the labels that are not named; empty if there is none."""
    buckets: dict[float, float] = {}
    total = 0.0
    for line in text.splitlines():
        series, _, value = line.rpartition(" ")
        name, _, rest = series.partition("{")
        if not name.startswith(metric):
            continue
        found = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        if any(found.get(key) != wanted for key, wanted in labels.items()):
            continue
        if name == f"{metric}_bucket":
            le = float(found["le"])
            buckets[le] = buckets.get(le, 0.0) + float(value)
        elif name == f"{metric}_sum":
            total += float(value)
    return Histogram(tuple(sorted(buckets.items())), total)
