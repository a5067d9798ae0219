"""AdmissionReview v1: reading one, deciding about its pod, and the answer, which always allows.

Whatever fails inside is counted and logged, and the pod goes on as it was.
"""

import time

import msgspec
import structlog
from mirrorstream.kube.answers import UNREADABLE
from mirrorstream.text.projection import decoder
from mirrorstream.text.sanitize import one_line

from mirrorstream_webhook.access import AnswerPendingError
from mirrorstream_webhook.cache import MAX_REVIEW_BYTES, ReviewCache, ReviewOutcome, review_outcome
from mirrorstream_webhook.decider import Decider
from mirrorstream_webhook.metrics import ReviewMetrics
from mirrorstream_webhook.patch import Rewriting, fits, without_room
from mirrorstream_webhook.pods import decode_pod

log = structlog.get_logger(__name__)

API_VERSION, KIND = "admission.k8s.io/v1", "AdmissionReview"


class BadReviewError(ValueError):
    """The body is no review that could be answered; the text says why."""


class _Group(msgspec.Struct, frozen=True, gc=False):
    group: str = ""
    kind: str = ""


class _Request(msgspec.Struct, gc=False, rename="camel"):
    uid: str = ""
    kind: _Group = _Group()
    sub_resource: str = ""
    name: str = ""
    namespace: str = ""
    operation: str = ""
    object: msgspec.Raw = msgspec.Raw(b"null")
    old_object: msgspec.Raw = msgspec.Raw(b"null")


class _AnnotatedMetadata(msgspec.Struct, frozen=True, gc=False):
    annotations: dict[str, str] | None = None


class _Annotated(msgspec.Struct, frozen=True, gc=False):
    metadata: _AnnotatedMetadata = _AnnotatedMetadata()


class _Review(msgspec.Struct, gc=False, rename="camel"):
    api_version: str = ""
    kind: str = ""
    request: _Request | None = None


class _Response(msgspec.Struct, gc=False, rename="camel", omit_defaults=True):
    uid: str
    allowed: bool
    patch_type: str = ""
    patch: str = ""
    audit_annotations: dict[str, str] | None = None


class _Answer(msgspec.Struct, gc=False, rename="camel"):
    response: _Response
    api_version: str = API_VERSION
    kind: str = KIND


WAITS_SECONDS = 1.0
"""How long after it came a review still begins to wait for a right to pull; the API server waits 3 s for all images together."""
NOTHING = review_outcome(Rewriting())
_decode_review = decoder(_Review, places=True)
_decode_annotated = decoder(_Annotated)
_encode = msgspec.json.Encoder().encode


class Reviewer:
    """Answers reviews; safe to use from many threads."""

    def __init__(self, decider: Decider, metrics: ReviewMetrics) -> None:
        self._decider = decider
        self._metrics = metrics
        self._outcomes = ReviewCache()

    def review(self, body: bytes, received: float | None = None) -> bytes:
        """The answer to one AdmissionReview that was `received` at a time of `time.perf_counter`, or now.

        Raises BadReviewError for what is none, and in an event loop AnswerPendingError.
        """
        began = received or time.perf_counter()
        request = _read(body)
        try:
            waits = time.perf_counter() - began < WAITS_SECONDS
            outcome = self._decide(request, keep=len(body) <= MAX_REVIEW_BYTES, waits=waits)
            answer = _encode(_Answer(_response(request.uid, outcome)))
        except AnswerPendingError:
            raise
        except Exception:  # whatever it is, a pod must not wait for it
            log.exception("review failed, pod left unchanged", namespace=request.namespace, pod=request.name)
            self._metrics.reviewed("failed", (), time.perf_counter() - began)
            return _encode(_Answer(_Response(request.uid, True)))
        self._metrics.reviewed(outcome.name, outcome.results, time.perf_counter() - began)
        return answer

    def _decide(self, request: _Request, *, keep: bool, waits: bool) -> ReviewOutcome:
        if request.kind.kind != "Pod" or request.kind.group or request.operation not in ("CREATE", "UPDATE"):
            return NOTHING
        try:
            pod = decode_pod(request.object)
            old = decode_pod(request.old_object) if request.operation == "UPDATE" else None
            # Only a large review can have annotations that leave no room for ours.
            annotations = None if keep else _decode_annotated(request.object).metadata.annotations or {}
        except UNREADABLE as error:
            # The API server validates a pod after its webhooks; it will say so better.
            log.info("cannot decode pod, left unchanged", namespace=request.namespace, pod=request.name, error=str(error))
            return NOTHING
        version = self._decider.version()
        key = (request.namespace, request.sub_resource, pod, old)
        outcome = self._outcomes.get(key, version) if keep else None
        if outcome is None:
            decided = self._decider.pod(pod, old, request.namespace, subresource=request.sub_resource, waits=waits)
            if annotations is not None and not fits(annotations, decided.patch):
                log.warning("pod has no room for another annotation, left unchanged", namespace=request.namespace, pod=request.name)
                decided = without_room(decided)
            outcome = review_outcome(decided, request.namespace)
            if keep:
                self._outcomes.put(key, version, outcome)
        return outcome


def _read(body: bytes) -> _Request:
    """The request in a body. Raises BadReviewError."""
    try:
        review = _decode_review(body)
    except UNREADABLE as error:
        raise BadReviewError(f"not an AdmissionReview: {error}") from error
    if review.api_version != API_VERSION or review.kind != KIND:
        found = f"{review.api_version or '(no apiVersion)'} {review.kind or '(no kind)'}"
        raise BadReviewError(f"expected {API_VERSION} {KIND}, found {one_line(found)[:200]}")
    if review.request is None:
        raise BadReviewError("request: missing")
    if not review.request.uid:
        raise BadReviewError("request.uid: missing")
    return review.request


def _response(uid: str, outcome: ReviewOutcome) -> _Response:
    response = _Response(uid, True)
    if outcome.patch:
        response.patch_type = "JSONPatch"
        response.patch = outcome.patch
    if outcome.audit:
        response.audit_annotations = {"images": outcome.audit}
    return response
