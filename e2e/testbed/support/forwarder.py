"""A port that forwards connections to whichever server is ready, as a Service does."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Backend = tuple[int, Callable[[], bool]]
"""A port on this machine, and whether what listens there says that it is ready."""
CHECK_SECONDS = 0.1


class _Forwarder:
    def __init__(self, backends: list[Backend]) -> None:
        self._backends = backends
        self._ready: list[int] = []
        self._turn = 0
        self._stopped = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = int(self._listener.getsockname()[1])
        self._check()
        for work in (self._watch, self._accept):
            threading.Thread(target=work, daemon=True).start()

    def _check(self) -> None:
        self._ready = [port for port, ready in list(self._backends) if _says(ready)]

    def _watch(self) -> None:
        while not self._stopped.wait(CHECK_SECONDS):
            self._check()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            ready = self._ready
            if not ready:
                connection.close()
                continue
            self._turn += 1
            try:
                server = socket.create_connection(("127.0.0.1", ready[self._turn % len(ready)]))
            except OSError:  # it has just ended, and nobody knows it yet
                connection.close()
                continue
            threading.Thread(target=_forward, args=(connection, server), daemon=True).start()

    def stop(self) -> None:
        """Accept no more."""
        self._stopped.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def _says(ready: Callable[[], bool]) -> bool:
    try:
        return ready()
    except (OSError, AssertionError):
        return False


def _forward(connection: socket.socket, server: socket.socket) -> None:
    """Both ways, until one side ends."""
    with connection, server:
        back = threading.Thread(target=_pump, args=(server, connection), daemon=True)
        back.start()
        _pump(connection, server)
        back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    """Forward bytes until one side ends."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for side in (source, target):
        with contextlib.suppress(OSError):
            side.shutdown(socket.SHUT_RDWR)


def forwarding(*backends: Backend) -> AbstractContextManager[int]:
    """A forwarder for as long as the context lasts; its port."""
    return forwarding_to(list(backends))


@contextmanager
def forwarding_to(backends: list[Backend]) -> Iterator[int]:
    """The same, to a list that may change while it runs."""
    forwarder = _Forwarder(backends)
    try:
        yield forwarder.port
    finally:
        forwarder.stop()
