"""Which tags count as failing, how, and since when: what an alert is raised by."""

import math
from typing import Any

import pytest
from mirrorstream.imagestreams import imagestream_from
from mirrorstream.policy import MirrorPolicy
from mirrorstream_controller.failing import FailingTags, State
from mirrorstream_controller.memory import StreamMemory
from mirrorstream_controller.plan import PlanSettings, plan_stream

from tests.controller.test_plan import NOW, POLICY, REFUSED, Object, failure, item, stream

KEY = ("ns", "app")
FAILED = failure(lastTransitionTime="2027-01-15T07:50:00Z")
"""600 seconds before NOW."""


def look(
    document: Object, memory: StreamMemory, policy: MirrorPolicy = POLICY, *, observing: bool = False, now: float = NOW
) -> Any:
    """What is counted after one look at a stream: the states that are not zero, and since when the oldest covered tag fails."""
    tags = FailingTags()
    projection = imagestream_from(document)
    plans = plan_stream(projection, policy, PlanSettings(), memory.look(projection, now), now)
    tags.look(KEY, projection, plans, memory, observing=observing, now=now)
    return {state: count for state, count in tags.counts().items() if count}, tags.oldest()


@pytest.mark.parametrize(
    ("document", "more", "expected"),
    [
        pytest.param(stream({"items": [item()]}), {}, ({}, None), id="well"),
        pytest.param(stream(), {}, ({}, None), id="pending"),
        pytest.param(stream({"conditions": [FAILED]}), {}, ({State.COVERED: 1}, NOW - 600), id="covered"),
        pytest.param(stream({"conditions": [failure()]}), {}, ({State.COVERED: 1}, NOW), id="without-a-time"),
        pytest.param(stream({"conditions": [FAILED]}), {"observing": True}, ({State.COVERED: 1}, None), id="observing"),
        pytest.param(
            stream({"conditions": [failure(message="registry src.io blocked", reason="Forbidden")]}),
            {},
            ({State.REFUSED: 1}, None),
            id="refused",
        ),
        pytest.param(
            stream({"conditions": [FAILED]}),
            {"policy": MirrorPolicy.from_objects([])},
            ({State.UNCOVERED: 1}, None),
            id="uncovered",
        ),
        pytest.param(
            stream({"conditions": [FAILED]}, annotations={"mirrorstream.github.io/import": "disabled"}),
            {},
            ({State.OPTED_OUT: 1}, None),
            id="opted-out",
        ),
    ],
)
def test_states(document: Object, more: Object, expected: Object) -> None:
    """Only what mirrorstream would heal, and cannot, is covered."""
    assert look(document, StreamMemory("u"), **more) == expected


def test_a_held_tag_is_covered_once_it_has_been_held_for_long_enough() -> None:
    """Until then nobody has to be told."""
    document = stream({"items": [item(1)], "conditions": [FAILED]})
    memory = StreamMemory("u", held_until={"v1": NOW + 100})
    assert look(document, memory) == ({State.HELD: 1}, None)
    assert look(document, memory, now=NOW + 100)[0] == {State.COVERED: 1}


def test_an_observed_tag_is_one_that_a_mirror_serves() -> None:
    """Who observes first wants to know what would heal, and what the mirrors lack; neither is for the alert."""
    memory = StreamMemory("u", held_until={"v1": math.inf})
    assert look(stream({"conditions": [FAILED]}), memory, observing=True) == ({State.OBSERVED: 1}, None)


def test_a_message_that_changes_makes_no_failure_younger() -> None:
    """An ephemeral port in it is enough for the platform to date the condition anew."""
    memory = StreamMemory("u")
    first = stream({"conditions": [failure(message=f"{REFUSED} port 1", lastTransitionTime="2027-01-15T08:00:00Z")]})
    again = stream({"conditions": [failure(3, f"{REFUSED} port 2", lastTransitionTime="2027-01-15T08:15:00Z")]}, {"generation": 3})
    assert look(first, memory, now=NOW + 5) == ({State.COVERED: 1}, NOW)
    assert look(stream({"conditions": [failure()]}, {"generation": 3}), memory, now=NOW + 890) == ({}, None), "pending again"
    assert look(again, memory, now=NOW + 900) == ({State.COVERED: 1}, NOW)


def test_a_failure_after_a_success_is_another_one() -> None:
    """Whoever made it succeed."""
    memory = StreamMemory("u")
    look(stream({"conditions": [FAILED]}), memory, now=NOW)
    look(stream({"items": [item()]}), memory, now=NOW + 60)
    later = stream({"items": [item()], "conditions": [failure(3, lastTransitionTime="2027-01-15T09:00:00Z")]}, {"generation": 3})
    assert look(later, memory, now=NOW + 3601) == ({State.COVERED: 1}, NOW + 3600)


def test_an_import_that_is_stuck_fails_from_the_moment_it_counts_as_stuck() -> None:
    """180 seconds after it was first seen pending."""
    memory = StreamMemory("u")
    assert look(stream(), memory) == ({}, None)
    assert look(stream(), memory, now=NOW + 200) == ({State.COVERED: 1}, NOW + 180)


def whole(checked: str) -> Object:
    """A whole repository that the platform found nothing in, at the time `checked`."""
    document = stream(annotations={"openshift.io/image.dockerRepositoryCheck": checked}, dockerImageRepository="src.io/team/app")
    document["spec"]["tags"] = []
    return document


@pytest.mark.parametrize(
    ("document", "since"),
    [
        pytest.param(stream({"conditions": [FAILED]}), NOW - 600, id="a-tag"),
        pytest.param(whole("2027-01-15T07:50:00Z"), NOW - 600, id="a-whole-repository"),
        pytest.param(whole("unreadable"), NOW, id="without-a-time"),
    ],
)
def test_a_new_leader_knows_since_when_it_fails(document: Object, since: float) -> None:
    """From the stream: the alert's hour does not begin again with each rollout."""
    assert look(document, StreamMemory("u")) == ({State.COVERED: 1}, since)


def test_a_repository_that_is_asked_for_again_in_vain_fails_no_later_for_it() -> None:
    """An import of the stream's other tags dates the check anew."""
    memory = StreamMemory("u")
    assert look(whole("2027-01-15T07:50:00Z"), memory, now=NOW)[1] == NOW - 600
    assert look(whole("2027-01-15T08:10:00Z"), memory, now=NOW + 601)[1] == NOW - 600
    assert look(stream({"items": [item()]}), memory, now=NOW + 700) == ({}, None)


def test_counts_follow_streams_that_change_and_go() -> None:
    """A stream counts with what was last said of it."""
    tags = FailingTags()
    tags.put(("a", "one"), [State.COVERED, State.COVERED], 50)
    tags.put(("a", "two"), [State.COVERED, State.UNCOVERED], 40)
    assert (tags.counts()[State.COVERED], tags.counts()[State.UNCOVERED], tags.oldest()) == (3, 1, 40)
    tags.put(("a", "two"), ())
    tags.put(("a", "one"), [State.REFUSED])
    assert (tags.counts()[State.COVERED], tags.counts()[State.REFUSED], tags.oldest()) == (0, 1, None)
