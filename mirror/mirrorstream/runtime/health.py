"""`/metrics`, `/healthz` and `/readyz` on a port of their own, so that a probe never waits behind work."""

import http.server
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from mirrorstream.kube.errors import ConfigurationError
from mirrorstream.runtime.certs import Validity, validity_of
from mirrorstream.runtime.listening import BACKLOG, listen

log = structlog.get_logger(__name__)

Check = Callable[[], str | None]
"""Answers None when all is well, otherwise what is wrong, in one line."""


class _Certificate:
    """A certificate and its key in files, which are read again when they have changed."""

    def __init__(self, certificate: str, key: str) -> None:
        self._certificate, self._key = certificate, key
        self.context: ssl.SSLContext
        self.validity: Validity
        self._seen: tuple[bytes, bytes] = (b"", b"")
        try:
            self._load()
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"certificate {certificate} with key {key}: {error}") from error

    def _load(self) -> None:
        content = (Path(self._certificate).read_bytes(), Path(self._key).read_bytes())
        if content != self._seen:
            # A context that half a pair was loaded into would be of no use any more.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_cert_chain(self._certificate, self._key)
            self.validity = validity_of(content[0])
            self.context, self._seen = context, content

    def refresh(self) -> None:
        """Take over changed files; a pair that does not match (yet) leaves the old one in use."""
        try:
            self._load()
        except (OSError, ValueError) as error:
            log.warning("invalid certificate, keeping the previous one", file=self._certificate, error=str(error))


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = BACKLOG

    def __init__(self, port: int, handler: type[http.server.BaseHTTPRequestHandler], tls: _Certificate | None) -> None:
        self._tls = tls
        super().__init__(("", port), handler)

    def server_bind(self) -> None:
        """Bind to every address; the library's own knows one family, and asks DNS for a name that nothing here needs."""
        self.socket.close()
        self.socket = listen(self.server_address[1], purpose="metrics and health")
        self.server_address = self.socket.getsockname()[:2]

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection; the handshake is the handler's, in its own thread."""
        connection, address = super().get_request()
        if self._tls:
            self._tls.refresh()
            connection = self._tls.context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log at debug only: probes hang up, and handshakes fail, in normal operation."""
        log.debug("a connection failed", client=str(client_address), open=request.fileno() >= 0)


class HealthServer:
    """Serves probes and metrics; plain HTTP, or TLS with a certificate and key file that are read again when they change."""

    def __init__(
        self,
        port: int,
        registry: CollectorRegistry,
        *,
        healthy: Check,
        ready: Check,
        certificate: str | None = None,
        key: str | None = None,
    ) -> None:
        """Bind to `port` at once. Raises ConfigurationError when that, or the certificate, does not work."""

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 30

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/metrics":
                    encode, content_type = choose_encoder(self.headers.get("Accept", ""))
                    self._answer(200, encode(registry), content_type)
                elif path in ("/healthz", "/readyz"):
                    problem = (healthy if path == "/healthz" else ready)()
                    self._answer(503 if problem else 200, (problem or "ok").encode() + b"\n", "text/plain; charset=utf-8")
                else:
                    self._answer(404, b"not found\n", "text/plain; charset=utf-8")

            def _answer(self, code: int, body: bytes, content_type: str) -> None:
                self.send_response(code)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  http.server's name
                log.debug("probe", request=format % args)

        self._tls = tls = _Certificate(certificate, key) if certificate and key else None
        self._server = _Server(port, Handler, tls)
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._server.server_address[1])

    @property
    def validity(self) -> Validity | None:
        """From when until when the certificate that is served is valid; None over plain HTTP."""
        return self._tls.validity if self._tls else None

    def start(self) -> None:
        """Serve in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
