"""The server under the webhook: TLS, new certificates, and its end, from a Go client as kube-apiserver is one."""

import errno
import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mirrorstream.certs import CertificateError, read_pair
from mirrorstream.kube.errors import ConfigurationError
from mirrorstream_webhook.server import Server

from e2e.certificates import Authority, Pair
from e2e.load import Load
from e2e.waiting import wait_for

ANSWER = json.dumps({"response": {"uid": "u", "allowed": True, "patch": "W10="}}).encode()


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Reads the body and answers a review."""
    environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "application/json")])
    return [ANSWER]


class Bed:
    """A server with a certificate of an authority of its own."""

    def __init__(self, folder: Path, app: Any = application) -> None:
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

    def serial(self) -> int:
        """The serial number of the certificate that a new client is shown."""
        from cryptography import x509

        with (
            socket.create_connection(("127.0.0.1", self.server.port), 5) as plain,
            self.context().wrap_socket(plain, server_hostname="localhost") as tls,
        ):
            der = tls.getpeercert(binary_form=True)
            assert der
            return x509.load_der_x509_certificate(der).serial_number

    def context(self) -> ssl.SSLContext:
        """What a client trusts."""
        return ssl.create_default_context(cafile=str(self.authority.certificate))

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
@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
def test_certificates_change_under_load_without_a_failed_review(bed: Bed, http2: bool) -> None:
    """Again and again: every review is answered, and new connections see the new certificate."""
    load = bed.load(connections=8, http2=http2)
    for _ in range(4):
        before = bed.serial()
        bed.renew()
        bed.server.refresh()
        wait_for("the new certificate is served to all", lambda before=before: before not in {bed.serial() for _ in range(20)})
    outcome = load.outcome()
    assert outcome.failures == {}
    assert outcome.patched == outcome.reviews > 100
    assert set(outcome.protocols) == {"HTTP/2.0" if http2 else "HTTP/1.1"}
    assert bed.rotations == [True] * 4


def test_no_part_of_an_answer_waits_for_the_client_to_acknowledge_another(bed: Bed) -> None:
    """The client puts that off for 40 ms, which one pod in ten had to wait for where kube-apiserver spoke HTTP/2."""
    with socket.create_connection(("127.0.0.1", bed.server.port), 5) as client:
        connection = wait_for("it is accepted", lambda: accepted(client.getsockname()))
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def accepted(address: Any) -> socket.socket | None:
    """Our end of a connection to ourselves; None until there is one."""
    for entry in Path("/proc/self/fd").iterdir():
        try:
            if not entry.readlink().name.startswith("socket:"):
                continue
            found = socket.socket(fileno=os.dup(int(entry.name)))
        except OSError:  # closed meanwhile
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
    wait_for("the new certificate is served", lambda: bed.serial() != before, seconds=10)


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
    wait_for("it is served", lambda: bed.serial() != before, seconds=10)
    assert bed.rotations == [False, True]


def test_an_expired_certificate_is_not_kept_beside_the_new_one(bed: Bed) -> None:
    """Clients refuse it, so every connection gets the new one at once."""
    assert bed.server.pair
    expired = type(bed.server.pair)(bed.server.pair.certificate, bed.server.pair.key, bed.server.pair.not_after.replace(year=2020))
    bed.server.pair = expired
    before = bed.serial()
    bed.renew()
    bed.server.refresh()

    def gone() -> bool:
        try:
            return before not in {bed.serial() for _ in range(20)}
        except OSError:  # accepted by the old worker, and cut off: its certificate was worth nothing
            return False

    wait_for("the old worker is gone", gone, seconds=2)


def test_tls_before_1_2_is_refused_and_both_protocols_are_offered(bed: Bed) -> None:
    """TLS 1.2 and 1.3; HTTP/2 where the client speaks it."""
    for version, ok in ((ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_3, True)):
        context = bed.context()
        context.maximum_version = version
        context.set_alpn_protocols(["h2", "http/1.1"])
        with (
            socket.create_connection(("127.0.0.1", bed.server.port), 5) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as tls,
        ):
            assert (tls.selected_alpn_protocol() == "h2") is ok
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

    def slow(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        entered.set()
        go_on.wait(10)
        return application(environ, start_response)

    bed = Bed(tmp_path, slow)
    port = bed.server.port
    answers = []

    def ask() -> None:
        connection = http.client.HTTPSConnection("localhost", bed.server.port, context=bed.context(), timeout=10)
        connection.request("POST", "/", b"{}")
        answers.append(connection.getresponse().read())
        connection.close()

    asking = threading.Thread(target=ask)
    asking.start()
    assert entered.wait(5)
    stopping = threading.Thread(target=bed.server.stop)
    stopping.start()
    go_on.set()
    stopping.join(5)
    asking.join(5)
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


@go
def test_idle_connections_delay_nobody(bed: Bed) -> None:
    """A thousand TLS connections that say nothing: Go clients open them ahead of need."""
    idle = []
    try:
        context = bed.context()
        for _ in range(1000):
            plain = socket.create_connection(("127.0.0.1", bed.server.port), 5)
            idle.append(context.wrap_socket(plain, server_hostname="localhost"))
        outcome = bed.load(connections=4, seconds=1).outcome(stop=False)
    finally:
        for connection in idle:
            connection.close()
    assert outcome.failures == {}
    assert outcome.longest < 1


def test_requests_whose_bodies_do_not_come_hold_up_nobody_for_long(bed: Bed) -> None:
    """Whoever reaches the port can hold a thread; a review comes through all the same, and what is held is let go in the end."""
    slow = []
    context = bed.context()
    for _ in range(6):
        connection = context.wrap_socket(socket.create_connection(("127.0.0.1", bed.server.port), 5), server_hostname="localhost")
        connection.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        slow.append(connection)
    try:
        wait_for("a review is answered", lambda: _answered(bed, context), seconds=10)
    finally:
        for connection in slow:
            connection.close()


@go
@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
def test_large_reviews_at_once_do_not_wait_for_each_other(bed: Bed, http2: bool) -> None:
    """More than there are threads, on one connection: those that wait for a thread leave room for those that have one."""
    outcome = bed.load({"a": "x" * 2_900_000}, connections=8, count=16, http2=http2).outcome(stop=False)
    assert outcome.failures == {}
    assert outcome.patched == 16


def test_a_request_that_does_not_come_whole_is_cut(bed: Bed) -> None:
    """After the time that an API server would wait for its answer, or a few hundred of them would hold all threads for ever."""
    context = bed.context()
    connections = []
    for _ in range(3):
        connection = context.wrap_socket(socket.create_connection(("127.0.0.1", bed.server.port), 5), server_hostname="localhost")
        connection.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        connections.append(connection)
    for connection in connections:
        connection.settimeout(15)
        assert connection.recv(1) == b""
        connection.close()
    assert _answered(bed, context)


def _answered(bed: Bed, context: ssl.SSLContext) -> bool:
    connection = http.client.HTTPSConnection("localhost", bed.server.port, context=context, timeout=1)
    try:
        connection.request("POST", "/", b"{}")
        return connection.getresponse().read() == ANSWER
    except OSError:
        return False
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(lambda a, b: (a.certificate, b.key), "not the certificate of the key", id="another-key"),
        pytest.param(lambda a, b: (a.key, a.key), "not a certificate in PEM", id="no-certificate"),
        pytest.param(lambda a, b: (a.certificate, a.certificate), "not an unencrypted private key", id="no-key"),
        pytest.param(lambda a, b: (a.certificate, Path("/nowhere/tls.key")), "/nowhere/tls.key: No such file", id="missing"),
    ],
)
def test_a_pair_that_cannot_be_served_is_refused_with_its_files_name(make: Any, message: str, tmp_path: Path) -> None:
    """Before anything is bound or served."""
    authority = Authority(tmp_path, "authority")
    files = make(authority.issue("a"), authority.issue("b"))
    with pytest.raises(CertificateError, match=message):
        read_pair(*map(str, files))


@pytest.mark.parametrize("kind", ["rsa-1024", "p-521", "ed448"])
def test_keys_that_the_server_cannot_use_are_refused(kind: str, tmp_path: Path) -> None:
    """The TLS library ends the process over them, so they must never reach it."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key: Any = {
        "rsa-1024": lambda: rsa.generate_private_key(65537, 1024),  # noqa: S505  that is the point
        "p-521": lambda: ec.generate_private_key(ec.SECP521R1()),
        "ed448": ed448.Ed448PrivateKey.generate,
    }[kind]()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(5)
    builder = builder.not_valid_before(now).not_valid_after(now + timedelta(days=1))
    certificate = builder.sign(key, None if kind == "ed448" else hashes.SHA256())
    (tmp_path / "c").write_bytes(certificate.public_bytes(Encoding.PEM))
    (tmp_path / "k").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(CertificateError, match="k: "):
        read_pair(str(tmp_path / "c"), str(tmp_path / "k"))


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    """One clear line."""
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(ConfigurationError, match=r"port \d+: Address already in use"),
    ):
        Server(application, taken.getsockname()[1], address="127.0.0.1")


def test_without_ipv6_it_listens_on_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel with IPv6 switched off still has a socket family of that name."""
    create = socket.create_server

    def without_ipv6(address: Any, *, family: int = socket.AF_INET, **more: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        return create(address, family=family, **more)

    monkeypatch.setattr(socket, "create_server", without_ipv6)
    server = Server(application, 0)
    server.start()
    with socket.create_connection(("127.0.0.1", server.port), 5):
        pass
    server.stop()


def test_a_server_that_is_stopped_as_soon_as_it_starts_ends_well() -> None:
    """A worker that loses its socket before it listens would end the process; here that is another one, to be on the safe side."""
    program = """
from mirrorstream_webhook.server import Server
for _ in range(100):
    server = Server(lambda environ, start_response: [], 0, address="127.0.0.1")
    server.start()
    server.stop()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
