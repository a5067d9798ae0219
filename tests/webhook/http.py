"""Requests of the webhook's application, and bytes of its connections, without a socket."""

import asyncio
import time
from typing import Any

from mirrorstream_webhook.app import PATH, Deps, create_application
from mirrorstream_webhook.connection import Answer, Application, Connection, Request, Serving
from mirrorstream_webhook.metrics import ReviewMetrics
from mirrorstream_webhook.review import Reviewer

from tests.webhook.builders import Bed


def application(bed: Bed, metrics: ReviewMetrics, problem: str | None = None) -> Application:
    """What the server calls, on what a bed decides; `problem` is why it is not ready."""
    return create_application(Deps(Reviewer(bed.decider, metrics), metrics, healthy=lambda: None, ready=lambda: problem))


def request(body: bytes = b"", *, method: str = "POST", path: str = PATH, content_type: str = "application/json") -> Request:
    """A request as a connection hands it over."""
    headers = {b"content-type": content_type.encode()} if content_type else {}
    return Request(method.encode(), path.encode(), headers, body, len(body), time.perf_counter(), has_head=True, is_whole=True)


def post(asked: Application, body: bytes) -> tuple[int, bytes]:
    """The status and the body of the answer to a review."""
    answer: Answer = asked(request(body))
    return answer.status.value, answer.body


class _Wire(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def write(self, data: Any) -> None:
        self.written += data

    def close(self) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


def converse(asked: Application, *pieces: bytes) -> bytes:
    """What a connection answers to bytes that come in these pieces."""

    async def run() -> bytes:
        wire, connection = _Wire(), Connection(Serving(asked))
        connection.connection_made(wire)
        for piece in pieces:
            connection.data_received(piece)
        connection.connection_lost(None)
        return wire.written

    return asyncio.run(run())
