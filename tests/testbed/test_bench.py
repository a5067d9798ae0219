"""What is made of measured figures: lines through them, quantiles, and records."""

from collections import Counter, defaultdict
from typing import Any

import pytest

from e2e.bench import creation, figures
from e2e.bench.__main__ import MEASUREMENTS
from e2e.bench.figures import Figure
from e2e.bench.histograms import read_histogram
from e2e.bench.policy import largest
from e2e.bench.scale import Start, each_stream, requested

Object = dict[str, Any]
MACHINE = {"cores": 2, "processor": "P", "architecture": "a", "memoryGB": 8, "kernel": "Linux 6"}
EARLIER = """
# TYPE wait_seconds histogram
wait_seconds_bucket{name="a",le="0.005"} 10
wait_seconds_bucket{name="a",le="0.025"} 10
wait_seconds_bucket{name="a",le="+Inf"} 10
wait_seconds_sum{name="a"} 0.02
wait_seconds_count{name="a"} 10
"""
LATER = """
wait_seconds_bucket{name="a",le="0.005"} 100
wait_seconds_bucket{name="a",le="0.025"} 109
wait_seconds_bucket{name="a",le="+Inf"} 110
wait_seconds_bucket{name="b",le="0.005"} 0
wait_seconds_bucket{name="b",le="0.025"} 1000
wait_seconds_bucket{name="b",le="+Inf"} 1000
wait_seconds_sum{name="a"} 0.32
wait_seconds_sum{name="b"} 20
"""


def recorded(*measured: Figure, name: str = "scale") -> Object:
    """A document of one group."""
    each = {"name": name, "title": "Scale", "about": "About.", "date": "2026-01-01T12:00:00+00:00", "loadBefore": 0.1}
    document = {"versions": {"mirrorstream": "1"}, "machine": MACHINE}
    return {**document, "groups": [{**each, "figures": [figure.document() for figure in measured]}]}


def test_what_a_stream_adds_is_told_with_what_fits() -> None:
    """The slope through the sizes, and how many streams the manifest's request is enough for."""
    empty = requested("controller") - 100
    (figure,) = each_stream("controller", [Start(streams, 1, 0, empty + streams / 100) for streams in (0, 1_000, 10_000)])
    assert figure.value == pytest.approx(10.0), "kB"
    assert not figure.kept
    assert "; 10,000 streams fit into" in figure.beside
    (flat,) = each_stream("controller", [Start(streams, 1, 0, empty) for streams in (0, 1_000, 10_000)])
    assert "any number of streams" in flat.beside, "memory that does not grow"


def test_a_missed_limit_is_seen_on_the_page() -> None:
    """Nobody has to compare numbers."""
    text = figures.page(recorded(Figure("slow", 2.0, "s", 1.0, "a|b"), Figure("fast", 0.5, "s", 1.0), Figure("told", 1234.0, "kB")))
    assert r"| slow | **2 s, missed** | 1 s | a\|b |" in text
    assert "| fast | 0.5 s | 1 s |  |" in text
    assert "| told | 1,234 kB |  |  |" in text
    assert "- Limits missed: slow." in text


def test_some_groups_are_recorded_beside_the_others_of_the_same_machine() -> None:
    """And never beside those of another: a page has one machine and one version."""
    old = recorded(Figure("a", 1.0, "s"), name="rules")
    new = recorded(Figure("b", 1.0, "s"), name="scale")
    order = ["rules", "scale"]
    assert [each["name"] for each in figures.merged(new, old, order)["groups"]] == order
    with pytest.raises(figures.OtherMachineError, match="rules: recorded on another machine"):
        figures.merged({**new, "machine": {**MACHINE, "cores": 4}}, old, order)
    assert (
        figures.merged({**new, "machine": {**MACHINE, "cores": 4}}, recorded(Figure("b", 2.0, "s")), order)["groups"]
        == new["groups"]
    )


def test_the_machine_and_the_versions_are_told() -> None:
    """What a figure means depends on them."""
    assert set(figures.versions()) == {"mirrorstream", "Python", "kube-apiserver", "etcd"}
    assert figures.machine()["memoryGB"] > 0
    assert figures.machine()["cores"] > 0


def test_groups_have_names_of_their_own() -> None:
    """`make bench ONLY=NAME` measures one of them."""
    names = [measurement.name for measurement in MEASUREMENTS]
    assert len(set(names)) == len(names)


def test_only_what_was_observed_between_two_readings_counts() -> None:
    """Of the series that is asked for; others of the same metric are not ours."""
    found = read_histogram(LATER, "wait_seconds", name="a") - read_histogram(EARLIER, "wait_seconds", name="a")
    assert found.count == 100
    assert found.mean == pytest.approx(0.003)
    assert found.share_within(0.005) == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        pytest.param(0.45, 0.0025, id="inside the first bucket, which begins at 0"),
        pytest.param(0.9, 0.005, id="at a bound"),
        pytest.param(0.95, 0.005 + 0.020 * 5 / 9, id="inside the second"),
        pytest.param(1.0, 0.025, id="beyond the last finite bound, that bound"),
    ],
)
def test_quantiles_are_interpolated_as_prometheus_does(share: float, expected: float) -> None:
    """So that the figure is the one that a dashboard shows."""
    found = read_histogram(LATER, "wait_seconds", name="a") - read_histogram(EARLIER, "wait_seconds", name="a")
    assert found.quantile(share) == pytest.approx(expected)


def test_a_level_is_judged_by_its_p99_and_by_pods_that_failed() -> None:
    """The ratio is to the run without a webhook; a failure in any way counts, and so does a pod that kept its image."""

    def created(seconds: float, patched: int) -> creation.Created:
        return creation.Created([seconds] * 100, 1.0, patched, cpu=defaultdict(float))

    found = {creation.WITHOUT: created(0.010, 0), creation.ONE: created(0.0105, 99)}
    found |= {creation.TWO: created(0.012, 100), creation.NOTHING: created(0.012, 100)}
    found[creation.TWO].failures = Counter({"status 500": 2})
    failed, kept, one, two, nothing = creation.figures(10, found)
    assert (failed.value, failed.kept, kept.value, kept.kept) == (2, False, 1, False)
    assert (one.value, one.kept, two.value, two.kept) == (pytest.approx(1.05), True, pytest.approx(1.2), False)
    assert nothing.kept, "what any webhook costs is only told"


@pytest.mark.parametrize("most", [1, 2, 3, 700, 1023, 1024])
def test_the_largest_possible_number_is_found_without_asking_far_beyond(most: int) -> None:
    """What is far beyond may take for ever to fail."""
    asked: list[int] = []

    def possible(number: int) -> bool:
        asked.append(number)
        return number <= most

    assert largest(1, 1, possible) == most
    assert max(asked) <= 2 * most
