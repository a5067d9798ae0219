"""What the webhook's port answers."""

import json
from typing import Any

import pytest
from mirrorstream.runtime.metrics import Metrics
from mirrorstream_webhook.app import PATH
from mirrorstream_webhook.connection import Answer, Application
from mirrorstream_webhook.metrics import ReviewMetrics

from tests.webhook.builders import SOURCE, Bed, imported, pod, stream, tag
from tests.webhook.http import application, request

V1 = f"{SOURCE}:v1"
BED = Bed(stream("app", tag("v1", V1, imported(1))))


def port(problem: str | None = None) -> Application:
    """The application that is (not) ready."""
    return application(BED, ReviewMetrics(Metrics()), problem)


def content_type(answer: Answer) -> str:
    """The type of what is answered."""
    return dict(answer.headers)["Content-Type"]


def review() -> dict[str, Any]:
    """A review of a pod's creation."""
    kind = {"group": "", "version": "v1", "kind": "Pod"}
    request = {"uid": "u1", "kind": kind, "operation": "CREATE", "namespace": "team", "object": pod(V1)}
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


@pytest.mark.parametrize("sent", ["application/json", "application/json; charset=utf-8", "Application/JSON"])
@pytest.mark.parametrize("path", [PATH, f"{PATH}?timeout=3s"])
def test_a_review_is_answered(sent: str, path: str) -> None:
    """With the types that API servers and people send; an API server adds its timeout to the path."""
    answer = port()(request(json.dumps(review()).encode(), content_type=sent, path=path))
    assert (answer.status, content_type(answer)) == (200, "application/json")
    assert json.loads(answer.body)["response"]["patch"]


@pytest.mark.parametrize(
    ("method", "path", "more", "status", "text"),
    [
        pytest.param("GET", PATH, {}, 405, "takes POST", id="method"),
        pytest.param("DELETE", PATH, {}, 405, "takes POST", id="another-method"),
        pytest.param("POST", PATH, {"body": b"{}", "content_type": "text/plain"}, 415, "expected Content-Type", id="type"),
        pytest.param("POST", PATH, {"body": b"{}", "content_type": ""}, 415, "found ''", id="no-type"),
        pytest.param("POST", PATH, {"body": b"{"}, 400, "not an AdmissionReview", id="broken"),
        pytest.param("POST", PATH, {"body": b""}, 400, "not an AdmissionReview", id="empty"),
        pytest.param("POST", "/healthz", {}, 405, "Method Not Allowed", id="probe-method"),
        pytest.param("GET", "/nothing", {}, 404, "Not Found", id="path"),
        pytest.param("GET", "/%zz%ff?%", {}, 404, "Not Found", id="odd-path"),
        pytest.param("GET", "http://[", {}, 404, "Not Found", id="no-path"),
        pytest.param("POST", f"{PATH}/more", {"body": b"{}"}, 404, "Not Found", id="longer-path"),
    ],
)
def test_other_requests_get_a_status_and_a_message(method: str, path: str, more: dict[str, Any], status: int, text: str) -> None:
    """One line of plain text, never a traceback."""
    answer = port()(request(method=method, path=path, **more))
    assert answer.status == status
    assert text in answer.body.decode()
    assert answer.body.count(b"\n") == 1
    assert content_type(answer) == "text/plain; charset=utf-8"
    if status == 405:
        assert dict(answer.headers)["Allow"]


def test_a_review_that_is_too_large_is_refused() -> None:
    """The connection hands it over before it is whole."""
    large = request(b"")
    large.is_whole = False
    answer = port()(large)
    assert (answer.status, answer.body) == (413, b"a review may have 8388608 bytes\n")


def test_a_head_is_answered_as_a_get() -> None:
    """The connection leaves out the body."""
    answer = port()(request(method="HEAD", path="/healthz"))
    assert (answer.status, answer.body) == (200, b"ok\n")
    assert port()(request(method="HEAD")).status == 405


def test_probes() -> None:
    """Ready means synced; what is missing is said."""
    assert port()(request(method="GET", path="/healthz")).body == b"ok\n"
    assert port()(request(method="GET", path="/readyz")).status == 200
    unready = port("not synced yet: imagestreams")(request(method="GET", path="/readyz"))
    assert (unready.status, unready.body) == (503, b"not synced yet: imagestreams\n")
