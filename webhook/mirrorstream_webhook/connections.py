"""What a connection may hold: the window that its reviews share, and for how long one on which a request does not come whole.

granian waits for a body for ever, and a thread with it, and does not tell which connection a request came on. The kernel tells to
which of them nothing has been sent for how long: those that a client keeps open between two requests are among them, and it opens
another one when it needs it.
"""

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from granian.http import HTTP2Settings

_STREAMS, _STREAM_BYTES = 200, 256 * 1024
HTTP2 = HTTP2Settings(
    max_concurrent_streams=_STREAMS,
    initial_stream_window_size=_STREAM_BYTES,
    initial_connection_window_size=_STREAMS * _STREAM_BYTES,
)
"""The reviews of one connection share its window. All of them fit in, or the bodies that wait for a thread would keep those from
coming for which threads wait."""
_LAST_SENT = struct.Struct("=8B 9I I")
"""The beginning of <linux/tcp.h>'s tcp_info, up to tcpi_last_data_sent, in milliseconds."""


def cut_silent(port: int, seconds: float) -> int:
    """Cut this process's connections at a port of its own to which nothing has been sent for so long; how many there were."""
    cut = 0
    for connection in _connections(port):
        with connection, suppress(OSError):
            info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_SENT.size)
            if _LAST_SENT.unpack(info)[-1] >= seconds * 1000:
                connection.shutdown(socket.SHUT_RDWR)
                cut += 1
    return cut


def _connections(port: int) -> Iterator[socket.socket]:
    """Each connection that was accepted at a port, under a number of our own: theirs may be closed, and used again, at any time."""
    for entry in Path("/proc/self/fd").iterdir():
        try:
            if not str(entry.readlink()).startswith("socket:"):
                continue
            connection = socket.socket(fileno=os.dup(int(entry.name)))
        except OSError:  # closed meanwhile
            continue
        try:
            connection.getpeername()
            ours = connection.family in (socket.AF_INET, socket.AF_INET6) and connection.getsockname()[1] == port
        except OSError:  # not connected
            ours = False
        if ours:
            yield connection
        else:
            connection.close()
