"""How much is told: one Event for a stream and its pass, whatever number of tags the stream has."""

import json

from e2e.scenarios.conftest import Start
from e2e.testbed.cluster import Namespace
from e2e.testbed.streams import tag
from e2e.testbed.support.waiting import wait_for

STREAMS, TAGS = 50, 271
"""As the samples operator ships for x86_64."""
EVENTS_PER_STREAM = 1.2


def test_the_shipped_samples_have_about_one_event_for_each_stream(ns: Namespace, start: Start) -> None:
    """An Event for each of 271 tags was a third of all requests; every tag's answers are in one of them all the same."""
    shape = {f"app{number}": TAGS // STREAMS + (number < TAGS % STREAMS) for number in range(STREAMS)}
    names = {(stream, f"v{number}") for stream, count in shape.items() for number in range(count)}
    assert len(names) == TAGS
    for stream, name in names:
        ns.put("good", f"{stream}:{name}")
    ns.digest_mirrors()
    for stream, count in shape.items():
        ns.create(stream, *(tag(f"v{number}", ns.source(f"{stream}:v{number}")) for number in range(count)))
    start()

    def told() -> set[tuple[str, str]] | None:
        events = ns.client.get(f"/api/v1/namespaces/{ns.name}/events")["items"]
        attempts = [
            (event["involvedObject"]["name"], attempt)
            for event in events
            for attempt in json.loads(event["metadata"]["annotations"]["mirrorstream.github.io/outcome"])
        ]
        imported = {(stream, attempt["tag"]) for stream, attempt in attempts if attempt["result"] == "imported"}
        if imported != names:
            return None
        assert len(events) <= EVENTS_PER_STREAM * STREAMS
        return imported

    wait_for("every tag's heal is told", told, seconds=120)
