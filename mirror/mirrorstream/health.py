"""`/metrics`, `/healthz` and `/readyz` on a port of their own, so that a probe never waits behind work."""

import http.server
import ssl
import threading
from collections.abc import Callable

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

log = structlog.get_logger(__name__)

Check = Callable[[], str | None]
"""Answers None when all is well, otherwise what is wrong, in one line."""


class HealthServer:
    """Serves probes and metrics; plain HTTP, or TLS with a certificate and key file that are read again when they change."""

    def __init__(
        self,
        port: int,
        registry: CollectorRegistry,
        *,
        healthy: Check,
        ready: Check,
        address: str = "",
        certificate: str | None = None,
        key: str | None = None,
    ) -> None:
        """Bind to `port` at once. Raises OSError."""

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

        self._server = http.server.ThreadingHTTPServer((address, port), Handler)
        self._server.daemon_threads = True
        if certificate and key:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_cert_chain(certificate, key)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Serve in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
