"""One connection: what it answers to requests of every form."""

import asyncio
import re
import socket
from collections.abc import Callable, Coroutine
from functools import partial
from http import HTTPStatus
from typing import Any

import pytest
from mirrorstream_webhook import connection as connections
from mirrorstream_webhook.access import AnswerPendingError
from mirrorstream_webhook.connection import ANSWERS_AT_ONCE, MAXIMUM_HEAD, SMALL, Answer, Connection, Request, Serving
from mirrorstream_webhook.server import Server

CLOSE, CHUNKED = b"Connection: close\r\n", b"Transfer-Encoding: chunked\r\n"
MEBIBYTE = b"100000\r\n%b\r\n" % (b" " * 2**20)
"""A chunk."""


@pytest.mark.parametrize(
    ("sent", "statuses"),
    [
        pytest.param(b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n%b\r\n" % CLOSE, [200, 200], id="two-at-once"),
        pytest.param(b"GET / HTTP/1.0\r\n\r\n", [200], id="http-1.0"),
        pytest.param(b"POST / HTTP/1.1\r\n%b%b\r\n2\r\n{}\r\n0\r\nX: y\r\n\r\n" % (CLOSE, CHUNKED), [200], id="chunks"),
        pytest.param(b"POST / HTTP/1.1\r\n%bExpect: 100-continue\r\nContent-Length: 0\r\n\r\n" % CLOSE, [200], id="expect"),
        pytest.param(b"\x16\x03\x01\r\n\r\n", [400], id="no-http"),
        pytest.param(b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", [400], id="length"),
        pytest.param(b"GET / HTTP/1.1\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", [400], id="upgrade"),
        pytest.param(b"GET /1 HTTP/1.1\r\n\r\n\x16\x03\x01", [200, 400], id="no-http-after-a-request"),
        pytest.param(b"GET /slow HTTP/1.1\r\n\r\n\x16\x03\x01", [200, 400], id="no-http-after-a-slow-request"),
        pytest.param(
            b"GET /slow HTTP/1.1\r\n\r\nPOST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", [200, 413], id="large-after-slow"
        ),
        pytest.param(b"GET /" + b"x" * 2 * MAXIMUM_HEAD, [431], id="long-target"),
        pytest.param(b"GET / HTTP/1.1\r\nX: " + b"x" * 2 * MAXIMUM_HEAD, [431], id="long-header"),
        pytest.param(b"POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", [413], id="large"),
        pytest.param(b"POST / HTTP/1.1\r\n%b\r\n%b" % (CHUNKED, 9 * MEBIBYTE), [413], id="large-chunks"),
        pytest.param(b"GET /bug HTTP/1.1\r\n\r\n", [500], id="bug"),
    ],
)
def test_a_request_is_answered_or_refused_and_the_connection_ends(sent: bytes, statuses: list[int]) -> None:
    """In the order of the requests, and over plain HTTP, too."""
    waited: list[Request] = []

    async def wait(request: Request) -> None:
        waited.append(request)
        await asyncio.sleep(0)

    def answer(request: Request) -> Answer:
        if request.target == b"/bug":
            raise ValueError("a bug")
        if request.target == b"/slow" and request not in waited:
            raise AnswerPendingError(partial(wait, request))
        return Answer(HTTPStatus.OK if request.is_whole else HTTPStatus.REQUEST_ENTITY_TOO_LARGE, (), b"")

    server = Server(answer, 0, address="127.0.0.1")
    server.start()
    try:
        with socket.create_connection(("127.0.0.1", server.port), 5) as client:
            client.sendall(sent)
            received = b"".join(iter(lambda: client.recv(65536), b""))
    finally:
        server.stop()
    assert [int(number) for number in re.findall(rb"HTTP/1.1 (\d+) ", received)] == statuses
    assert statuses == [200, 200] or received.count(b"Connection: close") == 1


class Wire(asyncio.Transport):
    """A transport that tests look at; `room` is how many bytes it takes before it has the connection stop."""

    def __init__(self, serving: Serving, room: int = 2**30) -> None:
        super().__init__()
        self.written = b""
        self.reading = True
        self.closed = self.aborted = False
        self.room = room
        self.connection = Connection(serving)
        self.connection.connection_made(self)

    def write(self, data: Any) -> None:
        """Keep it."""
        self.written += data
        self.room -= len(data)
        if self.room < 0:
            self.connection.pause_writing()

    def read_by_client(self, room: int) -> None:
        """The client reads."""
        self.room = room
        self.connection.resume_writing()

    def pause_reading(self) -> None:
        """The connection wants nothing."""
        self.reading = False

    def resume_reading(self) -> None:
        """It wants more."""
        self.reading = True

    def close(self) -> None:
        """The end."""
        self.closed = True

    def abort(self) -> None:
        """The end, at once."""
        self.aborted = True

    def statuses(self) -> list[int]:
        """What was answered."""
        return [int(number) for number in re.findall(rb"HTTP/1.1 (\d+) ", self.written)]


class Held:
    """An application whose answers to /slow wait until `gate` is set."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.answered = 0

    def __call__(self, request: Request) -> Answer:
        """Answer, or wait."""
        if request.target == b"/slow" and not self.gate.is_set():
            raise AnswerPendingError(self._wait)
        self.answered += 1
        return Answer(HTTPStatus.OK, (), b"ok")

    async def _wait(self) -> None:
        await self.gate.wait()


GET, SLOW = b"GET / HTTP/1.1\r\n\r\n", b"GET /slow HTTP/1.1\r\n\r\n"


def in_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """A test that runs in an event loop."""

    def run() -> None:
        asyncio.run(test())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


async def turns(number: int = 5) -> None:
    """Let the event loop do what is due."""
    for _ in range(number):
        await asyncio.sleep(0)


@in_loop
async def test_many_requests_at_once_are_answered_in_turns_with_other_connections() -> None:
    """Sixteen at a time; nothing more is read before the last of them is answered."""
    held = Held()
    wire = Wire(Serving(held))
    wire.connection.data_received(GET * 100)
    assert (held.answered, wire.reading) == (ANSWERS_AT_ONCE, False)
    await turns(1)
    assert held.answered == 2 * ANSWERS_AT_ONCE
    await turns(10)
    assert (held.answered, wire.reading) == (100, True)


@in_loop
async def test_a_client_that_does_not_read_is_answered_no_more() -> None:
    """What it sent waits until it reads again; if it never does, it is cut."""
    held = Held()
    wire = Wire(Serving(held), room=0)
    wire.connection.data_received(GET * 3)
    await turns()
    assert (held.answered, wire.reading) == (1, False)
    wire.read_by_client(0)
    await turns()
    assert (held.answered, wire.reading) == (2, False)
    wire.read_by_client(1000)
    await turns()
    assert (held.answered, wire.reading) == (3, True)


@in_loop
async def test_a_client_that_does_not_read_is_not_read_from_after_a_wait() -> None:
    """The answer that was waited for comes to a full buffer."""
    held = Held()
    wire = Wire(Serving(held), room=0)
    wire.connection.data_received(SLOW + GET)
    await turns()
    assert (held.answered, wire.reading) == (0, False)
    held.gate.set()
    await turns()
    assert (held.answered, wire.reading) == (1, False)


async def passed(seconds: float) -> None:
    """Let time pass."""
    await asyncio.sleep(seconds)


def test_a_client_has_its_time_while_it_is_waited_for_and_not_while_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a request came together with one whose answer takes long."""
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 0.05)

    async def run() -> None:
        held = Held()
        wire = Wire(serving := Serving(held))
        wire.connection.data_received(SLOW + GET[:5])
        await passed(0.2)
        assert (wire.aborted, serving.cut) == (False, 0)
        held.gate.set()
        await turns()
        wire.connection.data_received(GET[5:])
        assert wire.statuses() == [200, 200]
        wire.connection.data_received(GET[:5])
        await passed(0.2)
        assert (wire.aborted, serving.cut) == (True, 1)
        unread = Wire(serving, room=0)
        unread.connection.data_received(GET)
        await passed(0.2)
        assert (unread.aborted, serving.cut) == (True, 2)

    asyncio.run(run())


@in_loop
async def test_a_word_to_go_on_comes_in_its_order() -> None:
    """A client that asks for it gets it once what it sent before is answered, and only if the body has not come."""
    held = Held()
    wire = Wire(Serving(held))
    wire.connection.data_received(SLOW + b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    await turns()
    assert wire.statuses() == []
    held.gate.set()
    await turns()
    assert wire.statuses() == [200, 100]
    wire.connection.data_received(b"{}")
    assert wire.statuses() == [200, 100, 200]


@in_loop
async def test_a_head_has_no_body() -> None:
    """The next answer begins where its headers end."""
    wire = Wire(Serving(Held()))
    wire.connection.data_received(b"HEAD / HTTP/1.1\r\n\r\n")
    assert wire.written.endswith(b"Content-Length: 2\r\n\r\n")


def test_the_bodies_of_all_connections_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is over it is refused, to be sent again a moment later; small reviews go on, and room is made by each that ends."""
    monkeypatch.setattr(connections, "MAXIMUM_HELD", 4 * SMALL)
    large = b"POST /slow HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n" + b" " * 3 * SMALL

    async def run() -> None:
        serving = Serving(Held())
        first, second, small = Wire(serving), Wire(serving), Wire(serving)
        first.connection.data_received(large)
        assert first.written == b""
        second.connection.data_received(large)
        assert (second.statuses(), serving.crowded) == ([503], 1)
        assert b"Retry-After: 1\r\n" in second.written
        small.connection.data_received(b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}")
        assert small.statuses() == [200]
        first.connection.connection_lost(None)
        assert serving.held == 0
        third = Wire(serving)
        third.connection.data_received(large)
        assert third.written == b""
        third.connection.data_received(b" " * (1_000_000 - 3 * SMALL))
        await turns()
        assert serving.held == 1_000_000
        serving.application.gate.set()  # type: ignore[attr-defined]
        await turns()
        assert (third.statuses(), serving.held) == ([200], 0)

    asyncio.run(run())
