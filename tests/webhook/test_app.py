"""The HTTP application, by its WSGI interface."""

import io
import json
from typing import Any

import pytest
from mirrorstream.metrics import Metrics
from mirrorstream_webhook.app import MAXIMUM_BODY, Deps, create_app
from mirrorstream_webhook.metrics import ReviewMetrics
from mirrorstream_webhook.review import Reviewer

from tests.webhook.builders import SOURCE, Bed, imported, pod, stream, tag

V1 = f"{SOURCE}:v1"
BED = Bed(stream("app", tag("v1", V1, imported(1))))
PATH = "/mutate-pods"


def client(problem: str | None = None) -> Any:
    """Flask's client for an application that is (not) ready."""
    metrics = ReviewMetrics(Metrics())
    deps = Deps(Reviewer(BED.decider, metrics), metrics, healthy=lambda: None, ready=lambda: problem)
    return create_app(deps).test_client()


def review() -> dict[str, Any]:
    """A review of a pod's creation."""
    kind = {"group": "", "version": "v1", "kind": "Pod"}
    request = {"uid": "u1", "kind": kind, "operation": "CREATE", "namespace": "team", "object": pod(V1)}
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8", "Application/JSON"])
def test_a_review_is_answered(content_type: str) -> None:
    """With the types that API servers and people send."""
    answer = client().post(PATH, data=json.dumps(review()), content_type=content_type)
    assert (answer.status_code, answer.content_type) == (200, "application/json")
    assert answer.get_json()["response"]["patch"]


@pytest.mark.parametrize(
    ("method", "path", "more", "status", "text"),
    [
        pytest.param("GET", PATH, {}, 405, "takes POST", id="method"),
        pytest.param("DELETE", PATH, {}, 405, "takes POST", id="another-method"),
        pytest.param("POST", PATH, {"data": b"{}", "content_type": "text/plain"}, 415, "expected Content-Type", id="type"),
        pytest.param("POST", PATH, {"data": b"{}"}, 415, "found ''", id="no-type"),
        pytest.param("POST", PATH, {"data": b"{"}, 400, "not an AdmissionReview", id="broken"),
        pytest.param("POST", PATH, {"data": b""}, 400, "not an AdmissionReview", id="empty"),
        pytest.param("POST", PATH, {"data": b" " * (MAXIMUM_BODY + 1)}, 413, "8388608 bytes", id="large"),
        pytest.param("POST", "/healthz", {}, 405, "Method Not Allowed", id="probe-method"),
        pytest.param("GET", "/nothing", {}, 404, "Not Found", id="path"),
        pytest.param("POST", f"{PATH}/more", {"data": b"{}"}, 404, "Not Found", id="longer-path"),
    ],
)
def test_other_requests_get_a_status_and_a_message(method: str, path: str, more: dict[str, Any], status: int, text: str) -> None:
    """One line of plain text, never a traceback."""
    if "data" in more and "content_type" not in more and text != "found ''":
        more = {**more, "content_type": "application/json"}
    answer = client().open(path, method=method, **more)
    assert answer.status_code == status
    assert text in answer.text
    assert answer.text.count("\n") == 1
    assert answer.content_type == "text/plain; charset=utf-8"
    if status == 405:
        assert answer.headers["Allow"]


def test_a_body_without_a_length_is_read_no_further_than_it_may_be() -> None:
    """Chunked: the limit holds all the same."""

    class Endless(io.RawIOBase):
        taken = 0

        def read(self, size: int = -1) -> bytes:
            assert size >= 0, "read without a bound"
            self.taken += size
            return b" " * size

    body = Endless()
    environ = {"CONTENT_TYPE": "application/json", "wsgi.input": body}
    answer = client().post(PATH, environ_overrides=environ)
    assert answer.status_code == 413
    assert body.taken == MAXIMUM_BODY + 1


def test_probes() -> None:
    """Ready means synced; what is missing is said."""
    assert client().get("/healthz").text == "ok\n"
    assert client().get("/readyz").status_code == 200
    unready = client("not synced yet: imagestreams").get("/readyz")
    assert (unready.status_code, unready.text) == (503, "not synced yet: imagestreams\n")
