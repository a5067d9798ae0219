"""The informer: whatever happens to the watch, in the end it agrees with a fresh list, without a tight loop."""

import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import mirrorstream.kube.client
import pytest
from mirrorstream.kube.client import Client
from mirrorstream.kube.informer import ABSENT_SECONDS
from mirrorstream.runtime.informer_metrics import stale_informer

from e2e.testbed.support.waiting import wait_for
from tests.kube.conftest import Cluster, Request, Script, names, thing


def test_events_are_followed_and_older_ones_ignored(script: Script, client: Client, informers: Any) -> None:
    """Duplicates and events out of order change nothing."""
    cluster = Cluster(script, thing("a", 5), thing("b", 6))
    cluster.watches = [
        lambda r: (
            r.stream(
                {"type": "MODIFIED", "object": thing("a", 12, 2)},
                {"type": "MODIFIED", "object": thing("a", 11, 1)},
                {"type": "MODIFIED", "object": thing("a", 12, 2)},
                {"type": "DELETED", "object": thing("b", 13)},
                {"type": "ADDED", "object": thing("c", 14, 3)},
                {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "20"}}},
            )
            or r.finish_stream()
        )
    ]
    informer, changes = informers(client)
    wait_for("the next watch", lambda: cluster.count(watch=True) >= 2)
    assert names(informer) == {"a": 2, "c": 3}
    assert len(changes) == 5, "two from the list, three from the watch"
    assert "resourceVersion=20" in script.requests[-1][1], "it resumes where the bookmark was"
    assert cluster.count(watch=False) == 1


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(b'{"type":"MODIFIED","object":{"meta', id="truncated"),
        pytest.param(b"garbage\n", id="garbage"),
        pytest.param({"type": "ERROR", "object": {"kind": "Status", "code": 500, "message": "etcd"}}, id="error"),
    ],
)
def test_a_broken_watch_resumes_from_the_last_good_event(script: Script, client: Client, informers: Any, broken: Any) -> None:
    """Nothing is listed again, nothing lost."""
    cluster = Cluster(script, thing("a", 5))
    cluster.watches = [
        lambda r: r.stream({"type": "MODIFIED", "object": thing("a", 12, 2)}, broken) or r.finish_stream(),
        lambda r: r.stream({"type": "ADDED", "object": thing("b", 13, 3)}) or script.ended.wait(600),
    ]
    informer, _ = informers(client)
    wait_for("it agrees", lambda: names(informer) == {"a": 2, "b": 3})
    assert "resourceVersion=12" in script.requests[-1][1]
    assert cluster.count(watch=False) == 1


@pytest.mark.parametrize("how", ["http", "event"])
def test_an_expired_watch_lists_again_and_tells_of_deletions(script: Script, client: Client, informers: Any, how: str) -> None:
    """What went away unseen is gone."""
    cluster = Cluster(script, thing("a", 5), thing("b", 6))

    def gone(request: Request) -> None:
        cluster.items = [thing("b", 6), thing("c", 30)]
        if how == "http":
            request.fail(410, "Expired")
        else:
            request.stream({"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}})
            request.finish_stream()

    cluster.watches = [gone]
    informer, changes = informers(client)
    wait_for("it agrees", lambda: set(names(informer)) == {"b", "c"})
    assert [(c.key[1], c.new is None) for c in changes[2:]] == [("c", False), ("a", True)]


def test_a_storm_of_410_is_no_tight_loop(script: Script, client: Client, informers: Any) -> None:
    """The first is answered with a list at once; then the waits between attempts grow."""
    cluster = Cluster(script)
    waits: list[float] = []

    def wait(event: threading.Event, seconds: float) -> bool:
        waits.append(seconds)
        return len(waits) > 8 or event.wait(0)

    cluster.watches = [lambda r: r.fail(410, "Expired")] * 20
    informers(client, wait=wait, uniform=lambda low, high: high)
    wait_for("it gives up, as asked", lambda: len(waits) > 8)
    assert waits[:7] == [0.5, 1, 2, 4, 8, 10, 10]


def test_a_busy_server_is_left_alone_for_as_long_as_it_asks(script: Script, client: Client, informers: Any) -> None:
    """Retry-After beyond what a single request waits for, and never for longer than a minute: some proxy's may be a day."""
    cluster = Cluster(script)
    waits: list[float] = []
    cluster.lists = [lambda r: r.fail(429, "TooManyRequests", Retry_After="30")]
    cluster.watches = [
        lambda r: r.fail(503, "ServiceUnavailable", Retry_After="20"),
        lambda r: r.fail(429, "TooManyRequests", Retry_After="86400"),
        lambda r: script.ended.wait(600),
    ]
    informer, _ = informers(client, wait=lambda event, seconds: bool(waits.append(seconds)), uniform=lambda low, high: high)
    wait_for("it watches", lambda: informer.watches == 3)
    assert waits == [30 + 0.5, 20 + 1, 60 + 2]


def test_an_event_that_no_object_can_be_is_not_read_to_its_end(
    script: Script, client: Client, informers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory stays bounded; everything is listed again, since a watch that resumes gets the same event."""
    monkeypatch.setattr(mirrorstream.kube.client, "EVENT_LIMIT", 100_000)
    cluster = Cluster(script, thing("a", 5))
    large = thing("b", 12, 1) | {"padding": "x" * 90_000}
    cut: list[bool] = []

    def endless(request: Request) -> None:
        request.stream({"type": "ADDED", "object": large}, b'{"type":"ADDED","object":{"padding":"')
        cluster.items = [thing("a", 20, 2)]
        try:
            while not script.ended.is_set():
                request.event(b"x" * 10_000)
        except OSError:
            cut.append(True)

    cluster.watches = [endless]
    informer, changes = informers(client)
    wait_for("it lists again", lambda: names(informer) == {"a": 2})
    wait_for("what is gone is forgotten", lambda: len(changes) == 4)
    assert [change.key[1] for change in changes] == ["a", "b", "a", "b"], "the large one that may be was read"
    wait_for("nobody reads the rest", lambda: cut)


def test_a_watch_that_went_its_whole_way_is_news(script: Script, client: Client, informers: Any) -> None:
    """A server that sends no bookmarks says in this way that nothing happened; one that ends its watches early says nothing."""
    now = [0.0]
    cluster = Cluster(script)

    def ended_after(seconds: float) -> Callable[[Request], None]:
        def watch(request: Request) -> None:
            now[0] += seconds
            request.stream()
            request.finish_stream()

        return watch

    for seconds, stale in ((30, 30), (50, 0)):
        cluster.watches = [ended_after(seconds), cluster.silent]
        informer, _ = informers(client, clock=lambda: now[0], uniform=lambda low, high: low)
        wait_for("it watches again", lambda started=informer: started.watches == 2)
        assert informer.staleness() == stale


def test_a_410_after_a_long_outage_is_answered_with_a_list_at_once(script: Script, client: Client, informers: Any) -> None:
    """The server is well again: waiting as long as it was away would leave everybody with what was true before."""
    cluster = Cluster(script, thing("a", 5))
    waits: list[float] = []
    script.handle, whole = lambda r: r.fail(503, "ServiceUnavailable"), script.handle

    def wait(event: threading.Event, seconds: float) -> bool:
        waits.append(seconds)
        if len(waits) == 6:
            script.handle = whole
        return False

    cluster.watches = [lambda r: r.fail(410, "Expired"), lambda r: script.ended.wait(600)]
    informers(client, wait=wait, uniform=lambda low, high: high)
    wait_for("it lists again", lambda: cluster.count(watch=True) == 2)
    assert waits == [0.5, 1, 2, 4, 8, 10]


def test_one_malformed_object_is_left_out_alone(script: Script, client: Client, informers: Any) -> None:
    """In a list and in a watch."""
    cluster = Cluster(script, thing("a", 5), thing("bad", 6, "not a number"), thing("c", 7))
    cluster.watches = [
        lambda r: (
            r.stream({"type": "MODIFIED", "object": thing("a", 12, {})}, {"type": "ADDED", "object": thing("d", 13)})
            or script.ended.wait(600)
        )
    ]
    informer, _ = informers(client)
    wait_for("it agrees", lambda: set(names(informer)) == {"c", "d"})
    assert informer.malformed == 2


def test_a_kind_that_is_not_served_counts_as_empty_if_it_is_optional(script: Script, client: Client, informers: Any) -> None:
    """And is looked for again."""
    found = iter([False, True])
    cluster = Cluster(script, thing("a", 5))
    cluster.lists = [lambda r: r.answer(404, b"404 page not found") if not next(found) else cluster.whole(r)]
    informer, _ = informers(client, optional=True)
    assert informer.synced.wait(60)
    wait_for("it comes", lambda: names(informer) == {"a": 0})


def test_an_absent_kind_is_looked_for_within_10_s(script: Script, client: Client, informers: Any) -> None:
    """Each time a fifth more or less, so that many do not ask together."""
    script.handle = lambda request: request.fail(404, "NotFound")
    waits: list[float] = []
    informers(client, optional=True, wait=lambda event, seconds: waits.append(seconds) or len(waits) > 5)
    wait_for("it has looked", lambda: len(waits) > 5)
    assert all(0.8 * ABSENT_SECONDS <= seconds <= 1.2 * ABSENT_SECONDS < 10 for seconds in waits)


def test_a_403_is_settled_but_not_synced(script: Script, client: Client, informers: Any) -> None:
    """Nobody may take "not allowed to see" for "nothing there"."""
    script.handle = lambda request: request.fail(403, "Forbidden", "things is forbidden")
    informer, _ = informers(client)
    assert informer.settled.wait(60)
    assert not informer.synced.is_set()
    assert informer.problem is not None
    assert "things is forbidden" in informer.problem


@pytest.mark.parametrize(("code", "kept"), [(403, True), (404, False)])
def test_what_was_seen_is_not_forgotten_because_it_may_not_be_seen(
    script: Script, client: Client, informers: Any, code: int, kept: bool
) -> None:
    """A rule that forbids something must not vanish with a right; and one 404 of a starting server is not yet an absence."""
    cluster = Cluster(script, thing("a", 5))
    cluster.watches = [lambda r: r.fail(410, "Expired")]
    answers: list[int] = []

    def refuse(request: Request) -> None:
        answers.append(code)
        request.fail(code, "NotFound" if code == 404 else "Forbidden")

    cluster.lists = [cluster.whole, *[refuse] * 8]
    informer, _ = informers(client, optional=True, wait=lambda event, seconds: len(answers) > 7 or event.wait(0.001))
    wait_for("the first refusal", lambda: answers)
    assert names(informer) == {"a": 0}
    wait_for("the last refusal", lambda: len(answers) > 6)
    wait_for("it is settled", lambda: (names(informer) == {"a": 0}) is kept)


@pytest.mark.parametrize(
    ("code", "optional", "fresh"),
    [(403, True, False), (403, False, False), (404, False, False), (404, True, True), (503, True, False)],
    ids=["no-right", "no-right-to-what-must-be", "not-served", "not-there", "down"],
)
@pytest.mark.parametrize("known", [True, False], ids=["known-before", "never-seen"])
def test_what_counts_as_hearing_of_a_resource(
    script: Script, client: Client, informers: Any, code: int, optional: bool, fresh: bool, known: bool
) -> None:
    """Only what says how the resource is: after a refusal decisions go on by what was known, and only staleness tells anybody."""
    cluster = Cluster(script, thing("a", 5))
    cluster.watches = [lambda r: r.fail(410, "Expired")]
    time, answers = [0.0], 0

    def refuse(request: Request) -> None:
        nonlocal answers
        answers += 1
        time[0] += 100
        request.fail(code, "NotFound" if code == 404 else "Forbidden")

    cluster.lists = [*([cluster.whole] if known else []), *[refuse] * 8]
    informer, _ = informers(
        client,
        optional=optional,
        clock=lambda: time[0],
        wait=lambda event, seconds: answers > 7 or event.wait(0.001),
    )
    wait_for("the last refusal", lambda: answers > 7)
    informer.stop()
    assert (informer.staleness() == 0) is fresh
    assert informer.problem is not None
    assert stale_informer([informer]) is None, "no restart helps against what it knows"


def test_a_right_that_comes_back_ends_the_staleness(script: Script, client: Client, informers: Any) -> None:
    """It is looked for as often as a kind that the cluster does not serve."""
    cluster = Cluster(script, thing("a", 5))
    cluster.lists = [lambda r: r.fail(403, "Forbidden")] * 2
    waits: list[float] = []

    def wait(event: threading.Event, seconds: float) -> bool:
        waits.append(seconds)
        return event.wait(0.001)

    informer, _ = informers(client, wait=wait, uniform=lambda low, high: 1.0)
    wait_for("it comes", lambda: names(informer) == {"a": 0})
    assert waits == [ABSENT_SECONDS] * 2
    assert informer.problem is None
    assert informer.staleness() < 10


def test_stopping_wakes_a_silent_watch(script: Script, client: Client, informers: Any) -> None:
    """At once."""
    cluster = Cluster(script)
    informer, _ = informers(client)
    wait_for("it watches", lambda: cluster.count(watch=True))
    informer.stop()
    assert informer._thread is not None
    wait_for("its thread ends", lambda: not informer._thread.is_alive())


def test_a_selection_narrows_lists_and_watches(script: Script, client: Client, informers: Any) -> None:
    """What leaves the selection is told as a deletion, by the API server, and is forgotten."""
    cluster = Cluster(script, thing("a", 5))

    def leaves(request: Request) -> None:
        request.stream({"type": "DELETED", "object": thing("a", 11)})
        script.ended.wait(600)

    cluster.watches = [leaves]
    informer, changes = informers(client, params={"fieldSelector": "status.phase=Pending"})
    wait_for("it is gone", lambda: len(changes) == 2 and not informer.count())
    assert [parse_qs(urlsplit(path).query)["fieldSelector"] for _, path in script.requests] == [["status.phase=Pending"]] * 2
