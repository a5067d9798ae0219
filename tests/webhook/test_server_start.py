"""What a server refuses before it serves, and how it starts and stops."""

import socket
import subprocess
import sys
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from mirrorstream.kube.errors import ConfigurationError
from mirrorstream.runtime import certs
from mirrorstream.runtime.certs import CertificateError, read_pair
from mirrorstream_webhook.connection import Answer, Request
from mirrorstream_webhook.server import Server

from e2e.testbed.support.certificates import Authority


def application(request: Request) -> Answer:
    """An application of no interest."""
    return Answer(HTTPStatus.OK, (), b"")


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
    """Not every API server accepts them, so they must never be served."""
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


def test_a_key_on_a_curve_that_nobody_supports_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library has an error of its own for it."""

    def unsupported(key: bytes, password: None) -> None:
        raise UnsupportedAlgorithm("Curve 1.3.132.0.8 is not supported")

    monkeypatch.setattr(certs, "load_pem_private_key", unsupported)
    pair = Authority(tmp_path, "authority").issue("a")
    with pytest.raises(CertificateError, match=r"key: Curve 1\.3\.132\.0\.8 is not supported"):
        read_pair(str(pair.certificate), str(pair.key))


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    """One clear line."""
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(ConfigurationError, match=r"port \d+: Address already in use"),
    ):
        Server(application, taken.getsockname()[1], address="127.0.0.1")


def test_a_server_that_is_stopped_as_soon_as_it_starts_ends_well() -> None:
    """In a process of its own, to be on the safe side: nothing is left over that would end it with an error."""
    program = """
from mirrorstream_webhook.server import Server
for _ in range(100):
    server = Server(lambda request: None, 0, address="127.0.0.1")
    server.start()
    server.stop()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
