"""A tag whose `from` was changed: the earlier image is never held, and how the earlier source failed counts for nothing."""

import gc
import tracemalloc
from typing import Any

import pytest
from mirrorstream.imagestream.model import ImageStream, imagestream_from
from mirrorstream.imagestream.settled import EARLIER, UNKNOWN
from mirrorstream.kube.informer import Change
from mirrorstream_controller.failing_tags import FailingState
from mirrorstream_controller.unsettled import UnsettledItems

from tests.controller.bed import EXCLUDING, KEY, Bed, Storing, storing
from tests.controller.builders import POLICY, Object, failure, item, stream

ONE, TWO = "src.io/team/app:v1", "src.io/team/app:v2"
EIGHT = "2027-01-15T08:00:00Z"
"""The time at which the beds' clocks begin."""


def tag(source: str, generation: int, at: int = 1, *, failed: bool = False, image: str = "sha256:aa", **spec: Any) -> Object:
    """A stream whose tag has `source` at `generation`, and `image`, imported at `at`; `failed`: the last import did, just now."""
    message = f"Internal error occurred: {source}: dial tcp 10.0.0.1:443: connect: connection refused"
    status: Object = {"items": [item(at, image)]}
    if failed:
        status["conditions"] = [failure(generation, message, lastTransitionTime=EIGHT)]
    return stream(status, {"generation": generation, "from": {"kind": "DockerImage", "name": source}, **spec})


IMPORTED = tag(ONE, 1)
CHANGED = tag(TWO, 2)
CHANGED_FAILED = tag(TWO, 3, failed=True)
BACK = tag(ONE, 4)
BACK_FAILED = tag(ONE, 5, failed=True)
FAILED = tag(ONE, 2, failed=True)


def seen(*documents: Object | None) -> UnsettledItems:
    """What is kept after these versions of one stream."""
    found, old = UnsettledItems(), None
    for document in documents:
        new = imagestream_from(document) if document else None
        found.update(Change(KEY, old, new))
        old = new
    return found


@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        pytest.param([IMPORTED], {}, id="imported"),
        pytest.param([IMPORTED, FAILED], {}, id="the source fails"),
        pytest.param([IMPORTED, CHANGED], {"v1": ONE}, id="changed"),
        pytest.param([IMPORTED, CHANGED, CHANGED_FAILED], {"v1": ONE}, id="changed and failed"),
        pytest.param([IMPORTED, CHANGED_FAILED], {"v1": ONE}, id="changed and failed between two looks"),
        pytest.param([IMPORTED, CHANGED_FAILED, BACK_FAILED], {}, id="changed and changed back"),
        pytest.param([IMPORTED, CHANGED_FAILED, tag(TWO, 3, 3, image="sha256:bb")], {}, id="imported again"),
        pytest.param([CHANGED_FAILED], {"v1": UNKNOWN}, id="first seen after the change"),
        pytest.param([CHANGED_FAILED, BACK_FAILED], {"v1": EARLIER}, id="first seen after one of two changes"),
        pytest.param([IMPORTED, CHANGED, None], {}, id="gone"),
        pytest.param([IMPORTED, CHANGED, None, CHANGED_FAILED], {"v1": UNKNOWN}, id="gone and made again"),
    ],
)
def test_what_is_kept_of_a_stream(versions: list[Object | None], expected: dict[str, str]) -> None:
    """Only of tags whose item is not of their present source, and for as long as that is so."""
    found = seen(*versions)
    assert found.of(KEY) == expected
    assert len(found) == bool(expected)


def test_what_is_kept_is_little() -> None:
    """Nothing of streams that are well; little of those of which it cannot be told, even where that is every tag of a cluster."""

    def many(document: Object) -> list[ImageStream]:
        (first,), (status,) = document["spec"]["tags"], document["status"]["tags"]
        tags = [{**first, "name": f"v{number}"} for number in range(5)]
        statuses = [{**status, "tag": f"v{number}"} for number in range(5)]
        document = {**document, "spec": {"tags": tags}, "status": {"tags": statuses}}
        return [imagestream_from(document) for _ in range(2000)]

    grown = {}
    for name, document in (("well", IMPORTED), ("unknown", CHANGED_FAILED)):
        kept = UnsettledItems()
        gc.collect()
        tracemalloc.start()
        streams = many(document)
        before = tracemalloc.get_traced_memory()[0]
        for number, found in enumerate(streams):
            kept.update(Change(("ns", f"app{number}"), None, found))
        gc.collect()
        grown[name] = (tracemalloc.get_traced_memory()[0] - before) / before
        tracemalloc.stop()
        assert len(kept) == (2000 if name == "unknown" else 0)
    assert grown["well"] < 0.01
    assert grown["unknown"] < 0.15


# What the controller makes of it.


class World:
    """A controller with rules, and an API server that has the stream and another image in the mirror."""

    def __init__(self, **settings: Any) -> None:
        self.bed = Bed(**settings)
        self.server: Storing = storing(self.bed, IMPORTED)
        self.server.digest = "sha256:bb"

    def see(self, *documents: Object) -> None:
        """Have the watch bring these versions one after the other, and the controller do what is due after each."""
        for document in documents:
            self.server.document = document
            self.bed.see(KEY, imagestream_from(document))
            self.bed.settle()

    @property
    def recorded(self) -> list[Object]:
        """The tag's items after each write."""
        return [body["status"]["tags"][0]["items"] for body in self.server.written]

    @property
    def told(self) -> list[str]:
        """The reasons of all Events."""
        return [event[0] for event in self.bed.events]


@pytest.mark.parametrize(
    ("versions", "told", "count"),
    [
        pytest.param([IMPORTED, CHANGED, CHANGED_FAILED], ["ImportedFromMirror"], 2, id="changed and failed"),
        pytest.param([IMPORTED, CHANGED_FAILED], ["ImportedFromMirror"], 2, id="between two looks"),
        pytest.param([IMPORTED, FAILED, tag(TWO, 4, failed=True)], ["MirrorImportHeld", "ImportedFromMirror"], 2, id="held before"),
        pytest.param([CHANGED_FAILED], ["ImportedFromMirror"], 2, id="found changed at the start"),
        pytest.param([CHANGED, CHANGED_FAILED], ["ImportedFromMirror"], 2, id="found pending at the start"),
        pytest.param([IMPORTED, FAILED], ["MirrorImportHeld"], 0, id="the same source"),
        pytest.param([FAILED], ["MirrorImportHeld"], 0, id="found failed once at the start"),
        pytest.param([IMPORTED, CHANGED], [], 0, id="the platform is still at it"),
        pytest.param([IMPORTED, CHANGED, BACK, BACK_FAILED], ["MirrorImportHeld"], 0, id="back to the source of the item"),
        pytest.param(
            [IMPORTED, *(tag(ONE, n, failed=True, importPolicy={"scheduled": True}) for n in (2, 3, 4))],
            ["MirrorImportHeld"] * 3,
            0,
            id="a schedule that fails at each turn",
        ),
    ],
)
def test_an_image_of_an_earlier_source_is_replaced_at_once(versions: list[Object], told: list[str], count: int) -> None:
    """The platform imported it, and the mirror has another; the earlier image stays in the history."""
    world = World()
    world.see(*versions)
    assert world.told == told
    assert [[found["image"] for found in items] for items in world.recorded] == ([["sha256:bb", "sha256:aa"]] if count else [])


def test_two_tags_of_a_stream_have_their_own_sources() -> None:
    """One is bumped, the other fails under the source that it always had."""
    world, both = World(), {}
    for name, bumped, other in (("before", IMPORTED, IMPORTED), ("after", tag(TWO, 4, failed=True), FAILED)):
        tags = [*bumped["spec"]["tags"], {**other["spec"]["tags"][0], "name": "other"}]
        statuses = [*bumped["status"]["tags"], {**other["status"]["tags"][0], "tag": "other"}]
        both[name] = {**bumped, "spec": {"tags": tags}, "status": {"tags": statuses}}
    world.see(both["before"], both["after"])
    assert sorted(world.told) == ["ImportedFromMirror", "MirrorImportHeld"]
    (written,) = world.server.written
    assert [(entry["tag"], len(entry["items"])) for entry in written["status"]["tags"]] == [("v1", 2), ("other", 1)]


def test_the_image_that_is_there_is_settled_again() -> None:
    """The new source has the same image: the item gets the new generation, and no second item is made of it."""
    world = World()
    world.server.digest = "sha256:aa"
    world.see(IMPORTED, CHANGED_FAILED)
    ((newest,),) = world.recorded
    assert (newest["image"], newest["generation"]) == ("sha256:aa", 3)
    assert newest["dockerImageReference"] == "src.io/team/app@sha256:aa"
    world.see(world.server.written[0])
    assert world.bed.reconciler._unsettled.of(KEY) == {}


def test_nothing_is_recorded_that_no_mirror_has() -> None:
    """The old item stays, and the Event says why, about the new source."""
    world = World()
    world.server.digest = ""
    world.see(IMPORTED, CHANGED_FAILED)
    assert (world.told, world.recorded) == (["MirrorImportFailed"], [])
    assert world.bed.events[0][2].source == TWO
    assert world.bed.counts() == {FailingState.FAILING: 1}
    world.server.digest = "sha256:bb"
    world.bed.time += 600
    world.bed.settle()
    assert world.told[-1] == "ImportedFromMirror", "as soon as a mirror has it"


def test_a_heal_of_the_earlier_source_is_not_recorded() -> None:
    """It was in flight while `from` was changed, unseen by the watch."""
    world = World()
    world.bed.see(KEY, imagestream_from(FAILED))
    world.bed.work()
    world.server.document = CHANGED
    world.server.digest = "sha256:aa"
    world.bed.pool.run()
    world.bed.settle()
    assert world.recorded == []


def test_how_long_the_earlier_source_failed_counts_for_nothing() -> None:
    """The new one was imported, unseen, and failed later: its image stays for the full hour from then on."""
    world = World()
    world.see(IMPORTED, FAILED)
    world.bed.time += 3000
    later = "2027-01-15T08:50:00Z"
    failing = tag(TWO, 5, 4, failed=True, image="sha256:cc")
    failing["status"]["tags"][0]["conditions"][0]["lastTransitionTime"] = later
    world.see(tag(TWO, 3), failing)
    assert world.told == ["MirrorImportHeld", "MirrorImportHeld"]
    assert "from 2027-01-15T09:50:00Z on" in world.bed.events[1][1]


def test_a_pending_import_of_a_new_source_is_no_older_failure() -> None:
    """How long a tag is known to fail begins with its present source."""
    bed = Bed()
    bed.reconciler.on_policy(POLICY)
    for document in (IMPORTED, FAILED):
        bed.see(KEY, imagestream_from(document))
        bed.settle()
    known = bed.reconciler._states[KEY]._tags["v1"]
    assert None not in (known.history.failing, known.history.failed_since)
    bed.see(KEY, imagestream_from(CHANGED))
    bed.settle()
    assert (known.history.failing, known.history.failed_since, known.held_until) == (None, None, None)
    bed.time += 179
    assert bed.settle() == 0, "the platform's import has its time"
    bed.time += 2
    assert bed.settle() == 1


@pytest.mark.parametrize("settings", [{}, {"controller": EXCLUDING}], ids=["covered", "left-out"])
def test_a_replica_that_stands_by_knows_of_changes(settings: Object) -> None:
    """It only hears the watch; so does one whose configuration leaves the namespace out until it is changed."""
    bed = Bed(**settings)
    key = ("not-here", "app")
    for document in (IMPORTED, CHANGED, CHANGED_FAILED):
        bed.see(key, imagestream_from(document))
    assert bed.reconciler._unsettled.of(key) == {"v1": ONE}
    bed.see(key, None)
    assert len(bed.reconciler._unsettled) == 0


def test_a_worker_that_sees_the_change_before_the_handler_decides_again() -> None:
    """The informer has the new stream a moment before its handler is called: what was held in between is not held any more."""
    world = World()
    world.see(IMPORTED)
    world.server.document = CHANGED_FAILED
    old, new = world.bed.streams.known[KEY], imagestream_from(CHANGED_FAILED)
    world.bed.streams.known[KEY] = new
    world.bed.queue.add(KEY)
    world.bed.settle()
    assert world.told == ["MirrorImportHeld"]
    world.bed.reconciler.on_stream(Change(KEY, old, new))
    world.bed.settle()
    assert world.told == ["MirrorImportHeld", "ImportedFromMirror"]
