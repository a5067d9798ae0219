"""What is tried again, and when: the memory between two looks at a stream."""

import dataclasses
from typing import Any

import pytest
from mirrorstream.candidates import Candidate
from mirrorstream.imagestreams import imagestream_from
from mirrorstream_controller.memory import StreamMemory
from mirrorstream_controller.plan import Action, TagPlan
from mirrorstream_controller.recorder import TagResult

PLAN = TagPlan(
    "v1",
    Action.IMPORT,
    "",
    "src.io/a:v1",
    2,
    candidates=(Candidate("m.io/a:v1", False, "ImageDigestMirrorSet/m"),),
    failing_since=50,
)
RESULT = TagResult(PLAN, "v1", "sha256:aa", "src.io/a@sha256:aa", "m.io/a:v1", "ImageDigestMirrorSet/m")


def stream(generation: int, item: int = 0, failed: int = 0) -> Any:
    """A stream with one tag."""
    status: dict[str, Any] = {"tag": "v1"}
    if item:
        status["items"] = [{"image": "sha256:aa", "dockerImageReference": "x", "generation": item}]
    if failed:
        status["conditions"] = [{"type": "ImportSuccess", "status": "False", "generation": failed}]
    tag = {"name": "v1", "from": {"kind": "DockerImage", "name": "src.io/a:v1"}, "generation": generation}
    return imagestream_from({"metadata": {"name": "a"}, "spec": {"tags": [tag]}, "status": {"tags": [status]}})


@pytest.mark.parametrize(
    ("change", "now", "monotonic", "due"),
    [
        ({}, 0, 0, True),
        ({"tried": {"v1": PLAN.fingerprint}, "next_attempt": 10.0}, 0, 9, False),
        ({"tried": {"v1": PLAN.fingerprint}, "next_attempt": 10.0}, 0, 10, True),
        ({"tried": {"v1": ("something else",)}, "next_attempt": 10.0}, 0, 0, True),
        ({"running": {"v1": PLAN.fingerprint}}, 0, 0, False),
        ({"running": {"v1": ("something else",)}}, 0, 0, True),
        ({"tried": {"v1": PLAN.fingerprint}, "held_until": {"v1": 100.0}}, 99, 1e9, False),
        ({"tried": {"v1": PLAN.fingerprint}, "held_until": {"v1": 100.0}}, 100, 0, True),
        ({"tried": {"v1": PLAN.fingerprint}, "results": [RESULT]}, 0, 1e9, False),
    ],
    ids=[
        "never-tried",
        "backing-off",
        "its-turn",
        "changed",
        "running",
        "running-for-what-it-was",
        "held",
        "held-long-enough",
        "about-to-be-recorded",
    ],
)
def test_what_is_due(change: dict[str, Any], now: float, monotonic: float, due: bool) -> None:
    """A change is tried at once, everything else waits for its turn."""
    memory = StreamMemory("u", **change)
    assert memory.is_due(PLAN, now=now, monotonic=monotonic) is due
    assert not memory.is_due(dataclasses.replace(PLAN, action=Action.WAIT), now=now, monotonic=monotonic)


def test_pending_is_counted_from_when_it_was_first_seen_at_that_generation() -> None:
    """A new generation starts anew."""
    memory = StreamMemory("u")
    assert memory.look(stream(2), 100).pending_since == {"v1": 100}
    assert memory.look(stream(2), 150).pending_since == {"v1": 100}
    assert memory.look(stream(3), 160).pending_since == {"v1": 160}
    assert memory.look(stream(3, item=3), 170).pending_since == {}


def test_a_source_fails_until_the_platform_itself_succeeds() -> None:
    """Healing through a mirror, or a message that changes, does not make the failure younger."""
    memory = StreamMemory("u")
    assert memory.look(stream(2, failed=2), 100).failing_since == {"v1": 100}
    memory.healed(RESULT, 110)
    assert memory.look(stream(2, item=2), 120).failing_since == {"v1": 50}, "well only because of us"
    assert memory.look(stream(3, item=2, failed=3), 130).failing_since == {"v1": 50}
    assert memory.look(stream(4, item=4), 140).failing_since == {}, "the platform's own import"
    assert memory.idle
