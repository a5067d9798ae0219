"""AdmissionReviews: what is answered, whatever comes."""

import asyncio
import base64
import json
import time
from typing import Any

import pytest
from mirrorstream.runtime.metrics import Metrics
from mirrorstream_webhook.access import AnswerPendingError
from mirrorstream_webhook.claims import StreamClaims
from mirrorstream_webhook.metrics import ReviewMetrics
from mirrorstream_webhook.review import WAITS_SECONDS, BadReviewError, Reviewer

from tests.webhook.builders import REGISTRY, SOURCE, Bed, digest, imported, pod, settings, stream, tag

Object = dict[str, Any]
V1 = f"{SOURCE}:v1"
STREAM = stream("app", tag("v1", V1, imported(1)))


class Answering:
    """A Reviewer, its metrics, and reviews in a few words."""

    def __init__(self, *streams: StreamClaims) -> None:
        self.bed = Bed(*streams or (STREAM,))
        self.metrics = Metrics()
        self.reviewer = Reviewer(self.bed.decider, ReviewMetrics(self.metrics))

    def body(self, **request: Any) -> Object:
        """A review of a pod's creation, with fields of the request replaced."""
        kind = {"group": "", "version": "v1", "kind": "Pod"}
        filled = {"uid": "u1", "kind": kind, "operation": "CREATE", "namespace": "team", "object": pod(V1), **request}
        return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": filled}

    def ask(self, **request: Any) -> Object:
        """The response."""
        answer = json.loads(self.reviewer.review(json.dumps(self.body(**request)).encode()))
        assert (answer["apiVersion"], answer["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
        response: Object = answer["response"]
        assert response["allowed"] is True
        return response

    def count(self, name: str, **labels: str) -> float:
        """A counter."""
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


ANNOTATION = "mirrorstream.github.io/original-images"
OURS = json.dumps({"c0": V1}, separators=(",", ":"))
LEFT = 256 * 1024 - len(ANNOTATION) - len(OURS) - len("a")
"""Bytes that the value of another annotation, `a`, may have beside ours."""


@pytest.mark.parametrize("there", [{}, {ANNOTATION: "{}"}], ids=["new", "replaced"])
@pytest.mark.parametrize("more", [0, 1])
def test_a_pod_whose_annotations_leave_no_room_stays_as_it_is(more: int, there: Object) -> None:
    """The API server refuses a pod whose annotations have more than 256 KiB: ours must not be what makes it too large."""
    answering = Answering()
    document = pod(V1)
    size = LEFT + more
    # The umlaut has two bytes, and bytes are what counts.
    document["metadata"]["annotations"] = {"a": "ä" * (size // 2) + "b" * (size % 2), **there}
    response = answering.ask(object=document)
    assert ("patch" in response) is not more
    (image,) = json.loads(response["auditAnnotations"]["images"])
    assert image["result"] == ("too-long" if more else "rewritten")


def test_the_originals_of_many_images_can_be_too_much_alone() -> None:
    """The pod has no annotation before."""
    names = [f"{SOURCE}:{number:0128}" for number in range(1700)]
    answering = Answering(stream("app", *(tag(f"v{n}", name, imported(1)) for n, name in enumerate(names))))
    assert "patch" in answering.ask(object=pod(*names[:1000]))
    assert "patch" not in answering.ask(object=pod(*names))


def test_an_annotation_that_goes_leaves_room() -> None:
    """An update to another image takes ours away."""
    answering = Answering()
    old = pod(f"{REGISTRY}/openshift/app@{digest(1)}")
    old["metadata"]["annotations"] = {ANNOTATION: OURS, "a": "b" * LEFT}
    new = pod("quay.io/another")
    new["metadata"]["annotations"] = {ANNOTATION: OURS, "a": "b" * (LEFT + len(OURS))}
    patch = json.loads(base64.b64decode(answering.ask(object=new, oldObject=old, operation="UPDATE")["patch"]))
    assert [operation["op"] for operation in patch] == ["remove"]


def test_a_patched_review() -> None:
    """uid, patch, patch type, and an audit annotation that says what was done with each image."""
    answering = Answering()
    response = answering.ask(object=pod(V1, "quay.io/a"))
    patch = json.loads(base64.b64decode(response["patch"]))
    assert (response["uid"], response["patchType"]) == ("u1", "JSONPatch")
    assert patch[1] == {"op": "replace", "path": "/spec/containers/0/image", "value": f"{REGISTRY}/openshift/app@{digest(1)}"}
    assert json.loads(response["auditAnnotations"]["images"]) == [
        {
            "name": "c0",
            "image": V1,
            "result": "rewritten",
            "reason": "the tag has this image",
            "stream": "openshift/app:v1",
            "way": "registry",
        },
        {"name": "c1", "image": "quay.io/a", "result": "no-stream", "reason": "no Local tag stands for it", "stream": ""},
    ]
    assert answering.count("mirrorstream_webhook_reviews_total", outcome="patched") == 1
    assert answering.count("mirrorstream_webhook_images_total", result="no-stream") == 1


@pytest.mark.parametrize(
    "request_",
    [
        *({name: None} for name in ("name", "subResource", "oldObject", "options", "dryRun", "userInfo")),
        {"kind": {"group": None, "version": "v1", "kind": "Pod"}},
        {"object": pod(V1, metadata={"labels": {"mirrorstream.github.io/rewrite": None}, "annotations": {"x": None}})},
        {"object": pod(V1, metadata={"ownerReferences": [{"apiVersion": None, "kind": None, "name": "x"}]})},
        {"object": pod(V1, os={"name": None}, volumes=[{"name": None, "image": None}])},
        {"object": pod(V1, imagePullSecrets=[{"name": None}, {"name": "default-dockercfg-x7k2p"}])},
        {"object": {"metadata": {"name": None}, "spec": {**pod(V1)["spec"], "initContainers": [{"name": None, "image": None}]}}},
    ],
    ids=lambda request: str(request)[:60],
)
def test_a_field_that_is_null_is_unset(request_: Object) -> None:
    """As for the API; it costs no pod its patch."""
    patch = json.loads(base64.b64decode(Answering().ask(**request_)["patch"]))
    assert ("/spec/containers/0/image", f"{REGISTRY}/openshift/app@{digest(1)}") in {
        (operation["path"], str(operation["value"])) for operation in patch
    }


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param({"operation": "DELETE", "object": None}, id="delete"),
        pytest.param({"operation": "CONNECT"}, id="connect"),
        pytest.param({"kind": {"group": "apps", "version": "v1", "kind": "Deployment"}}, id="another-kind"),
        pytest.param({"kind": {"group": "example.com", "version": "v1", "kind": "Pod"}}, id="another-groups-pod"),
        pytest.param({"object": None}, id="no-object"),
        pytest.param({"object": {"spec": {"containers": "many"}}}, id="containers-are-no-list"),
        pytest.param({"object": [1, 2]}, id="object-is-no-object"),
        pytest.param({"kind": None}, id="kind-is-null"),
        # A place in a patch counts what stands before it.
        pytest.param({"object": {"spec": {"containers": [None, *pod(V1)["spec"]["containers"]]}}}, id="a-container-is-null"),
        pytest.param({"operation": "UPDATE", "oldObject": {"spec": 5}}, id="old-object-is-broken"),
        pytest.param({"object": {"metadata": {"name": "x"}, "spec": {"containers": None}}}, id="containers-are-null"),
        pytest.param({"object": {}}, id="empty"),
    ],
)
def test_what_cannot_be_a_pod_of_ours_is_allowed_without_a_patch(request_: Object) -> None:
    """The API server validates after its webhooks, and says better what is wrong."""
    response = Answering().ask(**request_)
    assert set(response) <= {"uid", "allowed"}


@pytest.mark.parametrize(
    ("age", "pending"),
    [pytest.param(0.0, True, id="new"), pytest.param(WAITS_SECONDS + 0.1, False, id="has-waited")],
)
def test_a_review_that_has_waited_is_answered_with_what_is_known(age: float, pending: bool) -> None:
    """An API server that hangs leaves one question after another without an answer; no image may lose its patch to that."""
    answering, body = Answering(), pod(f"{SOURCE}:own", V1)
    answering.bed.index.apply(None, stream("own", tag("v1", f"{SOURCE}:own", imported(2)), namespace="team"))

    def unanswered(*question: str) -> bool:
        raise AnswerPendingError(lambda: asyncio.sleep(0))

    answering.bed.decider._may_pull = unanswered
    review = json.dumps(answering.body(object=body)).encode()
    received = time.perf_counter() - age
    if pending:
        with pytest.raises(AnswerPendingError):
            answering.reviewer.review(review, received)
        return
    response = json.loads(answering.reviewer.review(review, received))["response"]
    told = [(image["result"], image.get("way")) for image in json.loads(response["auditAnnotations"]["images"])]
    assert told == [("rewritten", "digest"), ("access-unknown", None)]
    assert "patch" in response


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param(b"", "not an AdmissionReview", id="empty"),
        pytest.param(b"{", "not an AdmissionReview", id="cut-off"),
        pytest.param(b"[]", "not an AdmissionReview", id="list"),
        pytest.param(b'{"apiVersion": "\xff"}', "not an AdmissionReview", id="not-utf-8"),
        pytest.param(b"[" * 1_000_000, "not an AdmissionReview", id="deep"),
        pytest.param(b'{"x":' * 100_000, "not an AdmissionReview", id="deep-in-what-is-skipped"),
        pytest.param(b"{}", "found (no apiVersion) (no kind)", id="nothing"),
        pytest.param(
            b'{"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview"}', "admission.k8s.io/v1beta1", id="old-version"
        ),
        pytest.param(b'{"apiVersion": "a\\n\\u001b[2Jb", "kind": "c"}', "found a b c", id="line-breaks"),
        pytest.param(b'{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}', "request: missing", id="no-request"),
        pytest.param(
            b'{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {}}', "request.uid: missing", id="no-uid"
        ),
        pytest.param(
            b'{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": 5}}',
            "$.request.uid",
            id="uid-is-no-text",
        ),
    ],
)
def test_what_is_no_review_says_so(body: bytes, message: str) -> None:
    """One line that names the field."""
    with pytest.raises(BadReviewError) as raised:
        Answering().reviewer.review(body)
    assert message in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1
    assert "\n" not in str(raised.value)


def test_a_deep_pod_is_left_alone() -> None:
    """Nested beyond what anything reads, inside of a well-formed review."""
    answering = Answering()
    deep = '{"a":' * 300 + "1" + "}" * 300
    body = json.dumps(answering.body(object="DEEP")).replace('"DEEP"', deep).encode()
    assert json.loads(answering.reviewer.review(body))["response"] == {"uid": "u1", "allowed": True}


def test_a_failure_inside_allows_and_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    """Our bug must not be the pod's."""
    answering = Answering()

    def broken(*question: object, **more: object) -> bool | None:
        raise RuntimeError("out of order")

    answering.bed.decider._may_pull = broken
    response = answering.ask()
    (image,) = json.loads(response.pop("auditAnnotations")["images"])
    assert (response, image["result"]) == ({"uid": "u1", "allowed": True}, "error")
    assert answering.count("mirrorstream_webhook_reviews_total", outcome="failed") == 1
    answering.bed.decider.pod = broken  # type: ignore[assignment,method-assign]
    assert answering.ask() == {"uid": "u1", "allowed": True}
    assert answering.count("mirrorstream_webhook_reviews_total", outcome="failed") == 2


def test_a_dry_run_is_answered_like_any_other() -> None:
    """It shows what would be; there is nothing that a review would do beside."""
    answering = Answering()
    assert answering.ask(dryRun=True) == answering.ask(dryRun=False)


def test_what_was_answered_counts_only_under_the_same_streams_rules_and_settings() -> None:
    """The same pod, a moment later: a stream, a rule or a setting that changed in between decides."""
    answering = Answering()
    bed = answering.bed
    assert "patch" in answering.ask()
    changed = stream("app", tag("v1", V1, imported(2)))
    bed.index.apply(STREAM, changed)
    assert digest(2) in base64.b64decode(answering.ask()["patch"]).decode()
    guards = bed.decider.guards
    bed.decider.guards = None
    assert "patch" not in answering.ask()
    bed.decider.guards = guards
    assert "patch" in answering.ask()
    bed.decider.configure(settings(mode="observe"))
    assert "patch" not in answering.ask()


def test_only_answers_are_kept_that_are_small_and_sure() -> None:
    """Nobody fills the memory with large pods, and what is unknown is asked again at once."""
    answering = Answering()
    asked = answering.bed.asked
    for _ in range(3):
        answering.ask()
    assert len(asked) == 1
    for _ in range(3):
        answering.ask(object=pod(V1, metadata={"annotations": {"large": "x" * 40_000}}))
    assert len(asked) == 4
    answering.bed.unknown = True
    for _ in range(2):
        answering.ask(namespace="other")
    answering.bed.unknown = False
    assert "patch" in answering.ask(namespace="other")


@pytest.mark.parametrize(
    ("image", "result", "hidden"),
    [
        pytest.param(V1, "no-access", ("openshift/app", digest(1)), id="no-access"),
        pytest.param(f"{SOURCE}@{digest(1)}", "no-access", ("openshift/app:",), id="by-digest"),
        pytest.param("quay.io/secret/x:v1", "not-mirrored", ("openshift/other", "quay.io/secret/x:v1"), id="not-mirrored"),
        pytest.param(f"{SOURCE}:v2", "not-imported", ("openshift/app", "pending", "leave"), id="not-imported"),
    ],
)
def test_the_audit_annotation_tells_of_a_shared_stream_only_to_who_may_pull_from_it(
    image: str, result: str, hidden: tuple[str, ...]
) -> None:
    """Audit events of a namespace are handed on to its owners; the reason names the namespace, and nothing of the stream."""
    bed = Bed(
        stream("app", tag("v1", V1, imported(1)), tag("v2", f"{SOURCE}:v2")),
        stream("other", tag("v1", "quay.io/secret/x:v1", imported(2, "quay.io/secret/x"))),
        pendingTags="leave",
    )
    bed.denied = {("openshift", "team")}
    (shown,) = bed.review(pod(image)).images
    found = shown.document("team")
    assert (found["result"], found["stream"]) == (result, "")
    assert "openshift" in found["reason"]
    assert not [text for text in hidden if text in json.dumps({**found, "image": ""})]
    assert shown.document("openshift")["stream"].startswith("openshift/"), "the stream's own namespace is told"
    assert shown.decision.stream, "and so is who explains with a token that may see it"
