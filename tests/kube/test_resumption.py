"""Where an informer goes on after a watch: three refusals lead to a list, and so does a server that went back to an older version.

A server goes back when etcd is restored from a backup.
"""

from collections.abc import Callable
from typing import Any

import pytest
from mirrorstream.kube.client import Client
from mirrorstream.kube.informer import ABSENT_AFTER, WATCH_SECONDS

from e2e.testbed.support.waiting import wait_for
from tests.kube.conftest import Cluster, Request, Script, names, thing


def test_what_differs_is_taken_whatever_its_version(script: Script, client: Client, informers: Any) -> None:
    """The server computes some fields when it reads an object, and an etcd that was restored uses versions again."""
    cluster = Cluster(script, thing("a", 5, 1), thing("b", 6, 1), thing("c", 7, 1))

    def gone(request: Request) -> None:
        cluster.items[0] = thing("a", 5, 2)
        request.fail(410, "Expired")

    def twice(request: Request) -> None:
        same = {"type": "MODIFIED", "object": thing("c", 12, 1)}
        request.stream(same, {"type": "MODIFIED", "object": thing("c", 12, 2)}, same | {"object": thing("c", 12, 2)})
        script.ended.wait(600)

    cluster.watches = [gone, twice]
    informer, changes = informers(client)
    wait_for("it agrees", lambda: names(informer) == {"a": 2, "b": 1, "c": 2})
    told = [(change.key[1], change.old.value, change.new.value) for change in changes[3:] if change.old and change.new]
    assert told == [("a", 1, 2), ("c", 1, 1), ("c", 1, 2)]


REFUSALS = {
    "500": lambda r: r.fail(500, "InternalError"),
    "400": lambda r: r.fail(400, "BadRequest", "too large resource version"),
    "504": lambda r: r.fail(504, "Timeout", "Too large resource version: 10, current: 5"),
    "event": lambda r: (
        r.stream({"type": "ERROR", "object": {"kind": "Status", "code": 500, "message": "etcd"}}) or r.finish_stream()
    ),
    "unreadable": lambda r: r.stream(b"garbage\n") or r.finish_stream(),
}


@pytest.mark.parametrize("refuse", REFUSALS.values(), ids=REFUSALS)
def test_what_is_refused_three_times_is_listed_again(script: Script, client: Client, informers: Any, refuse: Any) -> None:
    """The server may never serve a watch from that version again; and each list gives the watch three more attempts."""
    cluster = Cluster(script, thing("a", 5))
    cluster.watches = [refuse] * 7
    informers(client)
    wait_for("it watches", lambda: cluster.count(watch=True) == 8)
    asked = ["watch" if "watch=1" in path else "list" for _, path in script.requests if "limit=1&" not in f"{path}&"]
    assert asked == [*["list", "watch", "watch", "watch"] * 2, "list", "watch", "watch"]


def test_a_404_now_and_then_is_no_absence(script: Script, client: Client, informers: Any) -> None:
    """A watch that is accepted in between shows that the kind is served: nothing is forgotten, not even for a moment."""
    cluster = Cluster(script, thing("a", 5))

    def not_found(request: Request) -> None:
        request.fail(404, "NotFound")

    def quiet(request: Request) -> None:
        request.stream()
        request.finish_stream()

    cluster.watches = [not_found, quiet] * (ABSENT_AFTER + 1)
    _, changes = informers(client)
    wait_for("it watches", lambda: cluster.count(watch=True) == 2 * (ABSENT_AFTER + 1) + 1)
    assert [change.new.value if change.new else None for change in changes] == [0]


def test_a_refusal_now_and_then_is_no_reason_to_list(script: Script, client: Client, informers: Any) -> None:
    """A watch that goes on in between was served from there."""
    cluster = Cluster(script, thing("a", 5))

    def goes_on(version: int) -> Callable[[Request], None]:
        def watch(request: Request) -> None:
            cluster.version = version
            request.stream({"type": "MODIFIED", "object": thing("a", version)})
            request.finish_stream()

        return watch

    cluster.watches = [watch for number in range(4) for watch in (REFUSALS["500"], REFUSALS["event"], goes_on(11 + number))]
    informer, _ = informers(client)
    wait_for("it watches", lambda: cluster.count(watch=True) == 13)
    assert informer.lists == 1


class Restored(Cluster):
    """At version 10 first; later at 5, where `a` is as it was before, `b` is there again, and `c` is not yet there."""

    def __init__(self, script: Script) -> None:
        super().__init__(script, thing("a", 8, 2), thing("c", 10, 1))
        self.now = 0.0

    def restore(self) -> None:
        """Go back."""
        self.items, self.version = [thing("a", 3, 1), thing("b", 4, 1)], 5

    def checks(self) -> int:
        """How often it was asked for its version alone."""
        return sum("limit=1" in path.split("&") or path.endswith("?limit=1") for _, path in self.script.requests)


def silent_for(cluster: Restored, seconds: float, *, cut: bool = False) -> Callable[[Request], None]:
    """A watch that ends, or is cut off, without an event."""

    def watch(request: Request) -> None:
        cluster.now += seconds
        request.stream()
        if cut:
            request.close_connection = True
        else:
            request.finish_stream()

    return watch


@pytest.mark.parametrize(
    ("seconds", "cut"), [(WATCH_SECONDS[0], False), (20.0, False), (20.0, True)], ids=["whole", "ended-early", "cut-early"]
)
def test_a_watch_that_hears_nothing(script: Script, client: Client, informers: Any, seconds: float, cut: bool) -> None:
    """kube-apiserver sends nothing to a watch from a later version, until it gets there. That is noticed when the watch ends."""
    cluster = Restored(script)

    def watch(request: Request) -> None:
        cluster.restore()
        silent_for(cluster, seconds, cut=cut)(request)

    cluster.watches = [watch] * round(60 / seconds)
    informer, _ = informers(client, clock=lambda: cluster.now)
    wait_for("it agrees", lambda: names(informer) == {"a": 1, "b": 1})
    assert cluster.now <= 60


def test_a_server_that_was_away(script: Script, client: Client, informers: Any) -> None:
    """It is asked when it is back, not only when the next watch ends: by then it may have reached the version again."""
    cluster = Restored(script)

    def away(request: Request) -> None:
        cluster.restore()
        request.fail(503, "ServiceUnavailable")

    cluster.watches = [away]
    informer, _ = informers(client)
    wait_for("it agrees", lambda: names(informer) == {"a": 1, "b": 1})
    assert cluster.count(watch=True) <= 2


@pytest.mark.parametrize(
    "event",
    [
        pytest.param({"type": "ADDED", "object": thing("d", 6, 1)}, id="event"),
        pytest.param({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "5"}}}, id="bookmark"),
    ],
)
def test_a_watch_that_gets_older_versions(script: Script, client: Client, informers: Any, event: Any) -> None:
    """Another server may send them. They are not taken for repetitions."""
    cluster = Restored(script)

    def older(request: Request) -> None:
        cluster.restore()
        request.stream(event)
        script.ended.wait(600)

    cluster.watches = [older]
    informer, _ = informers(client)
    wait_for("it agrees", lambda: names(informer) == {"a": 1, "b": 1})


def test_versions_of_before_are_used_again(script: Script, client: Client, informers: Any) -> None:
    """An object that is changed after that has a version that another state had before: it is followed all the same."""
    cluster = Restored(script)

    def changes(request: Request) -> None:
        request.stream(
            {"type": "MODIFIED", "object": thing("a", 8, 7)},
            {"type": "DELETED", "object": thing("b", 9)},
            {"type": "ADDED", "object": thing("c", 10, 9)},
        )
        script.ended.wait(600)

    def restored(request: Request) -> None:
        cluster.restore()
        request.fail(410, "Expired")

    cluster.watches = [restored, changes]
    informer, _ = informers(client)
    wait_for("it agrees", lambda: names(informer) == {"a": 7, "c": 9})


def test_a_quiet_server_is_only_asked_for_its_version(script: Script, client: Client, informers: Any) -> None:
    """One object for each watch that heard nothing, never the whole list; a watch that heard something needs nothing."""
    cluster = Restored(script)

    def bookmark(request: Request) -> None:
        cluster.now += 50
        request.stream({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "20"}}})
        request.finish_stream()

    quiet = silent_for(cluster, 50)
    cluster.watches = [quiet, quiet, bookmark, silent_for(cluster, 0.5), cluster.silent]
    informer, _ = informers(client, clock=lambda: cluster.now)
    wait_for("it watches", lambda: cluster.count(watch=True) == 5)
    assert (informer.lists, cluster.checks()) == (1, 2)
