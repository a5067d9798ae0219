"""What is made of measured figures: lines through them, and records."""

from typing import Any

import pytest

from e2e.bench import paper, record
from e2e.bench.__main__ import MEASUREMENTS
from e2e.bench.figures import Figure

Object = dict[str, Any]
MACHINE = {"cores": 2, "processor": "P", "architecture": "a", "memoryGB": 8, "kernel": "Linux 6"}


def recorded(*figures: Figure, name: str = "scale") -> Object:
    """A document of one group."""
    each = {"name": name, "title": "Scale", "about": "About.", "date": "2026-01-01T12:00:00+00:00", "loadBefore": 0.1}
    document = {"versions": {"mirrorstream": "1"}, "machine": MACHINE}
    return {**document, "groups": [{**each, "figures": [figure.document() for figure in figures]}]}


def test_a_line_goes_through_what_was_measured() -> None:
    """What a stream adds, and where a bound is reached, follow from the measurements alone."""
    line = paper.line([(0, 90.0), (1_000, 100.0), (10_000, 190.0)])
    assert line.slope == pytest.approx(0.01)
    assert line.at(100_000) == pytest.approx(1090)
    assert line.reaches(134) == pytest.approx(4_400)
    assert paper.line([(0, 1.0), (1, 1.0)]).reaches(2) == float("inf")


def test_what_breaks_first_is_told_first() -> None:
    """The memory that the manifest requests, if the measured slope is steep; otherwise what comes before it."""
    steep = [paper.Point(streams, 90 + streams / 100, 1 + streams / 5_000) for streams in (0, 1_000, 10_000)]
    flat = [paper.Point(streams, 90.0, 1 + streams / 5_000) for streams in (0, 1_000, 10_000)]
    assert f"first the {paper.requested('controller'):.0f} MB of memory" in paper.figures("controller", steep)[1].beside
    assert "first 10 s until it is ready at 45,000 streams" in paper.figures("controller", flat)[1].beside


def test_a_missed_limit_is_seen_on_the_page() -> None:
    """Nobody has to compare numbers."""
    text = record.page(recorded(Figure("slow", 2.0, "s", 1.0, "a|b"), Figure("fast", 0.5, "s", 1.0), Figure("told", 1234.0, "kB")))
    assert r"| slow | **2 s, missed** | 1 s | a\|b |" in text
    assert "| fast | 0.5 s | 1 s |  |" in text
    assert "| told | 1,234 kB |  |  |" in text
    assert "- Limits missed: slow." in text


def test_some_groups_are_recorded_beside_the_others_of_the_same_machine() -> None:
    """And never beside those of another: a page has one machine and one version."""
    old = recorded(Figure("a", 1.0, "s"), name="rules")
    new = recorded(Figure("b", 1.0, "s"), name="scale")
    order = ["rules", "scale"]
    assert [each["name"] for each in record.merged(new, old, order)["groups"]] == order
    with pytest.raises(record.OtherMachineError, match="rules: recorded on another machine"):
        record.merged({**new, "machine": {**MACHINE, "cores": 4}}, old, order)
    assert (
        record.merged({**new, "machine": {**MACHINE, "cores": 4}}, recorded(Figure("b", 2.0, "s")), order)["groups"]
        == new["groups"]
    )


def test_the_machine_and_the_versions_are_told() -> None:
    """What a figure means depends on them."""
    assert set(record.versions()) == {"mirrorstream", "Python", "kube-apiserver", "etcd"}
    assert record.machine()["memoryGB"] > 0
    assert record.machine()["cores"] > 0


def test_groups_have_names_of_their_own() -> None:
    """`make bench ONLY=NAME` measures one of them."""
    names = [measurement.name for measurement in MEASUREMENTS]
    assert len(set(names)) == len(names)
