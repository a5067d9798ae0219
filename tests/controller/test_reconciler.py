"""What brings a stream to a worker, and what a worker makes of it while things change around it."""

import copy
import threading
from collections.abc import Callable
from typing import Any

import pytest
from mirrorstream.attempts import OUTCOME_ANNOTATION, read_attempt
from mirrorstream.imagestreams import RETRY_ANNOTATION, ImageStream, imagestream_from
from mirrorstream.kube.client import ApiError
from mirrorstream.kube.informer import Change
from mirrorstream.policy import MirrorPolicy
from mirrorstream.settings import Settings
from mirrorstream_controller.changes import is_asked
from mirrorstream_controller.failing import State
from mirrorstream_controller.metrics import ControllerMetrics
from mirrorstream_controller.plan import Memory, PlanSettings, plan_stream
from mirrorstream_controller.reconciler import Reconciler
from mirrorstream_controller.recorder import Observed, TagResult
from mirrorstream_controller.workqueue import WorkQueue

from tests.controller.test_plan import IDMS, NOW, POLICY, Object, failure, item, stream

Key = tuple[str, str]
KEY = ("ns", "app")
NO_RULES = MirrorPolicy.from_objects([])
WELL = imagestream_from(stream({"items": [item()]}))
EMPTY = imagestream_from(stream())
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


class Platform:
    """An API server whose importer finds `digest` in every mirror, or nothing if that is empty; Images are the platform's own."""

    def __init__(self) -> None:
        self.digest = ""
        self.asked: list[str] = []
        self.busy: float | None = None
        """What Retry-After says, while it answers 429."""

    def request(self, method: str, path: str, *, body: Any = None, **more: Any) -> Any:
        """A dry run."""
        assert (method, path) == ("POST", "/apis/image.openshift.io/v1/namespaces/ns/imagestreamimports")
        self.asked.append(body["spec"]["images"][0]["from"]["name"])
        if self.busy is not None:
            raise ApiError(429, "TooManyRequests", "", retry_after=self.busy)
        if not self.digest:
            return {"status": {"images": [{"status": {"status": "Failure", "reason": "NotFound", "message": "not found"}}]}}
        return {"status": {"images": [{"status": {"status": "Success"}, "image": {"metadata": {"name": self.digest}}}]}}

    def get(self, path: str) -> Any:
        """An Image that mirrorstream did not make."""
        return {"metadata": {"name": path}}


class Pool:
    """Runs imports when it is told to."""

    def __init__(self) -> None:
        self.imports: list[Callable[[], None]] = []
        self.urgent: list[bool] = []
        self.hurried: list[object] = []

    def submit(self, namespace: str, host: str, work: Callable[[], None], **more: Any) -> None:
        """Take one."""
        self.imports.append(work)
        self.urgent.append(more["urgent"])

    def hurry(self, name: object) -> None:
        """Remember what came before others."""
        self.hurried.append(name)

    def resize(self, size: int) -> None:
        """Nothing to do."""

    def run(self) -> int:
        """Run what was asked for; how many that were."""
        done = 0
        while self.imports:
            self.imports.pop(0)()
            done += 1
        return done


class Bed:
    """A reconciler with a queue on a clock that stands still until it is moved."""

    def __init__(self, **settings: Any) -> None:
        self.time = 1000.0
        self.platform, self.pool = Platform(), Pool()
        self.events: list[tuple[str, str, Any]] = []
        self.queue = WorkQueue(clock=lambda: self.time)
        self.streams = Streams()
        fakes: list[Any] = [self.platform, self.queue, self.pool, self, ControllerMetrics(), Settings.model_validate(settings)]
        self.reconciler = Reconciler(*fakes, now=lambda: NOW + self.time - 1000, clock=lambda: self.time)
        informer: Any = self.streams
        self.reconciler.informer = informer

    def event(self, involved: Any, event_type: str, reason: str, message: str, annotations: Any) -> None:
        """Take an Event as the recorder does."""
        self.events.append((reason, message, read_attempt(dict(annotations)[OUTCOME_ANNOTATION])))

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

    def settle(self) -> int:
        """Look, import and look again until nothing is left to do now; how many imports that took."""
        imports = 0
        while self.work() or self.pool.imports:
            imports += self.pool.run()
        return imports

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
    assert is_asked(old, new) is asked


def test_what_a_user_asks_for_overtakes_what_waits() -> None:
    """A new import goes before the others; one that waits already is hurried."""
    bed = Bed()
    bed.reconciler.on_policy(POLICY)
    bed.see(KEY, FAILED)
    bed.work()
    assert bed.pool.urgent == [False]
    bed.see(KEY, imagestream_from(RETRIED))
    bed.work()
    assert bed.pool.urgent == [False]
    assert bed.pool.hurried == [(KEY, "v1")]
    other = ("ns", "other")
    bed.see(other, WELL)
    bed.see(other, imagestream_from(FAILED_AGAIN))
    bed.work()
    assert bed.pool.urgent == [False, True]


# A mirror with another image than the source had.


def held(generation: int = 2) -> ImageStream:
    """A tag that the platform imported, and that fails now."""
    failed = failure(generation, f"port {generation}", lastTransitionTime="2027-01-15T08:00:00Z")
    return imagestream_from(stream({"items": [item(1)], "conditions": [failed]}, {"generation": generation}))


def test_what_is_held_is_told_once_for_each_attempt() -> None:
    """With what whoever waits for it wants to know: which image, from where, and when it will be the tag's."""
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
    assert bed.counts() == {State.HELD: 1}
    bed.platform.digest = ""
    bed.time += 900
    bed.see(KEY, held(3))
    assert bed.settle() == 1
    assert bed.counts() == {State.COVERED: 1}
    bed.time += 10
    assert bed.settle() == 1


# Who asks for another attempt.


def asked(stamp: str, *, was_imported: bool = False) -> ImageStream:
    """A failing tag whose stream has the retry annotation."""
    status: Object = {"conditions": [failure(2)], **({"items": [item(1)]} if was_imported else {})}
    return imagestream_from(stream(status, {"generation": 2}, annotations={"mirrorstream.github.io/retry": stamp}))


@pytest.mark.parametrize("digest", ["", "sha256:bb"], ids=["fails", "is-held"])
def test_an_attempt_that_runs_when_a_retry_is_asked_for_is_not_the_one_that_was_asked_for(digest: str) -> None:
    """It began before: there is one more, at once, and each says what it was asked by."""
    bed = Bed()
    bed.platform.digest = digest
    bed.reconciler.on_policy(POLICY)
    bed.see(KEY, asked("first", was_imported=True))
    bed.work()
    assert len(bed.pool.imports) == 1
    bed.see(KEY, asked("second", was_imported=True))
    assert bed.settle() == 2
    assert [attempt.asked for _, _, attempt in bed.events] == ["first", "second"]
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
    assert bed.counts() == {State.COVERED: 1}
    assert bed.reconciler.failing.oldest() is None, "nothing that an alert asks for"
    bed.platform.digest = "sha256:aa"
    bed.time += 10
    assert bed.settle() == 1
    assert bed.counts() == {State.OBSERVED: 1}
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
    (plan,) = plan_stream(FAILED, POLICY, PlanSettings(), Memory(), NOW)
    bed.reconciler.configure(Settings())
    result = TagResult(plan, "v1", "sha256:aa", "src.io/team/app@sha256:aa", "m.io/x/team/app:v1", "ImageDigestMirrorSet/m")
    bed.reconciler._served(KEY, plan, Observed((result,)))
    bed.work()
    assert len(bed.pool.imports) == 1, "again, and this time with its Image"


# What changes while an import runs, or while what it brought waits for the others.


class Storing(Platform):
    """An API server that takes Images and has the stream, and keeps what is written into it."""

    def __init__(self, document: Object) -> None:
        super().__init__()
        self.digest, self.document, self.written = "sha256:aa", document, []

    written: list[Object]

    def request(self, method: str, path: str, *, body: Any = None, **more: Any) -> Any:
        """A dry run, an Image, or a write."""
        if method == "PUT":
            self.written.append(body)
            return body
        return body if path.endswith("/images") else super().request(method, path, body=body, **more)

    def get(self, path: str) -> Any:
        """The stream."""
        return copy.deepcopy(self.document)


def storing(bed: Bed, document: Object) -> Storing:
    """Give a bed an API server that has this stream, and look at it by the rules."""
    platform = Storing(document)
    bed.platform = platform
    recorder: Any = platform
    bed.reconciler._recorder._client = recorder
    bed.reconciler._tries._importer._client = recorder
    bed.reconciler.on_policy(POLICY)
    return platform


BLOCKED = MirrorPolicy.from_objects(
    [IDMS, {"kind": "Image", "metadata": {"name": "cluster"}, "spec": {"registrySources": {"blockedRegistries": ["src.io"]}}}]
)
OPTED_OUT = stream({"conditions": [failure()]}, annotations={"mirrorstream.github.io/import": "disabled"})
MEANWHILE: list[Any] = [
    pytest.param(lambda bed: bed.reconciler.on_policy(BLOCKED), id="the-source-is-blocked"),
    pytest.param(lambda bed: bed.reconciler.on_policy(NO_RULES), id="the-rule-goes"),
    pytest.param(lambda bed: bed.see(KEY, imagestream_from(OPTED_OUT)), id="it-opts-out"),
    pytest.param(lambda bed: bed.platform.document.update(OPTED_OUT), id="it-opts-out-unseen"),
    pytest.param(lambda bed: bed.reconciler.configure(Settings(mode="observe")), id="only-an-observer"),
]


@pytest.mark.parametrize("change", MEANWHILE)
@pytest.mark.parametrize("runs", [True, False], ids=["runs", "waits-to-be-recorded"])
def test_what_is_forbidden_meanwhile_is_not_recorded(change: Callable[[Bed], None], *, runs: bool) -> None:
    """A mirror may take a minute; whoever blocks a source or opts out in that minute means it."""
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
    for asked in (False, True):
        bed = Bed()
        platform = storing(bed, document if asked else before)
        bed.see(KEY, imagestream_from(before))
        bed.work()
        if asked:
            bed.see(KEY, imagestream_from(document))
            bed.work()
        bed.pool.imports.pop(0)()
        bed.work()
        written.append(len(platform.written))
    assert written == [0, 1]


def test_the_watch_never_waits_for_the_workers() -> None:
    """They plan while they hold the lock; a watch that had to take its turn with eight of them fell behind by half a minute."""
    bed = Bed()
    bed.reconciler.on_policy(POLICY)
    bed.see(KEY, FAILED)
    watch = threading.Thread(target=lambda: bed.see(KEY, imagestream_from(RETRIED)), daemon=True)
    with bed.reconciler._lock:
        watch.start()
        watch.join(5)
        assert not watch.is_alive()
