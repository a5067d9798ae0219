"""A cluster that is too large to be measured here: straight lines through what was measured, and which bound they reach first."""

from dataclasses import dataclass
from pathlib import Path

import yaml
from mirrorstream.kube.informer import PAGE_SIZE

from e2e.bench.figures import Figure
from e2e.bench.population import TAGS

DEPLOYMENTS = Path(__file__).parents[2] / "config" / "base"
STREAMS = 100_000
SYNC_SECONDS = 10.0
"""The promise for 10,000 streams; more would be slow, and still work."""
PAGES_SECONDS = 300.0
"""kube-apiserver compacts etcd every five minutes: a list whose pages take longer has to begin anew."""
_UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


@dataclass(frozen=True)
class Point:
    """What was measured at one size: memory in MB, seconds from the start to the readiness."""

    streams: int
    memory: float
    seconds: float


@dataclass(frozen=True)
class Line:
    """`base` and what each stream adds to it."""

    base: float
    slope: float

    def at(self, streams: int) -> float:
        """The value for so many streams."""
        return self.base + self.slope * streams

    def reaches(self, value: float) -> float:
        """For how many streams it is `value`; infinite if it never is."""
        return (value - self.base) / self.slope if self.slope > 0 else float("inf")


def line(points: list[tuple[float, float]]) -> Line:
    """The line of least squares."""
    count = len(points)
    middle_x, middle_y = sum(x for x, _ in points) / count, sum(y for _, y in points) / count
    spread = sum((x - middle_x) ** 2 for x, _ in points)
    slope = sum((x - middle_x) * (y - middle_y) for x, y in points) / spread
    return Line(middle_y - slope * middle_x, slope)


def requested(name: str) -> float:
    """The memory that the manifest of a program requests, in MB."""
    document = yaml.safe_load((DEPLOYMENTS / name / "deployment.yaml").read_text(encoding="utf-8"))
    (container,) = document["spec"]["template"]["spec"]["containers"]
    text = container["resources"]["requests"]["memory"]
    return float(text[:-2]) * _UNITS[text[-2:]] / 1e6


def figures(name: str, points: list[Point]) -> list[Figure]:
    """What a stream adds, and what 100,000 of them would need."""
    memory = line([(point.streams, point.memory) for point in points])
    seconds = line([(point.streams, point.seconds) for point in points])
    bounds = {
        f"the {requested(name):.0f} MB of memory that its manifest requests (no limit: the node has to have more)": memory.reaches(
            requested(name)
        ),
        f"{SYNC_SECONDS:.0f} s until it is ready": seconds.reaches(SYNC_SECONDS),
        f"{PAGES_SECONDS:.0f} s, for which the pages of a list can be asked for": seconds.reaches(PAGES_SECONDS),
    }
    order = sorted(bounds.items(), key=lambda bound: bound[1])
    measured = ", ".join(f"{p.streams:,}: {p.memory:.0f} MB, {p.seconds:.1f} s" for p in points)
    (first, at), *later = order
    then = "; then ".join(f"{bound} at {_streams(reached)}" for bound, reached in later)
    return [
        Figure(
            f"{name}: memory for each stream of {TAGS} tags",
            memory.slope * 1e3,
            "kB",
            None,
            f"measured at {measured}",
            "The slope of the line of least squares through the sizes measured.",
        ),
        Figure(
            f"{name}, {STREAMS:,} streams, on paper: memory",
            memory.at(STREAMS),
            "MB",
            None,
            f"ready after {seconds.at(STREAMS):.0f} s, {STREAMS // PAGE_SIZE} pages; first {first} at {_streams(at)}; then {then}",
            "Computed from those lines; nobody has run it.",
        ),
    ]


def _streams(number: float) -> str:
    """A number of streams, as rough as it is."""
    return "no number of streams" if number == float("inf") else f"{float(f'{number:.2g}'):,.0f} streams"
