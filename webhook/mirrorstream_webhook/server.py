"""The HTTPS server: granian's workers, run in this process so that a new certificate needs no new index.

granian's own supervisor would start another process for each certificate, which would have to list and index all streams before
the old one may go, and metrics and probes would have to move with it. A worker here is a thread with its own TLS configuration;
all of them accept from one listening socket, so that none takes waiting connections with it when it ends.

The classes that this uses are granian's own inside (2.8); the version is pinned, and `tests/webhook/test_server.py` holds it to
what is needed of them.
"""

import asyncio
import errno
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog
from granian import _granian
from granian._futures import _new_cbscheduler
from granian.wsgi import _callback_wrapper
from mirrorstream.certs import CertificateError, CertificatePair, pair_fingerprint, read_pair
from mirrorstream.kube.errors import ConfigurationError

from mirrorstream_webhook.connections import HTTP2, cut_silent

log = structlog.get_logger(__name__)

THREADS = 2
"""For reviews. They share one interpreter lock: at 32 connections 2 threads answer 19,000 reviews a second, 16 threads 5,000."""
MORE_THREADS = 16
"""So many times more has the next worker, when every thread of one is held: by a body that does not come, say."""
MOST_THREADS = 512
BACKLOG = 1024
RETIREMENT_SECONDS = 2.0
"""How long a worker that accepts no more goes on, asking its clients to connect again: long enough for all that are busy."""
LAST_SECONDS = 3.0
"""No review runs for longer: the API server does not wait for it. What does is a body that does not come, and is cut."""
CHECK_SECONDS = 1.0

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

_inside: Any = _granian  # its stubs are those of another version
_new_scheduler: Any = _new_cbscheduler


class Server:
    """Serves a WSGI application on a port, over TLS with a pair of files that are read again when they change.

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
        self._application = application
        self._files = (certificate_file, key_file) if certificate_file and key_file else None
        self._on_rotation = on_rotation
        self._seen = pair_fingerprint(*self._files) if self._files else ""
        self.pair: CertificatePair | None = read_pair(*self._files) if self._files else None
        """The certificate that is served."""
        self._socket = _listen(address, port)
        self.port = int(self._socket.getsockname()[1])
        """The port that is listened on."""
        self._worker: _Worker | None = None
        self._draining = False
        self._retiring: list[tuple[threading.Thread, _Worker]] = []
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._refreshing = threading.Lock()
        self._watcher = threading.Thread(target=self._watch, name="certificates", daemon=True)

    def start(self) -> None:
        """Serve, and watch the certificate's files."""
        self._worker = _Worker(self._application, self._socket, self.pair, THREADS)
        self._watcher.start()

    def serve(self, pair: CertificatePair) -> None:
        """Serve with a certificate that was made in memory: the first one starts the server, each other one replaces the last.

        Nothing, once it has been stopped.
        """
        if self._stopped.is_set():
            return
        if self._worker is None:
            self.pair = pair
            self.start()
        else:
            self._rotate(pair)

    def drain(self) -> None:
        """Ask every client to connect again with its next answer, and go on serving: another replica is there for it."""
        with self._lock:
            self._draining = True
            if self._worker:
                self._worker.draining = True

    def stop(self, *, grace: float = 0.0) -> None:
        """Stop accepting, go on for `grace` seconds with the connections that there are, and wait until what runs is answered."""
        self._stopped.set()
        with self._lock:
            self._socket.close()
            if self._worker:
                self._worker.retire(grace, LAST_SECONDS)
            deadline = time.monotonic() + LAST_SECONDS
            for thread, _ in self._retiring:
                thread.join(max(0.0, deadline - time.monotonic()))

    def _watch(self) -> None:
        while not self._stopped.wait(CHECK_SECONDS):
            try:
                if self._files:
                    self.refresh()
                self._go_on()
                self._let_go()
            except Exception:  # a bug must not end the watch, or the next certificate is never taken
                log.exception("the server could not be looked after, trying again")

    def refresh(self) -> None:
        """Take over the files if they have changed; a pair that cannot be used (yet) leaves the old one in use."""
        assert self._files, "only called with files"  # noqa: S101  tells mypy; `None` would fail in the next line
        with self._refreshing:  # whoever comes second finds nothing new
            seen = pair_fingerprint(*self._files)
            if seen == self._seen:
                return
            self._seen = seen
            try:
                pair = read_pair(*self._files)
            except CertificateError as error:
                log.warning("the new certificate cannot be used, the old one stays", error=str(error))
                self._on_rotation(False)
                return
            if pair != self.pair:
                self._rotate(pair)

    def _rotate(self, pair: CertificatePair) -> None:
        old = self.pair
        self.pair = pair
        # Clients refuse an expired certificate: there is nothing to go on with.
        self._replace(THREADS, RETIREMENT_SECONDS if old and old.is_valid_now else 0.0)
        log.info("a new certificate is served", not_after=pair.not_after.isoformat())
        self._on_rotation(True)

    def _go_on(self) -> None:
        """Have a worker with more threads, if all of the present one's are held by requests that do not end."""
        worker = self._worker
        if worker is None or not worker.is_held() or worker.threads >= MOST_THREADS:
            return
        threads = min(worker.threads * MORE_THREADS, MOST_THREADS)
        log.warning("requests that do not end hold every thread, going on with more", threads=threads)
        self._replace(threads, RETIREMENT_SECONDS)

    def _let_go(self) -> None:
        """Have back the threads of requests that do not end, whichever worker they came to."""
        with self._lock:
            workers = [worker for worker in (self._worker, *(worker for _, worker in self._retiring)) if worker]
        if any(worker.longest() > LAST_SECONDS for worker in workers) and (count := cut_silent(self.port, LAST_SECONDS)):
            log.warning("requests do not come whole, silent connections were cut", connections=count)

    def _replace(self, threads: int, seconds: float) -> None:
        """Go on with a new worker, and let the present one go on for so long with the connections that it has."""
        with self._lock:
            if self._stopped.is_set() or self._worker is None:
                return
            old = self._worker
            self._worker = _Worker(self._application, self._socket, self.pair, threads)
            self._worker.draining = self._draining
            retire = threading.Thread(target=old.retire, args=(seconds,), name="retire", daemon=True)
            self._retiring = [(thread, worker) for thread, worker in self._retiring if thread.is_alive()] + [(retire, old)]
            retire.start()


def _listen(address: str, port: int) -> socket.socket:
    """A listening socket; for every address, IPv6 and IPv4, where none is named."""
    listener = _bind(address, port)
    # Connections take it over (Linux). Without it the second part of an answer waits until the client acknowledges the first,
    # which it puts off for 40 ms: one review in ten over HTTP/2, as kube-apiserver speaks it where it can.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _bind(address: str, port: int) -> socket.socket:
    try:
        if not address and socket.has_dualstack_ipv6():
            try:
                return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG)
            except OSError as error:
                # Where the kernel's IPv6 is switched off, IPv4 is all that there is.
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
        return socket.create_server((address, port), backlog=BACKLOG)
    except OSError as error:
        raise ConfigurationError(f"port {port}: {error.strerror}") from error


class _Worker:
    """One granian worker: accepts until it is stopped, with the certificate that it began with."""

    def __init__(self, application: Application, listener: socket.socket, pair: CertificatePair | None, threads: int) -> None:
        self.draining = False
        self.threads = threads
        self._running: dict[object, float] = {}
        self._ran_before: set[object] = set()
        self._signal = _inside.WorkerSignal()
        self._ended = threading.Event()
        self._signal.add_cb(self._ended.set)  # called once everything that ran is answered
        self._memory = [_in_memory(content) for content in ((pair.certificate, pair.key) if pair else ())]
        # It reads the files itself, when it likes: from memory they are those that were checked, and both of one pair.
        paths: list[str | None] = [f"/proc/self/fd/{number}" for number in self._memory] or [None, None]
        # A worker closes the descriptor that it was given.
        self._listener = os.dup(listener.fileno())
        holder = _inside.SocketHolder(self._listener, False, BACKLOG)
        worker = _inside.WSGIWorker(
            1,  # its number
            (None, holder),
            None,  # no pipe to a parent
            1,  # thread for connections
            512,  # threads for files, which it has none of
            threads,
            30,  # seconds until an idle one of them ends
            BACKLOG,
            "auto",  # HTTP/1.1 and HTTP/2
            None,
            HTTP2,
            None,
            *(pair is not None, *paths, None, "tls1.2", None, [], False),
            (None, None),  # no metrics of its own
        )
        self._loop = asyncio.new_event_loop()  # never run: WSGI needs none, but the scheduler is made with one
        callback = _callback_wrapper(self._watched(application), {})
        scheduler = _new_scheduler(self._loop, callback, impl_asyncio=True)
        worker.serve_mtr(scheduler, self._loop, self._signal)

    def _watched(self, application: Application) -> Application:
        """The application, with what runs counted, and each answer asking its client to connect again once this worker is to end.

        HTTP/2 has its own way to say so, which the worker uses when it ends.
        """
        running = self._running

        def wrapped(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            request = object()
            running[request] = time.monotonic()
            try:
                if not self.draining or environ["SERVER_PROTOCOL"] == "HTTP/2":
                    return application(environ, start_response)
                return application(environ, _closing(start_response))
            finally:
                del running[request]

        return wrapped

    def is_held(self) -> bool:
        """Whether every thread runs what it ran when this was asked before."""
        running, before = set(self._running.copy()), self._ran_before
        self._ran_before = running
        return len(running & before) >= self.threads

    def longest(self) -> float:
        """For how many seconds what has been running for longest has been."""
        return time.monotonic() - min(self._running.copy().values(), default=math.inf)

    def _wait_listening(self) -> None:
        """Wait until the worker listens: it begins in threads of its own, and ends the process when its socket goes before."""
        deadline = time.monotonic() + LAST_SECONDS
        while not _is_polled(self._listener) and time.monotonic() < deadline:
            self._ended.wait(0.01)

    def retire(self, seconds: float, longest: float | None = None) -> None:
        """Accept no more, go on for so long with the connections that there are, then wait until what runs is answered.

        The last wait ends after `longest` seconds: whoever sends no body gets no answer.
        """
        self.draining = True
        self._wait_listening()
        # A worker that is told to end drops connections in the middle of their handshake, and has no way to be told only to
        # accept no more. So its listening socket is replaced, under the same number, by one to which nobody connects.
        with socket.socket(socket.AF_UNIX) as nobody:
            nobody.setblocking(False)
            nobody.bind("")
            nobody.listen(1)
            os.dup2(nobody.fileno(), self._listener, inheritable=False)
        threading.Event().wait(seconds)
        self._signal.set()
        self._ended.wait(longest)
        self._loop.close()
        for number in self._memory:
            with suppress(OSError):
                os.close(number)


def _is_polled(number: int) -> bool:
    """Whether a descriptor of this process is in one of its epoll sets."""
    for entry in Path("/proc/self/fdinfo").iterdir():
        try:
            lines = entry.read_text(encoding="ascii").splitlines()
        except OSError:  # closed meanwhile
            continue
        if any(line.startswith("tfd:") and int(line.split()[1]) == number for line in lines):
            return True
    return False


def _closing(start_response: Callable[..., Any]) -> Callable[..., Any]:
    def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        return start_response(status, [*headers, ("Connection", "close")], exc_info)

    return start


def _in_memory(content: bytes) -> int:
    """A file that is in memory only; its descriptor."""
    number = os.memfd_create("certificate")
    with os.fdopen(os.dup(number), "wb") as file:
        file.write(content)
    return number
