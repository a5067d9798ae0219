"""Which tags count as failing, how, and since when: what an alert is raised by."""

from typing import Any

import pytest
from mirrorstream.imagestream.model import imagestream_from
from mirrorstream.rules.policy import MirrorPolicy
from mirrorstream_controller.failing_tags import FailingState, FailingTags
from mirrorstream_controller.plan import PlanSettings, plan_stream
from mirrorstream_controller.results import HeldImport
from mirrorstream_controller.stream_state import OBSERVED, StreamState

from tests.controller.builders import NOW, POLICY, REFUSED, Object, failure, item, stream

KEY = ("ns", "app")
FAILED = failure(lastTransitionTime="2027-01-15T07:50:00Z")
"""600 seconds before NOW."""


SAMPLE = stream({"items": [item(1)], "conditions": [failure(lastTransitionTime="2027-01-15T07:59:59Z")]})
SAMPLE["metadata"]["labels"] = {"samples.operator.openshift.io/managed": "true"}


def observe(
    document: Object, state: StreamState, policy: MirrorPolicy = POLICY, *, observing: bool = False, now: float = NOW
) -> Any:
    """What is counted for a stream: the states that are not zero, and since when the oldest tag in the state FAILING fails."""
    tags = FailingTags()
    projection = imagestream_from(document)
    plans = plan_stream(projection, policy, PlanSettings(), state.observe(projection, now), now)
    tags.observe(KEY, projection, plans, state, observing=observing, now=now)
    return {state: count for state, count in tags.counts().items() if count}, tags.oldest()


def backoff(failures: int) -> float:
    """The wait after so many failures."""
    return 5.0 * failures


def held(document: Object, until: float) -> StreamState:
    """The state of a stream whose tag is held."""
    state = StreamState("u", "", backoff)
    projection = imagestream_from(document)
    (plan,) = plan_stream(projection, POLICY, PlanSettings(), state.observe(projection, NOW), NOW)
    state.next_steps([plan], now=NOW, at=0, priority=False)
    state.finish(HeldImport(plan, "sha256:bb", plan.candidates[0], until), observing=False, at=0)
    return state


@pytest.mark.parametrize(
    ("document", "more", "expected"),
    [
        pytest.param(stream({"items": [item()]}), {}, ({}, None), id="well"),
        pytest.param(stream(), {}, ({}, None), id="pending"),
        pytest.param(stream({"conditions": [FAILED]}), {}, ({FailingState.FAILING: 1}, NOW - 600), id="failing"),
        pytest.param(stream({"conditions": [failure()]}), {}, ({FailingState.FAILING: 1}, NOW), id="without-a-time"),
        pytest.param(SAMPLE, {}, ({FailingState.FAILING: 1}, NOW - 1), id="waits-for-the-samples-operator"),
        pytest.param(stream({"conditions": [FAILED]}), {"observing": True}, ({FailingState.FAILING: 1}, None), id="observing"),
        pytest.param(
            stream({"conditions": [failure(message="registry src.io blocked", reason="Forbidden")]}),
            {},
            ({FailingState.REFUSED: 1}, None),
            id="refused",
        ),
        pytest.param(
            stream({"conditions": [FAILED]}),
            {"policy": MirrorPolicy.from_objects([])},
            ({FailingState.UNMIRRORED: 1}, None),
            id="unmirrored",
        ),
        pytest.param(
            stream({"conditions": [FAILED]}, annotations={"mirrorstream.github.io/import": "disabled"}),
            {},
            ({FailingState.OPTED_OUT: 1}, None),
            id="opted-out",
        ),
    ],
)
def test_states(document: Object, more: Object, expected: Object) -> None:
    """Only what mirrorstream would heal, and cannot, is FAILING."""
    assert observe(document, StreamState("u", "", backoff), **more) == expected


def test_a_held_tag_fails_once_it_has_been_held_for_long_enough() -> None:
    """Until then nobody has to be told."""
    document = stream({"items": [item(1)], "conditions": [FAILED]})
    state = held(document, NOW + 100)
    assert observe(document, state) == ({FailingState.HELD: 1}, None)
    assert observe(document, state, now=NOW + 100)[0] == {FailingState.FAILING: 1}


def test_an_observed_tag_is_one_that_a_mirror_serves() -> None:
    """Who observes first wants to know what would heal, and what the mirrors lack; neither is for the alert."""
    document = stream({"conditions": [FAILED]})
    assert observe(document, held(document, OBSERVED), observing=True) == ({FailingState.OBSERVED: 1}, None)


def test_a_message_that_changes_makes_no_failure_younger() -> None:
    """An ephemeral port in it is enough for the platform to give the condition a new date."""
    state = StreamState("u", "", backoff)
    first = stream({"conditions": [failure(message=f"{REFUSED} port 1", lastTransitionTime="2027-01-15T08:00:00Z")]})
    again = stream({"conditions": [failure(3, f"{REFUSED} port 2", lastTransitionTime="2027-01-15T08:15:00Z")]}, {"generation": 3})
    assert observe(first, state, now=NOW + 5) == ({FailingState.FAILING: 1}, NOW)
    assert observe(stream({"conditions": [failure()]}, {"generation": 3}), state, now=NOW + 890) == ({}, None), "pending again"
    assert observe(again, state, now=NOW + 900) == ({FailingState.FAILING: 1}, NOW)


def test_a_failure_after_a_success_is_another_one() -> None:
    """Whether the platform or mirrorstream imported it."""
    state = StreamState("u", "", backoff)
    observe(stream({"conditions": [FAILED]}), state, now=NOW)
    observe(stream({"items": [item()]}), state, now=NOW + 60)
    later = stream({"items": [item()], "conditions": [failure(3, lastTransitionTime="2027-01-15T09:00:00Z")]}, {"generation": 3})
    assert observe(later, state, now=NOW + 3601) == ({FailingState.FAILING: 1}, NOW + 3600)


def test_an_import_that_is_stuck_fails_from_the_moment_it_counts_as_stuck() -> None:
    """180 seconds after it was first seen pending."""
    state = StreamState("u", "", backoff)
    assert observe(stream(), state) == ({}, None)
    assert observe(stream(), state, now=NOW + 200) == ({FailingState.FAILING: 1}, NOW + 180)


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
    assert observe(document, StreamState("u", "", backoff)) == ({FailingState.FAILING: 1}, since)


def test_a_repository_that_is_asked_for_again_in_vain_fails_no_later_for_it() -> None:
    """An import of the stream's other tags gives the check a new date."""
    state = StreamState("u", "", backoff)
    assert observe(whole("2027-01-15T07:50:00Z"), state, now=NOW)[1] == NOW - 600
    assert observe(whole("2027-01-15T08:10:00Z"), state, now=NOW + 601)[1] == NOW - 600
    assert observe(stream({"items": [item()]}), state, now=NOW + 700) == ({}, None)


def test_counts_follow_streams_that_change_and_go() -> None:
    """A stream counts with what was last said of it."""
    tags = FailingTags()
    tags.put(("a", "one"), [FailingState.FAILING, FailingState.FAILING], 50)
    tags.put(("a", "two"), [FailingState.FAILING, FailingState.UNMIRRORED], 40)
    assert (tags.counts()[FailingState.FAILING], tags.counts()[FailingState.UNMIRRORED], tags.oldest()) == (3, 1, 40)
    tags.put(("a", "two"), ())
    tags.put(("a", "one"), [FailingState.REFUSED])
    assert (tags.counts()[FailingState.FAILING], tags.counts()[FailingState.REFUSED], tags.oldest()) == (0, 1, None)
