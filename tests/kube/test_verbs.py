"""The verb of a request, as roles, audit logs and the API server's own metrics call it."""

from typing import Any

import pytest
from mirrorstream.kube.client import ApiError, ApiUnreachable, Client
from mirrorstream.kube.verbs import verb

from tests.kube.conftest import Script

IMAGES = "/apis/image.openshift.io/v1"


@pytest.mark.parametrize(
    ("method", "path", "params", "expected"),
    [
        ("GET", f"{IMAGES}/imagestreams", {"limit": "500"}, "list"),
        ("GET", f"{IMAGES}/imagestreams", {"watch": "1"}, "watch"),
        ("GET", f"{IMAGES}/imagestreams", {"watch": "true"}, "watch"),
        ("GET", f"{IMAGES}/imagestreams", {"watch": "0"}, "list"),
        ("GET", f"{IMAGES}/namespaces/ns/imagestreams", None, "list"),
        ("GET", f"{IMAGES}/namespaces/ns/imagestreams/app", None, "get"),
        ("PUT", f"{IMAGES}/namespaces/ns/imagestreams/app/status", None, "update"),
        ("POST", f"{IMAGES}/namespaces/ns/imagestreamimports", None, "create"),
        ("GET", f"{IMAGES}/images/sha256:aa", None, "get"),
        ("GET", "/api/v1/namespaces", None, "list"),
        ("GET", "/api/v1/namespaces/ns", None, "get"),
        ("GET", "/api/v1/namespaces/ns/status", None, "get"),
        ("GET", "/api/v1/namespaces/ns/events", None, "list"),
        ("GET", "/api/v1/namespaces/ns/configmaps/mirrorstream-config", None, "get"),
        ("PATCH", "/api/v1/namespaces/ns/events/app.1", None, "patch"),
        ("DELETE", "/api/v1/namespaces/ns/events/app.1", None, "delete"),
        ("DELETE", "/api/v1/namespaces/ns/events", None, "deletecollection"),
        ("GET", "/apis/config.openshift.io/v1/images/cluster/", None, "get"),
        ("GET", "/version", None, "get"),
        ("GET", "/apis", None, "get"),
        ("GET", IMAGES, None, "get"),
        ("GET", "/api/v1", None, "get"),
    ],
)
def test_a_verb(method: str, path: str, params: dict[str, str] | None, expected: str) -> None:
    """The API server's own rules: whether a name is there, and what the parameters ask for."""
    assert verb(method, path, params) == expected


def test_requests_are_told_of_by_verb_and_code(script: Script, client: Client) -> None:
    """A watch with its own, whatever its answer; a request without an answer has code 0."""
    seen: list[tuple[str, int]] = []

    def answer(request: Any) -> None:
        if "gone" in request.path:
            request.fail(404, "NotFound")
        elif "watch" in request.path:
            request.fail(410, "Expired")
        else:
            request.answer(200, {})

    script.handle = answer
    found = Client(client._load, observe=lambda verb, code, seconds: seen.append((verb, code)))
    found.get("/api/v1/namespaces/ns/events")
    found.request("POST", "/api/v1/namespaces/ns/events", body={})
    with pytest.raises(ApiError):
        found.get("/api/v1/namespaces/gone")
    with pytest.raises(ApiError):
        found.watch("/api/v1/events", {"watch": "1"}, read_timeout=5)
    script.server.server_close()
    with pytest.raises(ApiUnreachable):
        Client(client._load, observe=found._observe).get("/api/v1/namespaces/ns")
    assert seen == [("list", 200), ("create", 200), ("get", 404), ("watch", 410), ("get", 0)]
