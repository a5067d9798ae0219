"""The server under the webhook: TLS, new certificates, and its end, from a Go client as kube-apiserver is one."""

import asyncio
import errno
import http.client
import json
import os
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from mirrorstream.runtime.certs import CertificatePair
from mirrorstream_webhook import server as serving
from mirrorstream_webhook.access import AnswerPendingError
from mirrorstream_webhook.connection import REQUEST_SECONDS, Answer, Application, Request
from mirrorstream_webhook.server import Server

from e2e.testbed.load import Load
from e2e.testbed.support.certificates import Authority, Pair
from e2e.testbed.support.waiting import PATIENCE, wait_for

ANSWER = json.dumps({"response": {"uid": "u", "allowed": True, "patch": "W10="}}).encode()
REVIEW_SECONDS = 0.8
"""The longest that a review waits for the API server."""


def application(request: Request) -> Answer:
    """Answers a review."""
    return Answer(HTTPStatus.OK, (("Content-Type", "application/json"),), ANSWER)


def waiting(wait: Callable[[], Awaitable[Any]]) -> Application:
    """An application that has each request wait once before it answers."""
    waited: set[int] = set()

    async def awaited(request: Request) -> None:
        await wait()
        waited.add(id(request))

    def answer(request: Request) -> Answer:
        if id(request) not in waited:
            raise AnswerPendingError(partial(awaited, request))
        waited.discard(id(request))
        return application(request)

    return answer


class Bed:
    """A server with a certificate of an authority of its own."""

    def __init__(self, folder: Path, app: Application = application) -> None:
        self.folder = folder
        self.authority = Authority(folder / "pki", "authority")
        self.certificate, self.key = folder / "tls.crt", folder / "tls.key"
        self.renew()
        self.rotations: list[bool] = []
        self.server = Server(
            app,
            0,
            certificate_file=str(self.certificate),
            key_file=str(self.key),
            address="127.0.0.1",
            on_rotation=self.rotations.append,
        )
        self.server.start()

    def renew(self) -> None:
        """Another certificate, in the same files."""
        pair: Pair = self.authority.issue("server", hosts=("localhost",))
        shutil.copyfile(pair.certificate, self.certificate)
        shutil.copyfile(pair.key, self.key)

    def serial(self, name: str | None = "localhost") -> int:
        """The serial number of the certificate that a new client is shown, which may ask for no host by name."""
        from cryptography import x509

        with (
            socket.create_connection(("127.0.0.1", self.server.port), 5) as plain,
            self.context(check=name is not None).wrap_socket(plain, server_hostname=name) as tls,
        ):
            der = tls.getpeercert(binary_form=True)
            assert der
            return x509.load_der_x509_certificate(der).serial_number

    def context(self, *, check: bool = True) -> ssl.SSLContext:
        """What a client trusts."""
        context = ssl.create_default_context(cafile=str(self.authority.certificate))
        context.check_hostname = check
        return context

    def load(self, body: Any = None, **more: Any) -> Load:
        """A Go client."""
        url = f"https://localhost:{self.server.port}/"
        return Load(url, [body or {"a": 1}], self.folder, ca=self.authority.certificate, **more)


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    """A running server."""
    running = Bed(tmp_path)
    yield running
    running.server.stop()


go = pytest.mark.skipif(shutil.which("go") is None, reason="the client is built with Go")


@go
@pytest.mark.parametrize(
    ("http2", "draining"),
    [
        pytest.param(False, False, id="http1"),
        pytest.param(True, False, id="http2"),
        pytest.param(False, True, id="each-on-a-new-connection"),
    ],
)
def test_certificates_change_under_load_without_a_failed_review(bed: Bed, http2: bool, draining: bool) -> None:
    """Again and again: every review is answered, on kept and on new connections, and new ones see the new certificate."""
    if draining:
        bed.server.drain()
    load = bed.load(connections=8, http2=http2)
    for _ in range(4):
        before = bed.serial()
        bed.renew()
        bed.server.refresh()
        wait_for("the new certificate is served to all", lambda before=before: before not in {bed.serial() for _ in range(20)})
    outcome = load.outcome()
    assert outcome.failures == {}
    assert outcome.patched == outcome.reviews > 10
    assert set(outcome.protocols) == {"HTTP/1.1"}
    assert bed.rotations.count(True) == 4  # the watch may find one half of a pair


def test_no_part_of_an_answer_waits_for_the_client_to_acknowledge_another(bed: Bed) -> None:
    """The client puts that off for 40 ms."""
    with half_a_request(bed) as client:
        connection = accepted(client.getsockname())
        assert connection
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_client_whose_machine_is_gone_is_noticed(bed: Bed) -> None:
    """Its idle connection would stay as long as the program runs."""
    with half_a_request(bed, b"") as client:
        connection = accepted(client.getsockname())
        assert connection
        with connection:
            assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            waits = [connection.getsockopt(socket.IPPROTO_TCP, o) for o in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL)]
            assert waits == [serving.KEEPALIVE_SECONDS] * 2


def accepted(address: Any) -> socket.socket | None:
    """Our end of a connection to ourselves; None until there is one."""
    for entry in Path("/proc/self/fd").iterdir():
        try:
            if not entry.readlink().name.startswith("socket:"):
                continue
            found = socket.socket(fileno=os.dup(int(entry.name)))
        except OSError:  # closed already
            continue
        try:
            if found.getpeername() == address:
                return found
        except OSError:  # it listens
            pass
        found.close()
    return None


def test_the_files_are_watched(bed: Bed) -> None:
    """Nobody has to tell the server."""
    before = bed.serial()
    bed.renew()
    wait_for("the new certificate is served", lambda: bed.serial() != before)
    assert bed.serial(name=None) == bed.serial()


def test_half_a_pair_leaves_the_old_one_in_use(bed: Bed) -> None:
    """A certificate that came before its key, and one that is broken: said once, and taken when it is whole."""
    before = bed.serial()
    key = bed.key.read_bytes()
    bed.renew()
    new = bed.key.read_bytes()
    bed.key.write_bytes(key)
    bed.server.refresh()
    bed.server.refresh()
    assert (bed.serial(), bed.rotations[:1]) == (before, [False])
    bed.key.write_bytes(new)
    wait_for("it is served", lambda: bed.serial() != before)
    assert bed.rotations == [False, True]


def test_a_certificate_that_could_not_be_taken_over_is_tried_again(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many open files, say: its files are the same the next time."""
    before, problems = bed.serial(), [OSError(errno.EMFILE, "Too many open files")]
    make = serving.server_context

    def fail_once(pair: CertificatePair) -> Any:
        if problems:
            raise problems.pop()
        return make(pair)

    monkeypatch.setattr(serving, "server_context", fail_once)
    bed.renew()
    wait_for("it is served", lambda: bed.serial() != before)
    assert not problems
    assert bed.rotations == [True]


def test_tls_before_1_2_is_refused_and_http_2_is_not_offered(bed: Bed) -> None:
    """TLS 1.2 and 1.3. kube-apiserver asks a Service's webhook for HTTP/1.1 only; other Go clients ask for both, and get that."""
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = bed.context()
        context.maximum_version = version
        context.set_alpn_protocols(["h2", "http/1.1"])
        with (
            socket.create_connection(("127.0.0.1", bed.server.port), 5) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as tls,
        ):
            assert tls.selected_alpn_protocol() == "http/1.1"
    import warnings

    context = bed.context()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1_1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with (
        socket.create_connection(("127.0.0.1", bed.server.port), 5) as plain,
        pytest.raises(ssl.SSLError),
        context.wrap_socket(plain, server_hostname="localhost"),
    ):
        pass


def test_what_runs_is_answered_before_the_end(tmp_path: Path) -> None:
    """`stop` waits for a review that has begun, and accepts no new connection."""
    entered, go_on = threading.Event(), threading.Event()

    async def wait() -> None:
        entered.set()
        await asyncio.to_thread(go_on.wait, 10)

    bed = Bed(tmp_path, waiting(wait))
    port = bed.server.port
    answers = []

    def ask() -> None:
        connection = http.client.HTTPSConnection("localhost", bed.server.port, context=bed.context(), timeout=10)
        connection.request("POST", "/", b"{}")
        answers.append(connection.getresponse().read())
        connection.close()

    asking = threading.Thread(target=ask)
    asking.start()
    assert entered.wait(60)
    stopping = threading.Thread(target=bed.server.stop)
    stopping.start()
    go_on.set()
    stopping.join(60)
    asking.join(60)
    assert answers == [ANSWER]
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), 1)


@go
def test_draining_moves_clients_away_one_answer_at_a_time(bed: Bed) -> None:
    """HTTP/1.1 clients are asked to connect again, and lose nothing."""
    bed.server.drain()
    connection = http.client.HTTPSConnection("localhost", bed.server.port, context=bed.context(), timeout=5)
    connection.request("POST", "/", b"{}")
    answer = connection.getresponse()
    assert answer.getheader("connection") == "close"
    connection.close()
    outcome = bed.load(connections=4, seconds=0.5).outcome(stop=False)
    assert (outcome.failures, outcome.reviews > 10) == ({}, True)


def resident() -> int:
    """The memory of this process in KiB."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1])


@go
def test_idle_connections_delay_nobody_and_need_little_memory(bed: Bed) -> None:
    """A thousand TLS connections that say nothing: Go clients open them ahead of need. Both ends of them are in this process."""
    alone = bed.load(connections=4, seconds=1).outcome(stop=False)
    idle = []
    before = resident()
    try:
        context = bed.context()
        for _ in range(1000):
            plain = socket.create_connection(("127.0.0.1", bed.server.port), 5)
            idle.append(context.wrap_socket(plain, server_hostname="localhost"))
        assert resident() - before < 1000 * 128
        outcome = bed.load(connections=4, seconds=1).outcome(stop=False)
    finally:
        for connection in idle:
            connection.close()
    assert outcome.failures == {}
    assert outcome.p50 < 5 * alone.p50 + 0.01


@go
@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
def test_a_request_that_comes_slowly_costs_no_other_connection_a_slow_review(http2: bool, tmp_path: Path) -> None:
    """Six connections, on each a review of 0.8 s every 3.6 s, beside one that sends a byte at a time: 36 of 36 are answered."""
    bed = Bed(tmp_path, waiting(partial(asyncio.sleep, REVIEW_SECONDS)))
    ended = threading.Event()
    dripping = threading.Thread(target=drip, args=(bed, ended))
    dripping.start()
    try:
        outcome = bed.load(connections=6, count=36, every=3.6, http2=http2).outcome(stop=False)
    finally:
        ended.set()
        dripping.join(60)
        bed.server.stop()
    assert outcome.failures == {}
    assert outcome.patched == 36
    assert outcome.p50 < 2 * REVIEW_SECONDS


def drip(bed: Bed, ended: threading.Event) -> None:
    """Send the body of a request a byte at a time, on a new connection whenever the last one is cut."""
    while not ended.is_set():
        with half_a_request(bed) as connection, suppress(OSError):
            while not ended.wait(0.1):
                connection.sendall(b" ")


HALF = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n{"


def half_a_request(bed: Bed, sent: bytes = HALF) -> ssl.SSLSocket:
    """A connection on which a request has begun."""
    plain = socket.create_connection(("127.0.0.1", bed.server.port), 5)
    connection = bed.context().wrap_socket(plain, server_hostname="localhost")
    connection.sendall(sent)
    return connection


@go
def test_large_reviews_at_once_do_not_wait_for_each_other(bed: Bed) -> None:
    """As large as an API server takes them."""
    outcome = bed.load({"a": "x" * 2_900_000}, connections=8, count=16).outcome(stop=False)
    assert outcome.failures == {}
    assert outcome.patched == 16


@pytest.mark.parametrize("sent", [b"POST / HTT", HALF], ids=["head", "body"])
def test_a_request_that_does_not_come_whole_is_cut_at_a_time_of_its_own(sent: bytes, bed: Bed) -> None:
    """Beside others that came earlier or later, and beside idle connections, which stay."""
    with half_a_request(bed, b"") as idle, half_a_request(bed, sent) as early:
        bed.server.serve(bed.server.pair or pytest.fail("it has a pair"))
        began = time.monotonic()
        with half_a_request(bed, sent) as late:
            for connection in (early, late):
                connection.settimeout(PATIENCE)
                with suppress(ConnectionResetError):
                    assert connection.recv(1) == b""
            assert time.monotonic() - began > 0.9 * REQUEST_SECONDS
        idle.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}")
        assert idle.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b""], ids=["plain", "broken", "nothing"])
def test_a_handshake_that_fails_ends_its_connection_only(sent: bytes, bed: Bed) -> None:
    """Whatever comes in place of one; a client that sends nothing is cut when the server stops."""
    with socket.create_connection(("127.0.0.1", bed.server.port), 5) as client:
        client.sendall(sent)
        if not sent:
            bed.server.stop()
        with suppress(ConnectionResetError):
            assert b"HTTP" not in b"".join(iter(lambda: client.recv(1000), b""))
    if sent:
        assert bed.serial()
