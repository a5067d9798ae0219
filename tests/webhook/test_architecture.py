"""The architecture of what a Legacy import takes from a list: the API server's, which no other may stand in for."""

from pathlib import Path
from typing import Any

import pytest
from mirrorstream.kube.client import ApiError, ApiTimeout, ApiUnreachable
from mirrorstream.runtime.settings import SettingsFile
from mirrorstream_webhook.architecture import api_server_architecture, own_architecture
from mirrorstream_webhook.manager import Manager

from e2e.testbed.support.kubeconfig import write_kubeconfig


class ApiServer:
    """Answers, or fails to."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def get(self, path: str, **more: Any) -> Any:
        """The version."""
        assert path == "/version"
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def of(answer: Any) -> str | None:
    """What is made of an answer."""
    client: Any = ApiServer(answer)
    return api_server_architecture(client)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"platform": "linux/s390x"}, "s390x"),
        ({"gitVersion": "v1.36.0"}, own_architecture()),
        (ApiError(403, "Forbidden", "no"), own_architecture()),
        (ApiError(503, "ServiceUnavailable", "starting"), None),
        (ApiError(429, "TooManyRequests", "busy"), None),
        (ApiError(401, "Unauthorized", "expired"), None),
        (ApiUnreachable("connection refused"), None),
        (ApiTimeout("timed out"), None),
    ],
    ids=["told", "not told", "forbidden", "starting", "busy", "expired", "down", "slow"],
)
def test_nobody_else_answers_for_an_api_server_that_is_away(answer: Any, expected: str | None) -> None:
    """It will answer later."""
    assert of(answer) == expected


def test_the_webhook_is_ready_only_once_the_api_server_has_told(tmp_path: Path) -> None:
    """It once took its own node's for good when the API server was not there at its start."""
    kubeconfig = str(write_kubeconfig(tmp_path / "kubeconfig", "http://127.0.0.1:1"))
    manager = Manager(SettingsFile(None), kubeconfig=kubeconfig, port=0, metrics_port=0)
    try:
        client: Any = ApiServer(ApiUnreachable("connection refused"))
        manager._client = client
        manager._learn_architecture()
        assert manager._ready() == "not read yet: the API server's architecture"
        client.answer = {"platform": "linux/s390x"}
        manager._learn_architecture()
        assert manager._decider.architecture == "s390x"
        assert manager._ready() == "not synced yet: imagestreams.image.openshift.io"
    finally:
        manager._health._server.server_close()
        manager._server.stop()
