"""Ports of 127.0.0.1."""

import random
import socket

# Below what systems take for outgoing connections: such a one must not get a port that a server is about to bind.
_RANGE = range(20000, 32000)
_given: set[int] = set()


def free_port() -> int:
    """A port that nothing listens on, now, and that was not given before."""
    while True:
        port = random.choice(_RANGE)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port
