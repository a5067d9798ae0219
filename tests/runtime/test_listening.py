"""Sockets on every address of a pod."""

import errno
import socket
from typing import Any

import pytest
from mirrorstream.runtime.listening import listen

from tests.runtime.loopback import LOOPBACK


@pytest.mark.parametrize("address", LOOPBACK)
def test_both_families_are_listened_on(address: str) -> None:
    """By one socket."""
    with listen(0) as server, socket.create_connection((address, server.getsockname()[1]), 5):
        pass


def test_without_ipv6_it_listens_on_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel with IPv6 switched off still has a socket family of that name."""
    create = socket.create_server

    def without_ipv6(address: Any, *, family: int = socket.AF_INET, **more: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        return create(address, family=family, **more)

    monkeypatch.setattr(socket, "create_server", without_ipv6)
    with listen(0) as server, socket.create_connection(("127.0.0.1", server.getsockname()[1]), 5):
        pass
