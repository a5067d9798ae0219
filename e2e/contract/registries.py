"""The registries that recordings name: one that serves, and one for each way of failing."""

import contextlib
import datetime
import ipaddress
import ssl
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from e2e.registry import FAILURES, Registry, SilentPort, Store, dead_host
from e2e.simulator.settings import CONTRACT_PORTS


class Registries:
    """All of them, on free ports or on the fixed ones of `--contract`; `hosts` says where each one is."""

    def __init__(self, *, fixed_ports: bool = False) -> None:
        self._fixed = fixed_ports
        self._exit = contextlib.ExitStack()
        self.hosts: dict[str, str] = {}
        self.stores: dict[str, Store] = {}

    def __enter__(self) -> Self:
        with self._exit:
            for name, port in CONTRACT_PORTS.items():
                self._start(name, port if self._fixed else 0)
            self._exit = self._exit.pop_all()
        return self

    def _start(self, name: str, port: int) -> None:
        self.stores[name] = Store()
        if name == "dead":
            self.hosts[name] = f"localhost:{port}" if port else dead_host()
        elif name == "silent":
            self.hosts[name] = self._exit.enter_context(SilentPort(port)).host
        else:
            context = server_context() if name == "tls" else None
            registry = self._exit.enter_context(Registry(port=port, failure=FAILURES.get(name), context=context))
            self.stores[name] = registry.store
            self.hosts[name] = registry.host

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._exit.close()


def self_signed() -> tuple[bytes, bytes]:
    """A new certificate for localhost, signed by itself, and its key, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(pem), private


def server_context() -> ssl.SSLContext:
    """TLS with a new certificate that nobody trusts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "both.pem"
        path.write_bytes(b"".join(self_signed()))
        context.load_cert_chain(path)
    return context
