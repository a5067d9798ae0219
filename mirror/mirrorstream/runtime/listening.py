"""Listening sockets of the programs. Without an address they listen on all addresses of the pod, IPv6 and IPv4."""

import errno
import socket

from mirrorstream.kube.errors import ConfigurationError

BACKLOG = 1024


def listen(port: int, address: str = "", *, purpose: str = "") -> socket.socket:
    """A listening socket; without `address` it listens on all addresses, IPv6 and IPv4. Errors name the `purpose`.

    A kubelet probes the pod's first address, which is an IPv6 one in a cluster with IPv6 alone, or first. Raises
    ConfigurationError.
    """
    try:
        if not address and socket.has_dualstack_ipv6():
            try:
                return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG)
            except OSError as error:
                # Where the kernel's IPv6 is switched off, IPv4 is all that there is.
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
        return socket.create_server((address, port), backlog=BACKLOG)
    except OSError as error:
        raise ConfigurationError(f"port {port}{purpose and f' for {purpose}'}: {error.strerror}") from error
