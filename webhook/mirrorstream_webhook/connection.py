"""One connection of the webhook's port: HTTP/1.1 requests, each of which has to come whole within a time of its own.

All connections share one event loop: one that is idle, or whose request does not come, costs a little memory and no thread.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import cast

import httptools
import structlog

from mirrorstream_webhook.access import AnswerPendingError

log = structlog.get_logger(__name__)

REQUEST_SECONDS = 3.0
"""From the first byte of a request to its last: an API server waits no longer. Reading an answer may take as long."""
LINGER_SECONDS = 1.0
"""How long a client that is answered before its request is whole may take to read that."""
MAXIMUM_BODY = 8 * 1024 * 1024
"""Bytes; the API server itself takes 3 MiB in a request, and a review has an object and its old self."""
MAXIMUM_HELD = 64 * 1024 * 1024
"""Bytes of bodies that all connections hold together; what is over it is refused, so that no client can fill the memory."""
SMALL = 64 * 1024
"""Bytes of a request that is never refused for what others hold: most reviews are smaller."""
MAXIMUM_HEAD = 64 * 1024
"""Bytes of a request's first line and headers, of which an API server sends less than 1 KiB."""
ANSWERS_AT_ONCE = 16
"""Answers to one client before the others have their turn: 256 KiB can be thousands of requests."""
TEXT = (("Content-Type", "text/plain; charset=utf-8"),)


@dataclass(slots=True)
class Request:
    """A request; the names of headers are in lower case. `length` is that of the body as far as it is known.

    One that is too large is answered before it is whole.
    """

    method: bytes = b""
    target: bytes = b""
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""
    length: int = 0
    received: float = 0.0
    """When it was whole, by `time.perf_counter`."""
    has_head: bool = False
    is_asking: bool = False
    """Whether the client waits for a word before it sends the body."""
    is_whole: bool = False
    keep_alive: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered, without the headers that say where it ends."""

    status: HTTPStatus
    headers: tuple[tuple[str, str], ...]
    body: bytes


Application = Callable[[Request], Answer]
"""Called in the event loop. It raises AnswerPendingError instead of waiting, and is called again after the wait."""


@dataclass
class Serving:
    """What the connections of a server share."""

    application: Application
    connections: set["Connection"] = field(default_factory=set)
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by each connection that ends."""
    draining: bool = False
    cut: int = 0
    """Connections that were cut because a request did not come whole in time, or answers were not read."""
    held: int = 0
    """Bytes of bodies in memory."""
    crowded: int = 0
    """Requests that were refused because too much was held."""


class Connection(asyncio.Protocol):
    """Reads requests and writes the application's answers, in their order."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._transport: asyncio.Transport
        self._parser = httptools.HttpRequestParser(self)
        self._request = Request(is_whole=True)
        """The one that is coming, or the last one."""
        self._received = 0
        """Bytes of the request that is coming."""
        self._parts: list[bytes] = []
        """Of its body."""
        self._unanswered: deque[Request | HTTPStatus] = deque()
        """What is to be answered, in order; a status stands for what is no request."""
        self._waiting: asyncio.Task[None] | None = None
        """Waits for what an answer needs."""
        self._turn: asyncio.Handle | None = None
        """The next turn, if there is more to answer."""
        self._timer: asyncio.TimerHandle | None = None
        self._held = 0
        """Bytes of bodies that it holds."""
        self._reading = True
        self._is_full = False
        """Whether the client does not read its answers."""
        self._is_refused = False
        """Whether what comes is not parsed any more."""
        self._ended = False
        """Whether the last answer was given."""

    @property
    def is_idle(self) -> bool:
        """Whether no request is coming or waits for its answer."""
        return self._request.is_whole and not self._unanswered and not self._waiting

    def close(self) -> None:
        """Close as soon as what was written is sent."""
        self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; over TLS, after the handshake."""
        self._transport = cast("asyncio.Transport", transport)
        self._serving.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio's signature
        """End whatever would go on."""
        self._serving.connections.discard(self)
        self._serving.lost.set()
        self._ended = True
        self._stop_timer()
        self._drop()
        if self._waiting:
            self._waiting.cancel()
        if self._turn:
            self._turn.cancel()
        del self._parser  # it refers to this

    def pause_writing(self) -> None:
        """Answer and read nothing more: the client does not read its answers."""
        self._is_full = True
        if not self._ended:
            self._stop_timer()
        self._pace()

    def resume_writing(self) -> None:
        """The client reads again."""
        self._is_full = False
        if not self._ended:
            self._stop_timer()
        self._pace()

    def data_received(self, data: bytes) -> None:
        """Parse, and answer what is whole."""
        if self._ended or self._is_refused:
            return
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError:
            raise
        except httptools.HttpParserUpgrade:
            self._unanswered.pop()  # the request that asks for it came whole
            self._leave(HTTPStatus.BAD_REQUEST)
        except httptools.HttpParserError:
            # What came whole before it is answered first.
            self._leave(HTTPStatus.BAD_REQUEST)
        if not self._request.is_whole and not self._is_refused:
            self._check(self._request)
        self._answer_all()

    def _check(self, request: Request) -> None:
        """Refuse a request that is too large before it is whole."""
        if not request.has_head and self._received > MAXIMUM_HEAD:
            self._leave(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        elif max(request.length, self._received // 2) > MAXIMUM_BODY:
            self._leave(request)
        elif self._received > SMALL and self._serving.held > MAXIMUM_HELD:
            self._serving.crowded += 1
            self._leave(HTTPStatus.SERVICE_UNAVAILABLE)

    def _leave(self, answered: Request | HTTPStatus) -> None:
        """Have this be the last that is answered."""
        self._is_refused = True
        self._unanswered.append(answered)

    def _cut(self) -> None:
        self._serving.cut += 1
        self.abort()

    def _stop_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

    # What the parser calls.

    def on_message_begin(self) -> None:
        """A request begins."""
        self._request = Request()
        self._parts = []

    def on_url(self, url: bytes) -> None:
        """A part of its target."""
        self._request.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; those that follow a body are dropped."""
        if not self._request.has_head:
            self._request.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """The body begins."""
        request = self._request
        request.has_head, request.method = True, self._parser.get_method()
        request.length = int(request.headers.get(b"content-length", b"0"))
        request.is_asking = b"expect" in request.headers and request.length <= MAXIMUM_BODY

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._parts.append(body)
        self._hold(len(body))
        if b"content-length" not in self._request.headers:
            self._request.length += len(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._stop_timer()
        self._received = 0
        request = self._request
        request.body = b"".join(self._parts)
        request.keep_alive = self._parser.should_keep_alive()
        request.is_whole = True
        request.received = time.perf_counter()
        self._unanswered.append(request)

    # Answers.

    def _answer_all(self) -> None:
        """Answer what is whole, and then read on."""
        self._turn = None
        for _ in range(ANSWERS_AT_ONCE):
            if not self._unanswered or not self._may_answer:
                break
            self._answer(self._unanswered.popleft())
        self._pace()

    @property
    def _may_answer(self) -> bool:
        return not (self._waiting or self._is_full or self._ended)

    def _pace(self) -> None:
        """Go on with what is to be answered; read if there is nothing; have the client's time run only while it is waited for."""
        if self._ended:
            return
        if self._unanswered and self._may_answer and not self._turn:
            self._turn = asyncio.get_running_loop().call_soon(self._answer_all)
        reads = self._may_answer and not self._unanswered
        if reads != self._reading:
            self._reading = reads
            if reads:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()
        comes = reads and not self._request.is_whole
        if not (comes or self._is_full):
            self._stop_timer()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(REQUEST_SECONDS, self._cut)
        if comes and self._request.is_asking:
            self._request.is_asking = False
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _answer(self, asked: Request | HTTPStatus) -> None:
        if isinstance(asked, HTTPStatus):
            self._refuse(asked)
            return
        try:
            answer = self._serving.application(asked)
        except AnswerPendingError as pending:
            self._waiting = asyncio.get_running_loop().create_task(self._answer_later(asked, pending))
            return
        except Exception:
            log.exception("a request failed", target=asked.target[:200])
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR)
        else:
            last = not asked.keep_alive or self._serving.draining
            self._send(answer, last=last, with_body=asked.method != b"HEAD")
        if not self._ended:
            self._hold(-len(asked.body))

    async def _answer_later(self, request: Request, pending: AnswerPendingError) -> None:
        await pending.wait()
        self._waiting = None
        self._answer(request)
        self._answer_all()

    def _refuse(self, status: HTTPStatus) -> None:
        """Give an answer without the application's help, and then no other."""
        # client-go asks again at such an answer only if it says when.
        headers = (*TEXT, ("Retry-After", "1")) if status is HTTPStatus.SERVICE_UNAVAILABLE else TEXT
        self._send(Answer(status, headers, f"{status.phrase}\n".encode()), last=True)

    def _send(self, answer: Answer, *, last: bool, with_body: bool = True) -> None:
        head, length = _head(answer.status, answer.headers, int(time.time())), len(answer.body)
        end = b"\r\nConnection: close\r\n\r\n" if last else b"\r\n\r\n"
        self._transport.write(b"%bContent-Length: %d%b%b" % (head, length, end, answer.body if with_body else b""))
        if last:
            self._end()

    def _hold(self, size: int) -> None:
        """Count bytes that are held from now on, or not any more."""
        self._held += size
        self._serving.held += size

    def _drop(self) -> None:
        """Forget what was not answered."""
        self._unanswered.clear()
        self._parts = []
        self._hold(-self._held)

    def _end(self) -> None:
        """Close; a client that is still sending has a moment to read the answer, and every client a limit."""
        self._ended = True
        self._stop_timer()
        self._drop()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(REQUEST_SECONDS, self.abort)
        if self._request.is_whole:
            self.close()
            return
        # What it sends is read: to close before that would take the answer from it.
        self._transport.resume_reading()
        loop.call_later(LINGER_SECONDS, self.close)


@lru_cache(16)
def _head(status: HTTPStatus, headers: tuple[tuple[str, str], ...], second: int) -> bytes:
    """The beginning of an answer at a Unix time."""
    lines = [f"HTTP/1.1 {status.value} {status.phrase}", f"Date: {formatdate(second, usegmt=True)}"]
    return "\r\n".join((*lines, *(f"{name}: {value}" for name, value in headers), "")).encode("latin-1")
