"""Events: written once, counted up after that, and told apart by everything that they say."""

import tracemalloc
from typing import Any

import pytest
from mirrorstream.kube.client import Client
from mirrorstream.kube.events import NORMAL, EventRecorder, Involved

from e2e.testbed.support.waiting import PATIENCE
from tests.kube.conftest import Request, Script

STREAM = Involved("image.openshift.io/v1", "ImageStream", "ns", "app", "u")


@pytest.fixture
def written(script: Script) -> list[tuple[str, Any]]:
    """The requests that are made, with their bodies."""
    found: list[tuple[str, Any]] = []

    def handle(request: Request) -> None:
        found.append((request.command, request.body))
        request.answer(201, {})

    script.handle = handle
    return found


def _record(client: Client, *events: tuple[str, tuple[tuple[str, str], ...]]) -> None:
    recorder = EventRecorder(client, "mirrorstream", "me")
    recorder.start()
    for message, annotations in events:
        recorder.event(STREAM, NORMAL, "Reason", message, annotations)
    recorder.stop()


def test_annotations_are_written(client: Client, written: list[tuple[str, Any]]) -> None:
    """Programs read them."""
    _record(client, ("m", (("a/b", "{}"),)), ("n", ()))
    assert [body["metadata"].get("annotations") for _, body in written] == [{"a/b": "{}"}, None]
    assert written[0][1]["involvedObject"]["uid"] == "u"


@pytest.mark.parametrize(
    ("second", "verbs"),
    [(("m", (("a", "1"),)), ["POST", "PATCH"]), (("m", (("a", "2"),)), ["POST", "POST"]), (("n", (("a", "1"),)), ["POST", "POST"])],
    ids=["the-same", "another-annotation", "another-message"],
)
def test_only_the_same_event_is_counted_up(client: Client, written: list[tuple[str, Any]], second: Any, verbs: list[str]) -> None:
    """A message is cut; its annotation may still differ, and must not stay the first one's."""
    _record(client, ("m", (("a", "1"),)), second)
    assert [verb for verb, _ in written] == verbs


def test_a_namespace_with_thousands_of_events_delays_only_its_own(
    client: Client, written: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Namespaces take turns, and what one has too many of is dropped and counted."""
    monkeypatch.setattr("mirrorstream.kube.events.NAMESPACE_LIMIT", 20)
    dropped: list[int] = []
    recorder = EventRecorder(client, "mirrorstream", "me", on_drop=lambda: dropped.append(1))
    greedy, modest = (Involved("v1", "ImageStream", name, "app", "u") for name in ("greedy", "modest"))
    for number in range(27):
        recorder.event(greedy, NORMAL, "Reason", f"m{number}")
    recorder.event(modest, NORMAL, "Reason", "m")
    recorder.start()
    recorder.stop(PATIENCE)
    namespaces = [body["metadata"]["namespace"] for _, body in written]
    assert "modest" in namespaces[:2]
    assert namespaces.count("greedy") == 20
    assert len(dropped) == 7


def test_of_what_was_written_little_is_kept(client: Client, script: Script) -> None:
    """Thousands of Events are remembered, so that the same again is counted up; their texts would be a hundred megabytes."""
    counted = []

    def handle(request: Request) -> None:
        counted.append(request.command)
        request.answer(201, {})

    script.handle = handle
    recorder = EventRecorder(client, "mirrorstream", "me")
    recorder.start()
    tracemalloc.start()
    try:
        for number in [*range(100), *range(100)]:
            recorder.event(STREAM, NORMAL, "Reason", f"{number} " + 1000 * "m", (("a/b", f"{number} " + 50_000 * "a"),))
        recorder.stop(PATIENCE)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert counted == ["POST"] * 100 + ["PATCH"] * 100
    assert kept < 1_000_000, "of 5 MB"
