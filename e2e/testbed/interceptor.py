"""What stands between a program and its API server, and lets a test decide what becomes of each request.

    with intercepted(kubeconfig, folder) as between:
        program = Controller(between.kubeconfig, …)
        with between.when("update", "/imagestreams/app/status$", lose_answer, times=1):
            …

Everything else passes unchanged, with the program's own credentials, over TLS when the API server speaks TLS. What happens to a
request is a function of the `Exchange`; `e2e/testbed/faults/actions.py` has
the common ones, and a test may write its own.
"""

import contextlib
import http.server
import json
import re
import select
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import urllib3
import yaml
from mirrorstream.kube.verbs import verb

from e2e.testbed.support.certificates import Authority

GONE_SECONDS = 0.05
_PASSED_ON = ("Accept", "Authorization", "Content-Type", "User-Agent")
Lines = Callable[[Iterator[bytes]], Iterable[bytes]]
"""What becomes of a watch: the lines that come from the API server, each with its line break -> the bytes that the program gets."""


@dataclass(frozen=True)
class Seen:
    """A request that came by: when (monotonic), Kubernetes' verb, the path, the status of the answer (0: none), the user agent."""

    at: float
    verb: str
    path: str
    status: int
    agent: str


class Reset(Exception):  # noqa: N818  not an error: what the test asks for
    """The program's connection is to be cut."""


class Exchange:
    """One request on its way, and all that can be done with it."""

    def __init__(self, handler: "_Handler", owner: "Interceptor") -> None:
        url = urlsplit(handler.path)
        self._handler, self._owner = handler, owner
        self.path = url.path
        self.params = dict(parse_qsl(url.query, keep_blank_values=True))
        self.verb = verb(handler.command, url.path, self.params)
        self.body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        self.agent = handler.headers.get("User-Agent", "")
        self.at = time.monotonic()
        self.status = 0
        self._upstream: urllib3.BaseHTTPResponse | None = None

    def json(self) -> Any:
        """The request's body."""
        return json.loads(self.body)

    def forward(self) -> urllib3.BaseHTTPResponse:
        """Have the API server carry it out; its answer, of which nothing is read yet. Raises Reset when none comes."""
        headers = {name: value for name in _PASSED_ON if (value := self._handler.headers.get(name))}
        headers["User-Agent"] = f"{self.agent} {self._owner.mark}".strip()
        try:
            self._upstream = self._owner.pool.request(
                self._handler.command,
                self._owner.server + self._handler.path,
                body=self.body or None,
                headers=headers,
                preload_content=False,
                timeout=urllib3.Timeout(connect=5, read=None),
            )
        except urllib3.exceptions.HTTPError as error:
            raise Reset from error
        return self._upstream

    def pass_on(self, answer: urllib3.BaseHTTPResponse | None = None, lines: Lines = lambda lines: lines) -> None:
        """Give the program an answer of the API server's, by default that to this request; of a watch, what `lines` makes of it."""
        answer = answer or self.forward()
        self.status = answer.status
        kind = answer.headers.get("Content-Type", "application/json")
        retry = {"Retry-After": answer.headers["Retry-After"]} if "Retry-After" in answer.headers else {}
        if self.verb != "watch" or answer.status != 200:
            self.answer(answer.status, self.read(answer), {"Content-Type": kind, **retry})
            return
        self.start({"Content-Type": kind, "Transfer-Encoding": "chunked"})
        for data in lines(_lines(answer)):
            self.send(b"%x\r\n%s\r\n" % (len(data), data))
        self.send(b"0\r\n\r\n")

    def read(self, answer: urllib3.BaseHTTPResponse) -> bytes:
        """The whole body of an answer. Raises Reset when it breaks off."""
        try:
            data: bytes = answer.read(decode_content=True)
        except urllib3.exceptions.HTTPError as error:
            raise Reset from error
        answer.release_conn()
        return data

    def answer(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        """Give the program an answer of the test's own: bytes, or JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.start({"Content-Type": "application/json", **(headers or {}), "Content-Length": str(len(data))}, status)
        self.send(data)

    def start(self, headers: dict[str, str], status: int = 200) -> None:
        """Send the head of an answer."""
        self.status = status
        self._handler.send_response_only(status)
        for name, value in headers.items():
            self._handler.send_header(name, value)
        self._handler.end_headers()

    def send(self, data: bytes) -> None:
        """Send a part of an answer's body as it is."""
        self._handler.wfile.write(data)
        self._handler.wfile.flush()

    def gone(self) -> bool:
        """Whether the program has closed its connection, or the interceptor has."""
        try:
            return self._owner.stopped.is_set() or bool(select.select([self._handler.connection], [], [], GONE_SECONDS)[0])
        except (OSError, ValueError):
            return True

    def cut(self) -> None:
        """Close both connections from another thread, whatever they wait for."""
        with contextlib.suppress(OSError):
            self._handler.connection.shutdown(socket.SHUT_RDWR)
        if self._upstream is not None:
            with contextlib.suppress(Exception):  # read to its end
                self._upstream.shutdown()

    def wait(self, seconds: float) -> None:
        """Let time pass, unless the interceptor stops."""
        self._owner.stopped.wait(seconds)

    def finish(self) -> None:
        """Read no more of an answer that was not read to its end."""
        if self._upstream is not None:
            self._upstream.close()


def _lines(answer: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    """The lines of a watch, until the API server ends it."""
    assert answer.headers.get("Transfer-Encoding") == "chunked", "not a watch"
    rest = b""
    with contextlib.suppress(urllib3.exceptions.HTTPError, OSError, ValueError, AttributeError):
        for chunk in answer.read_chunked(decode_content=True):
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                yield line + b"\n"


Action = Callable[[Exchange], None]
"""What becomes of a request."""


@dataclass
class _Rule:
    verb: str
    path: re.Pattern[str]
    action: Action
    left: int | None
    hits: int = 0


class Interceptor:
    """See the module. `requests` are those that ended; `open` those under way."""

    def __init__(self, kubeconfig: Path, folder: Path, mark: str = "") -> None:
        """Listen on a port of its own, for programs that would use `kubeconfig`; certificates and a kubeconfig go into `folder`.

        `mark` is added to the user agent, for the API server's log to tell programs apart.
        """
        self.mark = mark
        document = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))
        cluster = document["clusters"][0]["cluster"]
        self.server = str(cluster["server"]).rstrip("/")
        user = document["users"][0]["user"]
        self.pool = urllib3.PoolManager(
            maxsize=64,
            retries=False,
            ca_certs=cluster.get("certificate-authority"),
            cert_file=user.get("client-certificate"),  # tokens are in the requests themselves
            key_file=user.get("client-key"),
        )
        self.requests: list[Seen] = []
        self.stopped = threading.Event()
        self.mistakes: list[BaseException] = []
        self._rules: list[_Rule] = []
        self._open: set[Exchange] = set()
        self.connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._folder = folder
        self._context: ssl.SSLContext | None = None
        self.authority_file = folder / "in-between.crt"
        if self.server.startswith("https:"):
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.renew()
            cluster["certificate-authority"] = str(self.authority_file)
        self._httpd = _Server(("127.0.0.1", 0), self)
        scheme = "https" if self._context else "http"
        cluster["server"] = f"{scheme}://localhost:{self._httpd.server_address[1]}"
        self.kubeconfig = folder / f"in-between-{self._httpd.server_address[1]}.kubeconfig"
        self.kubeconfig.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
        self._thread = threading.Thread(target=self._httpd.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def renew(self) -> None:
        """Serve a certificate of a new authority to new connections, and write that authority to where the kubeconfig names it."""
        assert self._context, "the API server speaks plain HTTP"
        authority = Authority(self._folder / f"in-between-{time.monotonic_ns()}", "in-between")
        pair = authority.issue("api", hosts=("localhost",))
        self._context.load_cert_chain(pair.certificate, pair.key)
        self.authority_file.write_bytes(authority.certificate.read_bytes())

    @contextmanager
    def when(self, verb: str, path: str, action: Action, *, times: int | None = None) -> Iterator[_Rule]:
        """Let `action` decide about requests with that verb (Kubernetes'; `*`: any) whose path matches, `times` of them at most.

        The rule that was made last decides. What is given back counts `hits`.
        """
        rule = _Rule(verb, re.compile(path), action, times)
        with self._lock:
            self._rules.insert(0, rule)
        try:
            yield rule
        finally:
            with self._lock:
                self._rules.remove(rule)

    def drop(self, verb: str = "*", path: str = "") -> int:
        """Cut the connections of such requests that are under way; how many there were."""
        with self._lock:
            found = [e for e in self._open if verb in ("*", e.verb) and re.search(path, e.path)]
        for exchange in found:
            exchange.cut()
        return len(found)

    def disconnect(self) -> None:
        """Cut every connection, those that wait for their next request included."""
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def count(self, verb: str = "*", path: str = "", since: float = 0) -> int:
        """How many requests with that verb and path have come since then (monotonic), those under way included."""
        with self._lock:
            seen = [(s.verb, s.path, s.at) for s in self.requests] + [(e.verb, e.path, e.at) for e in self._open]
        return sum(verb in ("*", v) and bool(re.search(path, p)) and at >= since for v, p, at in seen)

    def seen(self, verb: str, path: str) -> list[Seen]:
        """Such requests that ended or are under way, the latter with status 0."""
        with self._lock:
            known = self.requests + [Seen(e.at, e.verb, e.path, 0, e.agent) for e in self._open]
        return [seen for seen in known if seen.verb == verb and re.search(path, seen.path)]

    def act(self, exchange: Exchange) -> None:
        """What becomes of a request."""
        with self._lock:
            self._open.add(exchange)
            action = self._decided(exchange)
        try:
            action(exchange)
        finally:
            exchange.finish()
            with self._lock:
                self._open.discard(exchange)
                self.requests.append(Seen(exchange.at, exchange.verb, exchange.path, exchange.status, exchange.agent))

    def _decided(self, exchange: Exchange) -> Action:
        for rule in self._rules:
            if rule.verb in ("*", exchange.verb) and rule.path.search(exchange.path) and rule.left != 0:
                rule.left = None if rule.left is None else rule.left - 1
                rule.hits += 1
                return rule.action
        return Exchange.pass_on

    def secured(self, connection: socket.socket) -> socket.socket:
        """A connection as the program expects it; the handshake is for the connection's own thread."""
        if self._context is None:
            return connection
        return self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)

    def stop(self) -> None:
        """Accept no more, and cut what is under way. Raises what an action of a test raised."""
        self.stopped.set()
        self._httpd.shutdown()
        self._httpd.server_close()
        self.drop()
        self._thread.join()
        self.pool.clear()
        if self.mistakes:
            raise self.mistakes[0]


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, address: tuple[str, int], owner: Interceptor) -> None:
        self.owner = owner
        super().__init__(address, _Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        secured = self.owner.secured(connection)
        self.owner.connections.add(secured)
        return secured, address

    def shutdown_request(self, request: Any) -> None:
        """Forget a connection that is over."""
        self.owner.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A program that ends in the middle of a handshake is no news; a test's own mistake is, and `stop` tells it."""
        error = sys.exception()
        if error is not None and not isinstance(error, OSError):
            self.owner.mistakes.append(error)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  http.server's name
        """Requests are remembered by the interceptor."""

    def do_GET(self) -> None:
        """Any method."""
        owner = self.server.owner
        try:
            owner.act(Exchange(self, owner))
        except (Reset, OSError, ValueError):
            # A broken pipe: the program is gone, as it should be where it was killed. ValueError: written to what `cut` has closed.
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815  http.server's names


@contextmanager
def intercepted(kubeconfig: Path, folder: Path, mark: str = "") -> Iterator[Interceptor]:
    """An interceptor for as long as the context lasts."""
    between = Interceptor(kubeconfig, folder, mark)
    try:
        yield between
    finally:
        between.stop()
