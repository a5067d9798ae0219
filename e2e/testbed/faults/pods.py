"""What tests of the webhook's faults have in common: a healed stream, pods that name it, and connections of one's own."""

import socket
import ssl
from dataclasses import dataclass

from e2e.testbed.cluster import Namespace
from e2e.testbed.programs.installed import Creating, rewrites
from e2e.testbed.programs.program import Webhook

TIMEOUT_SECONDS = 3
"""What the webhook's registration gives it, as users install it."""


@dataclass(frozen=True)
class Served:
    """A namespace with a healed stream: what its pods name, and what they are to get."""

    ns: Namespace
    source: str
    target: str

    @property
    def by_digest(self) -> str:
        """What they get where they cannot pull from the internal registry."""
        return f"{self.source.rpartition(':')[0]}@{self.target.partition('@')[2]}"

    def rewrites(self) -> bool:
        """Whether a pod would be rewritten now."""
        return rewrites(self.ns, self.source, self.target)


def seconds(value: float) -> str:
    """For the table."""
    return f"{value:.2f} s"


def longest(creating: Creating) -> float:
    """Of all pods that were created."""
    return max(made.seconds for made in creating.made)


def unrewritten(creating: Creating, served: Served, *, since: float = 0) -> int:
    """How many pods whose creation began since then were created as they were."""
    return sum(made.image != served.target for made in creating.made if made.at >= since)


HEAD = b"POST /mutate-pods HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
"""Of a review, with the length of its body."""


def connected(webhook: Webhook) -> ssl.SSLSocket:
    """A TLS connection to a webhook."""
    context = ssl.create_default_context(cafile=str(webhook.authority.certificate))
    plain = socket.create_connection(("127.0.0.1", webhook.admission_port), timeout=20)
    return context.wrap_socket(plain, server_hostname="localhost")
