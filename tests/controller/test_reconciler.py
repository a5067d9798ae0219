"""What brings a stream to a worker, and what a worker makes of it while things change around it."""

from collections.abc import Callable
from typing import Any

import pytest
from mirrorstream.imagestreams import ImageStream, imagestream_from
from mirrorstream.kube.events import EventRecorder
from mirrorstream.kube.informer import Change
from mirrorstream.policy import MirrorPolicy
from mirrorstream.settings import Settings
from mirrorstream_controller.failing import State
from mirrorstream_controller.metrics import ControllerMetrics
from mirrorstream_controller.pool import ImportPool
from mirrorstream_controller.reconciler import Reconciler
from mirrorstream_controller.workqueue import WorkQueue

from tests.controller.test_plan import NOW, POLICY, Object, failure, item, stream

Key = tuple[str, str]
KEY = ("ns", "app")
NO_RULES = MirrorPolicy.from_objects([])
WELL = imagestream_from(stream({"items": [item()]}))
FAILED = imagestream_from(stream({"conditions": [failure()]}))
EXCLUDING: Object = {"namespaces": {"exclude": ["not-*"]}}


class Streams:
    """An informer of streams; `get` answers what there is, then calls `meanwhile`, once."""

    def __init__(self) -> None:
        self.known: dict[Key, ImageStream] = {}
        self.meanwhile: Callable[[], None] | None = None

    def get(self, key: Key) -> ImageStream | None:
        """The stream as it is now."""
        found = self.known.get(key)
        if self.meanwhile:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        return found

    def all_keys(self) -> list[Key]:
        """Every stream's."""
        return list(self.known)


class Bed:
    """A reconciler with a queue on a clock that stands still until it is moved, and with nobody behind it."""

    def __init__(self, **settings: Any) -> None:
        nobody: Any = None
        self.time = 1000.0
        self.queue = WorkQueue(clock=lambda: self.time)
        self.streams = Streams()
        self.reconciler = Reconciler(
            nobody,
            self.queue,
            ImportPool(1),
            EventRecorder(nobody, "mirrorstream", "test"),
            ControllerMetrics(),
            Settings.model_validate(settings),
            now=lambda: NOW,
            clock=lambda: self.time,
        )
        informer: Any = self.streams
        self.reconciler.informer = informer

    def see(self, key: Key, new: ImageStream | None) -> None:
        """Have the watch bring a stream."""
        old = self.streams.known.pop(key, None)
        if new:
            self.streams.known[key] = new
        self.reconciler.on_stream(Change(key, old, new))

    def waiting(self) -> list[Key]:
        """Take what waits for a worker now; it is given back at once."""
        found = []
        while key := self.queue.get(timeout=0):
            found.append(key)
            self.queue.done(key)
        return found

    def work(self) -> list[Key]:
        """Look at what waits, as a worker does; what was looked at."""
        found = []
        while key := self.queue.get(timeout=0):
            found.append(key)
            self.reconciler.reconcile(key)
            self.queue.done(key)
        return found

    def counts(self) -> dict[State, int]:
        """What fails, as the metric says it."""
        return {state: count for state, count in self.reconciler.failing.counts().items() if count}


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
    assert bed.counts() == {State.EXCLUDED: 1, State.UNCOVERED: 1}
    bed.time += 1000
    assert bed.waiting() == []


def test_streams_that_are_no_longer_left_out_are_looked_at() -> None:
    """Who includes a namespace wants it healed."""
    bed = Bed(controller=EXCLUDING)
    bed.reconciler.on_policy(NO_RULES)
    bed.see(("not-here", "app"), FAILED)
    bed.work()
    assert bed.counts() == {State.EXCLUDED: 1}
    bed.reconciler.configure(Settings())
    bed.work()
    assert bed.counts() == {State.UNCOVERED: 1}


def test_a_stream_that_is_left_out_is_looked_at_only_when_another_number_of_its_tags_fails() -> None:
    """A scheduled tag fails every quarter of an hour; all that there is to do about it is to count it."""
    bed = Bed(controller=EXCLUDING)
    bed.reconciler.on_policy(NO_RULES)
    key = ("not-here", "app")
    bed.see(key, FAILED)
    assert bed.work() == [key]
    bed.see(key, imagestream_from(stream({"conditions": [failure(3)]}, {"generation": 3})))
    assert bed.work() == []
    assert bed.counts() == {State.EXCLUDED: 1}
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
    """Else the metric, and the alert, say for ever that a tag fails which does not."""
    bed = Bed(**settings)
    bed.reconciler.on_policy(NO_RULES)
    bed.see(KEY, FAILED)
    bed.streams.meanwhile = lambda: bed.see(KEY, after)
    assert bed.work() == [KEY, KEY]
    assert bed.counts() == {}


def test_streams_that_were_and_are_well_cost_nothing() -> None:
    """Pushes and other writes are most of what a watch brings."""
    bed = Bed()
    bed.reconciler.on_policy(POLICY)
    bed.see(KEY, WELL)
    bed.see(KEY, WELL)
    assert bed.waiting() == []
