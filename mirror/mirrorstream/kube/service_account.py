"""A pod's own credentials: the files that the kubelet puts into it, and the API server's address in its environment.

They are read here, and not by the kubernetes package, which is slow to import: see kubeconfig.py.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

from mirrorstream.kube.errors import ConfigurationError
from mirrorstream.kube.proxy import environment_proxy
from mirrorstream.kube.rest_config import RestConfig, check_server

FOLDER = Path("/var/run/secrets/kubernetes.io/serviceaccount")
HOST, PORT = "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"
TOKEN_SECONDS = 60.0
"""How long a token is used before its file is read again, as in client-go: the kubelet replaces it long before it expires."""


class TokenFile:
    """The bearer token of a file that changes; for one thread at a time."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises ConfigurationError when there is no token in the file."""
        self._path = path
        self._clock = clock
        self._token = _content(path)
        self._read_at = clock()

    def authorization(self) -> str:
        """The Authorization header's value. A file that cannot be read leaves the token as it was."""
        if self._clock() - self._read_at >= TOKEN_SECONDS:
            self._read_at = self._clock()
            try:
                self._token = _content(self._path)
            except ConfigurationError as error:
                import structlog  # noqa: PLC0415  rare, and a shell that completes a name waits for each import

                structlog.get_logger(__name__).warning(
                    "cannot read the service account token, using the previous one", error=str(error)
                )
        return f"Bearer {self._token}"


def available() -> bool:
    """Whether this process runs in a pod that has a service account's token."""
    return bool(os.environ.get(HOST)) and (FOLDER / "token").exists()


def load() -> RestConfig:
    """The credentials of this pod's service account. Raises ConfigurationError that names the file or the variable."""
    address, port = (_variable(name) for name in (HOST, PORT))
    server = f"https://[{address}]:{port}" if ":" in address else f"https://{address}:{port}"
    check_server(server)
    token = TokenFile(FOLDER / "token")
    authority = FOLDER / "ca.crt"
    _content(authority)  # only to fail now; each connection reads the file
    return RestConfig(server, token.authorization, ca_file=str(authority), proxy=environment_proxy(server))


def namespace() -> str | None:
    """The pod's namespace by its service account; None elsewhere."""
    try:
        return (FOLDER / "namespace").read_text(encoding="utf-8").strip()
    except OSError:
        return None


def _variable(name: str) -> str:
    if value := os.environ.get(name):
        return value
    raise ConfigurationError(f"in-cluster credentials: {name} is not set")


def _content(path: Path) -> str:
    try:
        content = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigurationError(f"in-cluster credentials: {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"in-cluster credentials: {path}: not text: {error}") from error
    if not content:
        raise ConfigurationError(f"in-cluster credentials: {path}: empty")
    return content
