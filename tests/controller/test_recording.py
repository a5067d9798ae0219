"""Recording: what goes wrong with one tag, or once, costs neither the other tags nor a storm of imports."""

import copy
import threading
from typing import Any

import pytest
import structlog
from mirrorstream.imagestream.model import ImageStream, imagestream_from
from mirrorstream.imagestream.recorded import RECORDED_ANNOTATION, recorded_items
from mirrorstream.kube.client import ApiError
from mirrorstream.rules.policy import MirrorPolicy
from mirrorstream.runtime.settings import Settings
from mirrorstream_controller.import_queue import ImportQueue

from tests.controller.bed import FAILED, KEY, Bed, Storing, storing
from tests.controller.builders import IDMS, Object, failure, item, stream


def with_tags(*tags: str) -> Object:
    """A stream whose tags all fail."""
    document = stream({"conditions": [failure()]})
    (spec,) = document["spec"]["tags"]
    document["spec"]["tags"] = [{**spec, "name": tag, "from": {**spec["from"], "name": f"src.io/team/app:{tag}"}} for tag in tags]
    document["status"]["tags"] = [{"tag": tag, "conditions": [failure()]} for tag in tags]
    return document


class Refusing(Storing):
    """An API server that refuses a status in which one of the tags `refused` has an image, as for the allow-list."""

    refused: tuple[str, ...] = ()
    error: Exception | None = None
    noted: tuple[str, ...] = ()
    """The `created` of the items that the Images have."""

    def request(self, method: str, path: str, *, body: Any = None, **more: Any) -> Any:
        """A dry run, an Image, or a write."""
        if path.endswith("/images"):
            self.noted += tuple(recorded_items(body["metadata"]["annotations"][RECORDED_ANNOTATION]))
        if method == "PUT":
            if self.error:
                raise self.error
            written = [entry["tag"] for entry in body["status"]["tags"] if entry.get("items")]
            if named := [tag for tag in self.refused if tag in written]:
                raise ApiError(422, "Invalid", f"status.tags[{named[0]}].items[0]: not allowed by whitelist")
            self.document = copy.deepcopy(body)
        return super().request(method, path, body=body, **more)


def refusing(bed: Bed, document: Object, *refused: str) -> Refusing:
    """Give a bed such an API server."""
    platform = storing(bed, document)
    platform.__class__ = Refusing
    assert isinstance(platform, Refusing)
    platform.refused = refused
    return platform


@pytest.mark.parametrize("refused", [("a",), ("c",), ("b", "e"), ("a", "b", "c", "d", "e")], ids="-".join)
def test_a_refused_tag_keeps_no_other_from_being_recorded(refused: tuple[str, ...]) -> None:
    """One source outside the allow-list, say: its stream's other tags heal, and the Event names the one."""
    tags = ("a", "b", "c", "d", "e")
    bed = Bed()
    platform = refusing(bed, with_tags(*tags), *refused)
    bed.see(KEY, imagestream_from(platform.document))
    assert bed.settle() == len(tags)
    written = {entry["tag"] for entry in platform.document["status"]["tags"] if entry.get("items")}
    assert written == set(tags) - set(refused)
    told = {attempt.tag: reason for reason, _, attempt in bed.events}
    assert told == {tag: "MirrorImportRefused" if tag in refused else "ImportedFromMirror" for tag in tags}
    bed.see(KEY, imagestream_from(platform.document))
    assert bed.settle() == 0, "what was refused waits for its back-off"
    bed.time += 1000
    assert bed.settle() == len(refused)


@pytest.mark.parametrize(
    ("annotation", "tag_policy", "warns"),
    [
        pytest.param("false", {}, True, id="neither"),
        pytest.param("true", {}, False, id="the-stream"),
        pytest.param("false", {"insecure": True}, False, id="the-tag"),
        pytest.param("false", {"insecure": True, "importMode": "PreserveOriginal"}, True, id="the-tag-that-may-be-a-list"),
    ],
)
def test_the_event_warns_unless_the_registry_pulls_insecurely(annotation: str, tag_policy: dict[str, Any], warns: bool) -> None:
    """The internal registry goes by the stream's annotation, too; so `status` says the same."""
    rules = {"imageTagMirrors": [{"source": "src.io", "mirrors": ["m.io/x"]}]}
    itms = {"kind": "ImageTagMirrorSet", "metadata": {"name": "t"}, "spec": rules}
    bed = Bed()
    annotations = {"openshift.io/image.insecureRepository": annotation}
    tag = {"referencePolicy": {"type": "Local"}, "importPolicy": tag_policy}
    platform = storing(bed, stream({"conditions": [failure()]}, tag, annotations))
    platform.digest = "sha256:" + "a" * 64
    config = {"kind": "Image", "metadata": {"name": "cluster"}, "spec": {"registrySources": {"insecureRegistries": ["m.io/x"]}}}
    bed.reconciler.on_policy(MirrorPolicy.from_objects([itms, config]))
    bed.see(KEY, imagestream_from(platform.document))
    assert bed.settle() == 1
    ((reason, message, _),) = bed.events
    assert reason == "ImportedFromMirror"
    assert ("insecure for nodes and imports only" in message) is warns


def test_tags_that_are_refused_together_wait_for_as_long_as_one() -> None:
    """Each of them would double the wait otherwise, and seven wait for five minutes after their first attempt."""
    bed = Bed()
    tags = [f"v{number}" for number in range(7)]
    platform = refusing(bed, with_tags(*tags), *tags)
    bed.see(KEY, imagestream_from(platform.document))
    assert bed.settle() == 7
    bed.time += 1
    assert bed.settle() == 0
    bed.time += 6
    assert bed.settle() == 7, "5 s, by a fifth more or less"
    bed.time += 7
    assert bed.settle() == 0, "twice as long after the second attempt"
    bed.time += 6
    assert bed.settle() == 7


def test_attempts_that_are_refused_are_all_of_one_item() -> None:
    """An Image notes an item before it is recorded, and has room for few: those that no tag ever has must not take it."""
    bed = Bed()
    platform = refusing(bed, with_tags("a"), "a")
    bed.see(KEY, imagestream_from(platform.document))
    for _ in range(5):
        bed.time += 1000
        assert bed.settle() == 1
    (first,) = set(platform.noted)
    platform.refused = ()
    bed.time += 1000
    assert bed.settle() == 1
    (recorded,) = platform.document["status"]["tags"][0]["items"]
    assert (recorded["created"], len(platform.noted)) == (first, 6)
    # The same image once more, after another one: another item.
    platform.document["status"]["tags"][0] = {"tag": "a", "conditions": [failure(3)]}
    platform.document["spec"]["tags"][0]["generation"] = 3
    bed.see(KEY, imagestream_from(platform.document))
    assert bed.settle() == 1
    assert platform.noted[-1] > first


def test_items_are_dated_with_the_time_of_day() -> None:
    """Of a node whose clock is set only after the controller has started, and of a machine that slept: pruning goes by it."""
    bed = Bed()
    platform = refusing(bed, with_tags("a"))
    bed.set_by = 3 * 3600
    bed.see(KEY, imagestream_from(platform.document))
    assert bed.settle() == 1
    assert platform.document["status"]["tags"][0]["items"][0]["created"] == "2027-01-15T11:00:00Z"


@pytest.mark.parametrize(
    ("mode", "spec", "warned"),
    [
        ("PreserveOriginal", {"referencePolicy": {"type": "Local"}}, True),
        ("PreserveOriginal", {"referencePolicy": {"type": "Local"}, "importPolicy": {"importMode": "PreserveOriginal"}}, False),
        ("PreserveOriginal", {}, False),
        ("Legacy", {"referencePolicy": {"type": "Local"}}, False),
    ],
    ids=["one-architecture", "the-list", "not-local", "no-other-nodes"],
)
def test_the_event_warns_of_an_image_that_pods_may_be_unable_to_run(mode: str, spec: Object, warned: bool) -> None:
    """One architecture's, on a cluster made for several: the owner of the stream is told what helps."""
    bed = Bed()
    platform = storing(bed, stream({"conditions": [failure()]}, spec))
    config = {"kind": "Image", "metadata": {"name": "cluster"}, "status": {"imageStreamImportMode": mode}}
    bed.reconciler.on_policy(MirrorPolicy.from_objects([IDMS, config]))
    bed.see(KEY, imagestream_from(platform.document))
    assert bed.settle() == 1
    ((reason, message, _),) = bed.events
    assert (reason, "set importMode PreserveOriginal" in message) == ("ImportedFromMirror", warned)


def test_an_unexpected_error_while_recording_is_followed_by_a_back_off() -> None:
    """Without it the import runs again at once, and so on, as fast as the mirror answers."""
    bed = Bed()
    platform = refusing(bed, with_tags("a"))
    platform.error = KeyError("metadata")
    bed.see(KEY, imagestream_from(platform.document))
    assert bed.settle() == 1
    # Anything that has the stream reconciled: its other tags, a label.
    bed.queue.add(KEY)
    bed.time += 1
    assert bed.settle() == 0
    platform.error = None
    bed.time += 1000
    assert bed.settle() == 1
    assert len(platform.written) == 1


def test_new_settings_during_a_status_write_cost_no_second_import() -> None:
    """Until the watch brings the write, the stream looks failed; and new settings reconcile every failing stream."""
    bed = Bed()
    platform = storing(bed, stream({"conditions": [failure()]}))
    bed.see(KEY, FAILED)
    bed.work()
    bed.pool.run()
    get = platform.get

    def configured(path: str) -> Any:
        bed.reconciler.configure(Settings())
        return get(path)

    platform.get = configured  # type: ignore[method-assign]
    assert bed.settle() == 0
    assert len(platform.written) == 1
    bed.time += 1
    assert bed.settle() == 0


def test_a_pass_is_told_in_one_event() -> None:
    """Whatever it took to record it."""
    bed = Bed()
    tags = tuple(f"v{number}" for number in range(20))
    platform = refusing(bed, with_tags(*tags), "v3")
    bed.see(KEY, imagestream_from(platform.document))
    bed.work()
    bed.pool.imports.pop()()
    bed.time += 3
    bed.work()
    assert (len(platform.written), bed.told) == (1, 0), "the first part is recorded, and is told with the others"
    bed.settle()
    assert bed.told == 2, "one for those that were imported, one for the one that was refused"
    assert len(bed.events) == 20


def one_of_two_recorded() -> Bed:
    """A stream whose tag a is recorded while the import of its tag b runs."""
    bed = Bed()
    platform = refusing(bed, with_tags("a", "b"))
    bed.see(KEY, imagestream_from(platform.document))
    bed.work()
    bed.pool.imports.pop(0)()
    bed.time += 3
    bed.work()
    return bed


def test_what_came_of_the_first_tags_is_not_kept_back_for_a_slow_one() -> None:
    """A mirror may take a minute for each of its tags."""
    bed = one_of_two_recorded()
    bed.time += 20
    bed.work()
    assert [attempt.tag for _, _, attempt in bed.events] == ["a"]


def test_at_the_end_of_the_process_everything_is_told() -> None:
    """Though an import still runs."""
    bed = one_of_two_recorded()
    bed.reconciler.stop()
    assert [attempt.tag for _, _, attempt in bed.events] == ["a"]


# Threads.


def test_an_import_that_cannot_be_started_is_started_later() -> None:
    """For want of a thread, say: a tag that counts as running would never be tried again."""
    bed = Bed()
    platform = storing(bed, stream({"conditions": [failure()]}))
    submit = bed.pool.submit

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("can't start new thread")

    bed.pool.submit = fail  # type: ignore[method-assign]
    bed.see(KEY, FAILED)
    assert bed.settle() == 0
    bed.pool.submit = submit  # type: ignore[method-assign]
    bed.time += 1
    assert bed.settle() == 0, "the back-off is kept"
    bed.time += 1000
    assert bed.settle() == 1
    assert len(platform.written) == 1


def test_without_any_thread_nothing_waits_in_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody would take it; while there is one thread, it waits for that one."""
    pool, release, ran = ImportQueue(4), threading.Event(), threading.Event()
    start = threading.Thread.start

    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    with pytest.raises(RuntimeError):
        pool.submit("ns", "m.io", ran.set)
    assert len(pool) == 0
    assert not pool._threads, "a slot is not lost"
    monkeypatch.setattr(threading.Thread, "start", start)
    pool.submit("ns", "m.io", lambda: release.wait(10) and None)
    monkeypatch.setattr(threading.Thread, "start", fail)
    pool.submit("ns", "m.io", ran.set)
    assert len(pool) == 2
    release.set()
    assert ran.wait(10)
    pool.stop()


def test_no_two_reconciles_have_the_same_id() -> None:
    """Eight workers, several replicas, and restarts: all their lines are in one log."""
    seen: list[str] = []

    class Watching(Bed):
        """Notes the ID of each reconcile."""

        def __init__(self) -> None:
            super().__init__()
            get = self.streams.get

            def noted(key: Any) -> ImageStream | None:
                seen.append(structlog.contextvars.get_contextvars()["reconcile_id"])
                return get(key)

            self.streams.get = noted  # type: ignore[method-assign]

    for _ in range(3):
        bed = Watching()
        for number in range(50):
            bed.reconciler.reconcile(("ns", f"app{number}"))
    assert len(set(seen)) == len(seen) == 150


def test_the_event_names_the_reference_that_the_tag_has() -> None:
    """After a timeout the mirror's own name would be recorded, but the platform's item stays, and only the condition goes."""
    bed = Bed()
    timed_out = failure(2, 'Internal error occurred: src.io/team/app:v1: Get "https://src.io/v2/": context deadline exceeded')
    document = stream({"items": [item(1, "sha256:aa")], "conditions": [timed_out]}, {"generation": 2})
    storing(bed, document)
    bed.see(KEY, imagestream_from(document))
    bed.settle()
    bed.time += 60
    bed.reconciler.stop()
    ((_, text, _),) = bed.events
    assert text.startswith("tag v1: src.io/team/app@sha256:aa through m.io/")
