"""Where the API server is and who we are to it: what client-go calls a rest.Config."""

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from mirrorstream.kube.errors import ConfigurationError
from mirrorstream.kube.proxy import Proxy


@dataclass(frozen=True, slots=True, eq=False)
class RestConfig:
    """One way to reach and to authenticate to one API server.

    `host` is the server's URL. `authorization` returns the value of the Authorization header, or None; it is called for each
    request, by one thread at a time, since tokens expire. Files are PEM. `server_name` replaces the host's name in TLS.
    """

    host: str
    authorization: Callable[[], str | None] = lambda: None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    server_name: str | None = None
    insecure: bool = False
    proxy: Proxy | None = None


def check_server(host: str) -> None:
    """Raise ConfigurationError unless `host` is a URL with a host, and a port that may be one if there is one."""
    try:
        parts = urlsplit(host)
        valid = bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise ConfigurationError(f"the cluster's server is not a URL: {host!r}")


Loader = Callable[[], RestConfig]
"""Reads the credentials again, each time it is called. Raises ConfigurationError."""
