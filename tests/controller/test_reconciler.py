"""What brings a stream to a worker, and what a worker makes of it while things change around it."""

import copy
import threading
from collections.abc import Callable
from typing import Any

import pytest
from mirrorstream.imagestream.model import RETRY_ANNOTATION, ImageStream, imagestream_from
from mirrorstream.rules.policy import MirrorPolicy
from mirrorstream.runtime.settings import Settings
from mirrorstream_controller.failing_tags import FailingState
from mirrorstream_controller.history import History
from mirrorstream_controller.plan import PlanSettings, plan_stream
from mirrorstream_controller.predicates import is_user_request
from mirrorstream_controller.results import ObservedImport, TagResult

from tests.controller.bed import EMPTY, EXCLUDING, FAILED, KEY, NO_RULES, WELL, Bed, asked, held, storing
from tests.controller.builders import IDMS, NOW, POLICY, Object, failure, item, stream


def test_streams_that_are_left_out_hold_up_nobody_when_the_rules_change() -> None:
    """10,000 of them, at 50 a second, are 200 seconds; nothing about them depends on the rules."""
    bed = Bed(controller=EXCLUDING)
    bed.reconciler.on_policy(NO_RULES)
    for number in range(10_000):
        bed.streams.known[f"not-{number % 7}", f"app{number}"] = FAILED
    bed.streams.known[KEY] = FAILED
    bed.reconciler.on_policy(MirrorPolicy.from_objects([]))
    assert bed.waiting() == [KEY], "at once"
    bed.time += 1000
    assert bed.waiting() == []


def test_streams_that_are_left_out_hold_up_nobody_when_the_configuration_changes() -> None:
    """Only what is left out from now on is looked at, to be forgotten: that takes no request, so it need not be spread."""
    bed = Bed(controller={"namespaces": {"exclude": ["not-*"]}})
    bed.reconciler.on_policy(NO_RULES)
    for number in range(10_000):
        bed.streams.known[f"not-{number % 7}", f"app{number}"] = FAILED
    bed.streams.known["nor", "app"] = FAILED
    bed.streams.known[KEY] = FAILED
    bed.reconciler.configure(Settings.model_validate({"controller": {"namespaces": {"exclude": ["not-*", "nor"]}}}))
    assert sorted(bed.work()) == [("nor", "app"), KEY]
    assert bed.counts() == {FailingState.OPTED_OUT: 1, FailingState.UNMIRRORED: 1}
    bed.time += 1000
    assert bed.waiting() == []


def test_streams_that_are_no_longer_left_out_are_looked_at() -> None:
    """Who includes a namespace wants it healed."""
    bed = Bed(controller=EXCLUDING)
    bed.reconciler.on_policy(NO_RULES)
    bed.see(("not-here", "app"), FAILED)
    bed.work()
    assert bed.counts() == {FailingState.OPTED_OUT: 1}
    bed.reconciler.configure(Settings())
    bed.work()
    assert bed.counts() == {FailingState.UNMIRRORED: 1}


def test_a_stream_that_is_left_out_is_looked_at_only_when_another_number_of_its_tags_fails() -> None:
    """A scheduled tag fails every quarter of an hour; all that there is to do about it is to count it."""
    bed = Bed(controller=EXCLUDING)
    bed.reconciler.on_policy(NO_RULES)
    key = ("not-here", "app")
    bed.see(key, FAILED)
    assert bed.work() == [key]
    bed.see(key, imagestream_from(stream({"conditions": [failure(3)]}, {"generation": 3})))
    assert bed.work() == []
    assert bed.counts() == {FailingState.OPTED_OUT: 1}
    bed.see(key, WELL)
    assert bed.work() == [key]
    assert bed.counts() == {}
    bed.see(key, FAILED)
    bed.work()
    bed.see(key, None)
    assert bed.work() == [key]
    assert bed.counts() == {}


@pytest.mark.parametrize("settings", [{}, {"controller": {"namespaces": {"exclude": ["ns"]}}}], ids=["covered", "left-out"])
@pytest.mark.parametrize("after", [WELL, None], ids=["well", "gone"])
def test_what_changes_while_a_worker_looks_at_it_is_looked_at_again(settings: Object, after: ImageStream | None) -> None:
    """Else the metric and the alert report a tag that no longer fails."""
    bed = Bed(**settings)
    bed.reconciler.on_policy(NO_RULES)
    bed.see(KEY, FAILED)
    bed.streams.after_get = lambda: bed.see(KEY, after)
    assert bed.work() == [KEY, KEY]
    assert bed.counts() == {}


def test_streams_that_were_and_are_well_cost_nothing() -> None:
    """Pushes and other writes are most of what a watch brings."""
    bed = Bed()
    bed.reconciler.on_policy(POLICY)
    bed.see(KEY, WELL)
    bed.see(KEY, WELL)
    assert bed.waiting() == []


# What a user asks for.

FAILED_AGAIN = stream({"items": [item(2)], "conditions": [failure(3)]}, {"generation": 3})
SCHEDULED_AGAIN = stream({"items": [item(2)], "conditions": [failure(3)]}, {"generation": 3, "importPolicy": {"scheduled": True}})
RETRIED = stream({"conditions": [failure()]}, annotations={RETRY_ANNOTATION: "1"})
EDITED = stream({"items": [item(2)]}, {"generation": 3})


@pytest.mark.parametrize(
    ("before", "after", "asked"),
    [
        pytest.param(FAILED, RETRIED, True, id="retry"),
        pytest.param(WELL, FAILED_AGAIN, True, id="import-image of a tag that was well"),
        pytest.param(EDITED, FAILED_AGAIN, True, id="an edit of a tag that was well, once it failed"),
        pytest.param(WELL, EDITED, False, id="the platform is still at it"),
        pytest.param(WELL, SCHEDULED_AGAIN, False, id="the platform's schedule"),
        pytest.param(EMPTY, FAILED, False, id="a new stream"),
        pytest.param(FAILED_AGAIN, FAILED_AGAIN, False, id="nothing new"),
        pytest.param(FAILED_AGAIN, WELL, False, id="a heal"),
    ],
)
def test_what_a_user_asks_for_is_told_from_what_comes_in_masses(before: Any, after: Any, asked: bool) -> None:
    """When a registry is lost, everything scheduled fails at once, and every new stream: nobody waits for any one of them."""
    old, new = (s if isinstance(s, ImageStream) else imagestream_from(s) for s in (before, after))
    assert is_user_request(old, new) is asked


def test_what_a_user_asks_for_overtakes_what_waits() -> None:
    """A new import goes before the others; the priority of one that waits already is raised."""
    bed = Bed()
    bed.reconciler.on_policy(POLICY)
    bed.see(KEY, FAILED)
    bed.work()
    assert bed.pool.priority == [False]
    bed.see(KEY, imagestream_from(RETRIED))
    bed.work()
    assert bed.pool.priority == [False]
    assert bed.pool.raised == [(KEY, "v1")]
    other = ("ns", "other")
    bed.see(other, WELL)
    bed.see(other, imagestream_from(FAILED_AGAIN))
    bed.work()
    assert bed.pool.priority == [False, True]


def test_a_user_who_waits_for_a_sample_waits_with_priority() -> None:
    """Its import is put off for five seconds; it does not wait for a storm after that."""
    bed = Bed()
    bed.reconciler.on_policy(POLICY)
    failed = copy.deepcopy(FAILED_AGAIN)
    failed["metadata"]["labels"] = {"samples.operator.openshift.io/managed": "true"}
    failed["status"]["tags"][0]["conditions"][0]["lastTransitionTime"] = "2027-01-15T08:00:00Z"
    bed.see(KEY, WELL)
    bed.see(KEY, imagestream_from(failed))
    bed.work()
    assert bed.pool.priority == []
    bed.time += 5.1
    bed.work()
    assert bed.pool.priority == [True]
    assert not bed.reconciler._priority


# A mirror with another image than the source had.


def test_what_is_held_is_told_once_for_each_attempt() -> None:
    """The Event names the image, its mirror, and when the tag gets it."""
    bed = Bed()
    bed.platform.digest = "sha256:bb"
    bed.reconciler.on_policy(POLICY)
    bed.see(KEY, held())
    assert bed.settle() == 1
    ((reason, message, attempt),) = bed.events
    assert reason == "MirrorImportHeld"
    assert "m.io/x/team/app:v1 serves another image than the source did; from 2027-01-15T09:00:00Z on" in message
    assert message.endswith("sha256:bb")
    assert (attempt.tag, attempt.result, attempt.candidates[0].reference) == ("v1", "held", "m.io/x/team/app:v1")
    bed.queue.add(KEY)
    assert bed.settle() == 0
    assert len(bed.events) == 1, "a look is no attempt"
    bed.time += 900
    bed.see(KEY, held(3))
    assert bed.settle() == 1
    assert bed.events[1] == bed.events[0], "of what is the same only the count rises"


def test_a_mirror_that_does_not_have_the_other_image_any_more_holds_nothing() -> None:
    """The tag is tried again after its back-off, and not when the image that was there would have been due."""
    bed = Bed()
    bed.platform.digest = "sha256:bb"
    bed.reconciler.on_policy(POLICY)
    bed.see(KEY, held())
    bed.settle()
    assert bed.counts() == {FailingState.HELD: 1}
    bed.platform.digest = ""
    bed.time += 900
    bed.see(KEY, held(3))
    assert bed.settle() == 1
    assert bed.counts() == {FailingState.FAILING: 1}
    bed.time += 10
    assert bed.settle() == 1


# Who asks for another attempt.


@pytest.mark.parametrize("digest", ["", "sha256:bb"], ids=["fails", "is-held"])
def test_an_attempt_that_runs_when_a_retry_is_asked_for_is_not_the_one_that_was_asked_for(digest: str) -> None:
    """It began before: there is one more, at once, and that one is told."""
    bed = Bed()
    bed.platform.digest = digest
    bed.reconciler.on_policy(POLICY)
    bed.see(KEY, asked("first", was_imported=True))
    bed.work()
    assert len(bed.pool.imports) == 1
    bed.see(KEY, asked("second", was_imported=True))
    assert bed.settle() == 2
    assert [attempt.retry_token for _, _, attempt in bed.events] == ["second"]
    assert bed.settle() == 0, "the back-off, or the wait, holds as ever"
    bed.time += 4
    assert bed.settle() == 0


# Observing.


def test_an_observer_tells_what_would_heal_from_what_the_mirrors_lack() -> None:
    """And goes on asking for what they lack."""
    bed = Bed(mode="observe")
    bed.reconciler.on_policy(POLICY)
    bed.see(KEY, FAILED)
    assert bed.settle() == 1
    assert bed.counts() == {FailingState.FAILING: 1}
    assert bed.reconciler.failing.oldest() is None, "nothing that an alert asks for"
    bed.platform.digest = "sha256:aa"
    bed.time += 10
    assert bed.settle() == 1
    assert bed.counts() == {FailingState.OBSERVED: 1}
    bed.time += 10_000
    assert bed.settle() == 0
    assert bed.events == []


def test_what_was_fetched_by_an_observer_is_fetched_again_before_it_is_recorded() -> None:
    """An observer makes no Image: a tag that points to none cannot be pulled."""
    bed = Bed(mode="observe")
    bed.reconciler.on_policy(POLICY)
    bed.see(KEY, FAILED)
    bed.work()
    bed.pool.imports.clear()
    (plan,) = plan_stream(FAILED, POLICY, PlanSettings(), History(), NOW)
    bed.reconciler.configure(Settings())
    result = TagResult(plan, "v1", "sha256:aa", "src.io/team/app@sha256:aa", "m.io/x/team/app:v1", "ImageDigestMirrorSet/m")
    bed.reconciler._on_done(KEY, ObservedImport(plan, (result,)))
    bed.work()
    assert len(bed.pool.imports) == 1, "again, and this time with its Image"


# What changes while an import runs, or while what it brought waits for the others.


BLOCKED = MirrorPolicy.from_objects(
    [IDMS, {"kind": "Image", "metadata": {"name": "cluster"}, "spec": {"registrySources": {"blockedRegistries": ["src.io"]}}}]
)
OPTED_OUT = stream({"conditions": [failure()]}, annotations={"mirrorstream.github.io/import": "disabled"})
CHANGES_IN_BETWEEN: list[Any] = [
    pytest.param(lambda bed: bed.reconciler.on_policy(BLOCKED), id="the-source-is-blocked"),
    pytest.param(lambda bed: bed.reconciler.on_policy(NO_RULES), id="the-rule-goes"),
    pytest.param(lambda bed: bed.see(KEY, imagestream_from(OPTED_OUT)), id="it-opts-out"),
    pytest.param(lambda bed: bed.platform.document.update(OPTED_OUT), id="it-opts-out-unseen"),
    pytest.param(lambda bed: bed.reconciler.configure(Settings(mode="observe")), id="only-an-observer"),
]


@pytest.mark.parametrize("change", CHANGES_IN_BETWEEN)
@pytest.mark.parametrize("runs", [True, False], ids=["runs", "waits-to-be-recorded"])
def test_what_is_forbidden_meanwhile_is_not_recorded(change: Callable[[Bed], None], *, runs: bool) -> None:
    """A mirror may take a minute; a blocked source or an opt-out in that minute counts."""
    bed = Bed()
    platform = storing(bed, stream({"conditions": [failure()]}))
    bed.see(KEY, FAILED)
    bed.work()
    assert len(bed.pool.imports) == 1
    if not runs:
        bed.pool.run()
    change(bed)
    bed.settle()
    bed.time += 1000
    bed.settle()
    assert platform.written == []


def test_what_nothing_happened_to_meanwhile_is_recorded() -> None:
    """Other rules for other sources included."""
    bed = Bed()
    platform = storing(bed, stream({"conditions": [failure()]}))
    bed.see(KEY, FAILED)
    bed.work()
    other = {**IDMS, "metadata": {"name": "n"}, "spec": {"imageDigestMirrors": [{"source": "else.io", "mirrors": ["m.io/y"]}]}}
    bed.reconciler.on_policy(MirrorPolicy.from_objects([IDMS, other]))
    assert bed.settle() == 1
    assert len(platform.written) == 1


def test_a_stream_that_was_replaced_unseen_is_imported_after_the_back_off() -> None:
    """Not again and again, for as long as the watch is behind."""
    bed = Bed()
    platform = storing(bed, stream({"conditions": [failure()]}))
    platform.document["metadata"]["uid"] = "another"
    bed.see(KEY, FAILED)
    assert bed.settle() == 1
    bed.time += 1
    assert bed.settle() == 0
    bed.time += 1000
    assert bed.settle() == 1


def test_a_busy_api_server_is_left_alone_for_as_long_as_it_asks() -> None:
    """Even where the back-off is shorter."""
    bed = Bed()
    bed.reconciler.on_policy(POLICY)
    bed.platform.busy = 30
    bed.see(KEY, FAILED)
    assert bed.settle() == 1
    bed.time += 29.9
    assert bed.settle() == 0
    bed.time += 0.2
    assert bed.settle() == 1


def test_what_a_user_waits_for_is_recorded_without_the_others() -> None:
    """Of a stream with slow tags, too: those get a write of their own."""
    document = stream({"conditions": [failure()]}, annotations={RETRY_ANNOTATION: "1"})
    more = {"name": "v2", "from": {"kind": "DockerImage", "name": "src.io/team/app:v2"}, "generation": 2}
    document["spec"]["tags"].append(more)
    document["status"]["tags"].append({"tag": "v2", "conditions": [failure()]})
    before = copy.deepcopy(document)
    before["metadata"]["annotations"] = {}
    written = []
    for by_user in (False, True):
        bed = Bed()
        platform = storing(bed, document if by_user else before)
        bed.see(KEY, imagestream_from(before))
        bed.work()
        if by_user:
            bed.see(KEY, imagestream_from(document))
            bed.work()
        bed.pool.imports.pop(0)()
        bed.work()
        written.append(len(platform.written))
    assert written == [0, 1]


def test_the_watch_never_waits_for_the_workers() -> None:
    """A watch that took turns with eight of them for a lock fell behind by half a minute."""
    bed = Bed()
    bed.reconciler.on_policy(POLICY)
    bed.see(KEY, FAILED)
    bed.work()
    watch = threading.Thread(target=lambda: bed.see(KEY, imagestream_from(RETRIED)), daemon=True)
    with bed.reconciler._states[KEY]._lock:
        watch.start()
        watch.join(60)
        assert not watch.is_alive()
