"""Who asks: nobody in particular, or, behind a kube-apiserver, whom it says that it has authenticated and authorised."""

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from typing import Any

from e2e.testbed.simulator.errors import StatusError


@dataclass(frozen=True)
class Identity:
    """A user and the groups."""

    user: str
    groups: tuple[str, ...]


ADMINISTRATOR = Identity("system:admin", ("system:masters",))
"""Whom a simulator without TLS takes everybody for."""


class FrontProxy:
    """Trust in one client certificate, by its common name; its CA is the TLS context's."""

    def __init__(self, common_name: str) -> None:
        self._name = common_name

    def check(self, connection: Any) -> None:
        """Raises a 401 for a connection that does not show the certificate."""
        certificate = connection.getpeercert() if isinstance(connection, ssl.SSLSocket) else None
        if self._name not in set(_common_names(certificate or {})):
            raise StatusError(401, "Unauthorized", "Unauthorized")

    def identity(self, headers: Message) -> Identity:
        """Whom the proxy speaks for. Raises a 401 where it does not say."""
        user = headers.get("X-Remote-User")
        if not user:
            raise StatusError(401, "Unauthorized", "Unauthorized")
        return Identity(user, tuple(headers.get_all("X-Remote-Group") or ()))


def _common_names(certificate: dict[str, Any]) -> Iterator[str]:
    for part in certificate.get("subject", ()):
        for key, value in part:
            if key == "commonName":
                yield value
