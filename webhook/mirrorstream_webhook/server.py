"""The HTTPS server: one event loop in a thread of its own, with Python's TLS, for all connections of the webhook's port.

A new certificate is shown to connections that begin from then on; those that are open stay as they are, so that no review is lost.
HTTP/2 is not offered: API servers ask a Service's webhook for HTTP/1.1 only.
"""

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import structlog
from mirrorstream.runtime.certs import CertificateError, CertificatePair, pair_fingerprint, read_pair
from mirrorstream.runtime.listening import BACKLOG, listen

from mirrorstream_webhook.connection import REQUEST_SECONDS, Application, Connection, Serving
from mirrorstream_webhook.tls import TlsTransport, server_context

log = structlog.get_logger(__name__)

MINIMUM_GRACE_SECONDS = 0.05
CHECK_SECONDS = 1.0
KEEPALIVE_SECONDS, KEEPALIVE_PROBES = 30, 3
"""A client that is gone is noticed after two minutes."""


class Server:
    """Serves an application on a port, over TLS with a pair of files that are read again when they change.

    `address` and `port` are bound at once. Without `certificate_file` it speaks plain HTTP, unless it is given a pair later on
    (`serve`), with the first of which it starts.
    """

    def __init__(
        self,
        application: Application,
        port: int,
        *,
        certificate_file: str | None = None,
        key_file: str | None = None,
        address: str = "",
        on_rotation: Callable[[bool], None] = lambda accepted: None,
    ) -> None:
        """Raises ConfigurationError when the port or the certificate cannot be used."""
        self._files = (certificate_file, key_file) if certificate_file and key_file else None
        self._on_rotation = on_rotation
        self._seen = pair_fingerprint(*self._files) if self._files else ""
        self.pair: CertificatePair | None = read_pair(*self._files) if self._files else None
        """The certificate that is served."""
        self._socket = listen(port, address)
        _set_options(self._socket)
        self.port = int(self._socket.getsockname()[1])
        """The port that is listened on."""
        self._serving = Serving(application)
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_failed)
        self._listener: asyncio.Server
        self._context = server_context(self.pair) if self.pair else None
        self._handshakes: set[TlsTransport] = set()
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._reviews = threading.Thread(target=self._loop.run_forever, name="reviews", daemon=True)
        self._watcher = threading.Thread(target=self._watch, name="certificates", daemon=True)

    def start(self) -> None:
        """Serve, and watch the certificate's files."""
        self._reviews.start()
        self._run(self._listen())
        self._watcher.start()

    def serve(self, pair: CertificatePair) -> None:
        """Serve with a certificate that was made in memory: the first one starts the server, each other one replaces the last.

        Nothing, once it has been stopped.
        """
        with self._lock:
            if self._stopped.is_set():
                return
            if self._reviews.is_alive():
                self._rotate(pair)
            else:
                self.pair, self._context = pair, server_context(pair)
                self.start()

    def drain(self) -> None:
        """Ask every client to connect again with its next answer, and go on serving: another replica is there for it."""
        self._serving.draining = True

    def stop(self, *, grace: float = 0.0) -> None:
        """Stop accepting, go on for `grace` seconds with the connections that there are, and wait until what runs is answered."""
        with self._lock:
            self._stopped.set()
            if self._reviews.is_alive():
                self._run(self._end(grace))
                self._loop.call_soon_threadsafe(self._loop.stop)
                self._reviews.join()
            self._socket.close()
            self._loop.close()

    def refresh(self) -> None:
        """Take over the files if they have changed; a pair that cannot be used (yet) leaves the old one in use."""
        assert self._files, "only called with files"  # noqa: S101  tells mypy; `None` would fail in the next line
        with self._lock:  # the second of two calls finds nothing new
            seen = pair_fingerprint(*self._files)
            if seen == self._seen or self._stopped.is_set():
                return
            self._seen = seen
            try:
                pair = read_pair(*self._files)
            except CertificateError as error:
                log.warning("invalid certificate, keeping the previous one", error=str(error))
                self._on_rotation(False)
                return
            if pair != self.pair:
                try:
                    self._rotate(pair)
                except Exception:
                    self._seen = ""  # so that it is tried again
                    raise

    def _rotate(self, pair: CertificatePair) -> None:
        self._context = server_context(pair)
        self.pair = pair
        log.info("serving a new certificate", not_after=pair.not_after.isoformat())
        self._on_rotation(True)

    def _watch(self) -> None:
        told = 0, 0
        while not self._stopped.wait(CHECK_SECONDS):
            try:
                if self._files:
                    self.refresh()
            except Exception:  # a bug must not end the watch, or the next certificate is never taken
                log.exception("certificate check failed, will retry")
            if (cut := self._serving.cut) > told[0]:
                log.warning("closed connections with incomplete requests or unread answers", connections=cut - told[0])
            if (crowded := self._serving.crowded) > told[1]:
                log.warning("refused requests, too many request bodies in memory", requests=crowded - told[1])
            told = cut, crowded

    # What runs in the event loop.

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _listen(self) -> None:
        self._listener = await self._loop.create_server(self._accept, sock=self._socket, backlog=BACKLOG)

    def _accept(self) -> asyncio.Protocol:
        connection = Connection(self._serving)
        return TlsTransport(self._context, connection, self._handshakes) if self._context else connection

    async def _end(self, grace: float) -> None:
        """Close every connection: when its next request is answered, then when it is idle, and in the end all that are left."""
        self._serving.draining = True
        for listener in self._listener.sockets:
            self._loop.remove_reader(listener.fileno())
        await asyncio.sleep(0)  # or asyncio would drop a connection that it has just accepted
        self._listener.close()
        # For connections in their handshake, too.
        await asyncio.sleep(max(grace, MINIMUM_GRACE_SECONDS))
        for connection in list(self._serving.connections):
            if connection.is_idle:
                connection.close()
        await self._empty(REQUEST_SECONDS)
        for connection in list(self._serving.connections):
            connection.abort()
        for handshake in list(self._handshakes):
            handshake.abort()
        await self._empty(MINIMUM_GRACE_SECONDS)

    async def _empty(self, seconds: float) -> None:
        """Wait until no connection is left, but no longer than that."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._serving.connections:
                    self._serving.lost.clear()
                    await self._serving.lost.wait()


def _failed(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:  # noqa: ARG001  asyncio's signature
    log.error("a connection failed", problem=context["message"], exc_info=context.get("exception"))


def _set_options(listener: socket.socket) -> None:
    """Set what connections take over from their listener (Linux)."""
    # asyncio sets it only for sockets whose protocol was named.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # A client whose machine is gone says nothing: its idle connection would stay until we end.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, KEEPALIVE_SECONDS),
        (socket.TCP_KEEPINTVL, KEEPALIVE_SECONDS),
        (socket.TCP_KEEPCNT, KEEPALIVE_PROBES),
    ):
        listener.setsockopt(socket.IPPROTO_TCP, option, value)
