"""The architecture whose manifest a Legacy import takes from a list of several: that of the API server."""

import platform
from http import HTTPStatus

import structlog
from mirrorstream.kube.client import Client
from mirrorstream.kube.errors import ApiError, ClientError, is_transient

log = structlog.get_logger(__name__)

TIMEOUT = 5.0
_NAMES = {"x86_64": "amd64", "aarch64": "arm64"}
"""The names of machines that the API has another name for."""


def own_architecture() -> str:
    """The architecture of this machine, as the API names it."""
    return _NAMES.get(platform.machine(), platform.machine())


def api_server_architecture(client: Client) -> str | None:
    """What the API server tells, and this machine's if it tells nothing; None while nobody answers.

    Nodes may have another architecture than the control plane, so this machine's does not stand in for an answer to come.
    """
    try:
        found = str(client.get("/version", timeout=TIMEOUT).get("platform") or "")
    except ClientError as error:
        if is_transient(error) or (isinstance(error, ApiError) and error.status == HTTPStatus.UNAUTHORIZED):
            return None
        log.info("API server architecture unknown, using this machine's", error=str(error))
        found = ""
    return found.partition("/")[2] or own_architecture()
