"""A list of many pages, of which one fails: nothing is lost, no page is read twice without need, and what is known stays known.

On the simulator, whose lists have pages and tokens as kube-apiserver's have.
"""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from mirrorstream.kube import informer as informer_module
from mirrorstream.kube.client import ApiError, ApiUnreachable, Client
from mirrorstream.kube.informer import Informer
from mirrorstream.kube.objects import json_objects
from mirrorstream.kube.rest_config import RestConfig
from mirrorstream.kube.resumption import REFUSED_AGAIN, Listing, Resumption

from e2e.testbed.simulator.simulator import Simulator
from e2e.testbed.support.waiting import wait_for

Object = dict[str, Any]
MAPS = "/api/v1/namespaces/ns/configmaps"
COUNT, SIZE = 10, 4
PAGES = 3
ONCE_MORE = {
    "connection reset": {"reset": True},
    "cut in the middle": {"truncate": True},
    "answer lost": {"loseAnswer": True},
    "500": {"status": 500},
    "429": {"status": 429, "reason": "TooManyRequests", "retryAfter": 0},
    "503": {"status": 503, "reason": "ServiceUnavailable", "retryAfter": 1},
}
"""Ways in which the request of a page fails, after which the same page is asked for again."""


class Bed:
    """A simulated cluster with ConfigMaps, and an informer of them that calls `between` after each failure instead of waiting."""

    def __init__(self, simulator: Simulator) -> None:
        self.client = simulator.client("test")
        self.between: Callable[[], None] = lambda: None
        for number in range(COUNT):
            self.create(f"m{number}")
        self.asked: list[str] = []
        client = Client(
            lambda: RestConfig(simulator.url),
            user_agent="informer",
            observe=lambda verb, code, seconds: self.asked.append(verb),
            sleep=lambda seconds: None,
        )
        self.informer = Informer(client, MAPS, json_objects, lambda change: None, name="configmaps", wait=self._wait)

    def _wait(self, event: threading.Event, seconds: float) -> bool:
        self.between()
        return event.wait(0.001)

    def create(self, name: str) -> None:
        """Create a ConfigMap."""
        self.client.request("POST", MAPS, body={"metadata": {"name": name}})

    def fault(self, action: Object, times: int = 1) -> None:
        """Have the next requests of a page that is not the first fail."""
        fault = {"verb": "list", "userAgent": "^informer", "query": "continue=", "times": times, "action": action}
        self.client.request("POST", "/simulator/faults", body=fault)

    def lists(self) -> int:
        """How many pages the informer has asked for."""
        return self.asked.count("list")

    def agrees(self) -> bool:
        """Whether the informer knows what is stored."""
        stored = {item["metadata"]["name"]: item["metadata"] for item in self.client.get(MAPS)["items"]}
        return stored == {item["metadata"]["name"]: item["metadata"] for item in self.informer.objects()}


@pytest.fixture
def bed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bed]:
    """With pages of four objects."""
    monkeypatch.setattr(informer_module, "PAGE_SIZE", SIZE)
    with Simulator() as simulator:
        bed = Bed(simulator)
        yield bed
        bed.informer.stop()


@pytest.mark.parametrize("action", ONCE_MORE.values(), ids=ONCE_MORE)
def test_a_page_that_fails_is_asked_for_again(bed: Bed, action: Object) -> None:
    """It alone, and what changes meanwhile in other pages is known in the end."""
    bed.fault(action)

    def change() -> None:
        bed.between = lambda: None
        bed.client.request("DELETE", f"{MAPS}/m0")
        bed.client.request("PATCH", f"{MAPS}/m1", body={"data": {"a": "b"}}, content_type="application/merge-patch+json")
        bed.client.request("DELETE", f"{MAPS}/m9")
        bed.create("m00")

    bed.between = change
    bed.informer.start()
    assert bed.informer.synced.wait(60)
    assert bed.lists() == PAGES + 1
    if bed.between is change:  # the client itself repeats what is answered with 429
        change()
    wait_for("it agrees", bed.agrees)
    assert bed.informer.lists == 1


def test_an_outage_in_the_middle_costs_no_page(bed: Bed) -> None:
    """However long it is, if the server still knows the token afterwards."""
    bed.fault({"reset": True}, times=7)
    bed.informer.start()
    assert bed.informer.synced.wait(60)
    assert (bed.lists(), bed.informer.lists) == (PAGES + 7, 1)
    assert bed.agrees()


def test_pages_that_expired_begin_again(bed: Bed) -> None:
    """At once the first time; an object that went away in between is forgotten with the whole list."""
    bed.fault({"status": 410, "reason": "Expired"}, times=2)
    asked: list[int] = []

    def expire() -> None:
        bed.between = lambda: None
        asked.append(bed.lists())
        bed.client.request("DELETE", f"{MAPS}/m0")
        bed.client.request("POST", "/simulator/compact")

    bed.between = expire
    bed.informer.start()
    assert bed.informer.synced.wait(60)
    assert asked == [2 * 2], "the second time it waits"
    assert bed.lists() == 2 * 2 + PAGES
    wait_for("it agrees", bed.agrees)


def test_what_is_known_stays_while_pages_fail(bed: Bed) -> None:
    """A list that breaks off is no reason to forget what it did not come to; a page is taken over as soon as it is there."""
    bed.informer.start()
    assert bed.informer.synced.wait(60)
    bed.create("m99")
    wait_for("it watches", lambda: bed.informer.count() == COUNT + 1)
    known: list[set[str]] = []

    def look() -> None:
        known.append({item["metadata"]["name"] for item in bed.informer.objects()})
        if len(known) == 1:  # no watch is open now
            bed.create("m00")

    before = {item["metadata"]["name"] for item in bed.informer.objects()}
    bed.between = look
    bed.fault({"reset": True}, times=3)
    gone = {"verb": "watch", "userAgent": "^informer", "times": 1, "action": {"gone": True}}
    bed.client.request("POST", "/simulator/faults", body=gone)
    bed.client.request("POST", "/simulator/drop-watches")
    wait_for("it has listed again", lambda: bed.lists() == 2 * PAGES + 3)
    wait_for("it agrees", bed.agrees)
    assert known[:4] == [before] + [before | {"m00"}] * 3
    assert bed.informer.lists == 2


def test_a_page_that_is_refused_again_and_again_is_given_up(bed: Bed) -> None:
    """After etcd was restored from a backup the version of the first pages does not exist, and no server ever answers the rest."""
    bed.fault({"status": 500}, times=2 * REFUSED_AGAIN)
    bed.informer.start()
    assert bed.informer.synced.wait(60)
    assert (bed.lists(), bed.informer.lists) == (2 * (1 + REFUSED_AGAIN) + PAGES, 3)
    assert bed.agrees()


def test_waits_grow_only_while_nothing_comes() -> None:
    """A list of 200 pages, of which each fails once, must not wait longer and longer until its token has expired."""
    resumption, listing = Resumption(), Listing()
    error = ApiUnreachable("cut")
    for _ in range(200):
        listing.came("next")
        resumption.failed(error, advanced=listing.advanced)
        assert listing.failed(error)
        assert resumption.failures == 1
    resumption.failed(error, advanced=listing.advanced)
    assert resumption.failures == 2


def test_only_answers_count_as_refusals() -> None:
    """Who does not answer at all may know the token all the same."""
    listing = Listing()
    listing.came("next")
    assert all(listing.failed(ApiUnreachable("cut")) for _ in range(10))
    refused = ApiError(500, "InternalError", "etcd", {}, None)
    assert [listing.failed(refused) for _ in range(REFUSED_AGAIN)] == [True] * (REFUSED_AGAIN - 1) + [False]


def test_a_server_that_has_too_much_to_do_is_not_asked_for_all_pages_again() -> None:
    """A 429 is an answer, and says nothing about the page."""
    listing = Listing()
    listing.came("next")
    assert all(listing.failed(ApiError(429, "TooManyRequests", "later", {}, 1.0)) for _ in range(10))


def test_pages_that_are_read_again_are_no_progress() -> None:
    """Where one page is always refused the waits grow, however many come before it."""
    resumption, listing = Resumption(), Listing()
    refused = ApiError(504, "Timeout", "etcd", {}, None)
    for _ in range(4):
        listing.came("next")
        for _ in range(REFUSED_AGAIN):
            resumption.failed(refused, advanced=listing.advanced)
            again = not listing.failed(refused)
        assert again
        listing = listing.again()
    assert resumption.failures == 4 * REFUSED_AGAIN
    listing.came("next")
    listing.came("the page after it")
    resumption.failed(refused, advanced=listing.advanced)
    assert resumption.failures == 1
