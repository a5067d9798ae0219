"""Certificates for test servers and their users, of authorities that exist for one run."""

import datetime
import ssl
from dataclasses import dataclass
from pathlib import Path

from trustme import CA, LeafCert

DAYS = 2


@dataclass(frozen=True)
class Pair:
    """The files of a certificate and its key, PEM."""

    certificate: Path
    key: Path


class Authority:
    """A CA whose certificate, and everything that it issues, lies in a folder that only we can read."""

    def __init__(self, folder: Path, name: str, *, old: datetime.timedelta = datetime.timedelta()) -> None:
        """`old`: how long ago what it issues became valid."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder, self._old = folder, old
        self._ca = CA(organization_name=name)
        self.certificate = folder / f"{name}.crt"
        self._ca.cert_pem.write_to_path(self.certificate)

    def issue(self, name: str, *, group: str | None = None, hosts: tuple[str, ...] = ()) -> Pair:
        """A certificate for a server at `hosts`, names or addresses and at 127.0.0.1, or for a user of a group."""
        leaf = _issue(self._ca, name, group, hosts, self._old)
        stem = name.replace(":", "-")
        pair = Pair(self._folder / f"{stem}.crt", self._folder / f"{stem}.key")
        leaf.cert_chain_pems[0].write_to_path(pair.certificate)
        pair.key.touch(mode=0o600)
        leaf.private_key_pem.write_to_path(pair.key)
        return pair


def serving_context(pair: Pair) -> ssl.SSLContext:
    """TLS with a certificate that an authority has issued."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    return context


def server_context() -> ssl.SSLContext:
    """TLS with a new certificate that nobody trusts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _issue(CA(), "localhost", None, ("localhost",)).configure_cert(context)
    return context


def _issue(
    authority: CA, name: str, group: str | None, hosts: tuple[str, ...], old: datetime.timedelta = datetime.timedelta()
) -> LeafCert:
    now = datetime.datetime.now(datetime.UTC)
    return authority.issue_cert(
        *hosts,
        "127.0.0.1",
        common_name=name,
        organization_name=group,
        not_before=now - old if old else None,
        not_after=now - old + datetime.timedelta(days=DAYS),
    )
