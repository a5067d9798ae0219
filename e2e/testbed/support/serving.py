"""A threaded HTTP server that can end for good: kept-alive connections, too."""

import contextlib
import http.server
import socket
from typing import Any


class EndableServer(http.server.ThreadingHTTPServer):
    """One thread a connection; what goes wrong with a connection is the client's to notice."""

    daemon_threads = True
    request_queue_size = 512

    def __init__(self, *args: Any, **options: Any) -> None:
        self._open: set[socket.socket] = set()
        super().__init__(*args, **options)

    def end(self) -> None:
        """Listen no more and cut every connection, as if the process had ended; not while `serve_forever` runs."""
        self.server_close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection."""
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget the connection."""
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that hang up, or refuse the certificate."""
