"""Ports of 127.0.0.1."""

import atexit
import random
import socket

# Below what systems take for outgoing connections: such a one must not get a port that a server is about to bind.
_RANGE = range(20000, 32000)
_held: list[socket.socket] = []


@atexit.register
def _let_go() -> None:
    for holder in _held:
        holder.close()


def free_port() -> int:
    """A port for a server that is started soon; no other process of a test run gets it while this one lives.

    It stays bound here, but does not listen; a server that binds with SO_REUSEADDR, as they all do, is let in.
    """
    while True:
        port = random.choice(_RANGE)
        holder = socket.socket()
        try:
            holder.bind(("127.0.0.1", port))  # without SO_REUSEADDR: fails beside any other that is bound
        except OSError:
            holder.close()
            continue
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _held.append(holder)
        return port
