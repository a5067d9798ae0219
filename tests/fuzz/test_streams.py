"""ImageStreams and reviews: owners of namespaces write them, and the API server passes most of it on."""

import base64
import json
import re
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mirrorstream.diagnose.check import checks_of, skipped_tags
from mirrorstream.diagnose.suggest import suggestion
from mirrorstream.diagnose.tag_status import ControllerView, tag_states
from mirrorstream.imagestream.model import ImageStream as StreamOf
from mirrorstream.imagestream.model import decode_imagestream, failing_tags, followers, importing_tag, listed_tags
from mirrorstream.imagestream.outcomes import AttemptHistory
from mirrorstream.rules.policy import MirrorPolicy
from mirrorstream.runtime.metrics import Metrics
from mirrorstream_controller.history import History
from mirrorstream_controller.plan import PlanSettings, plan_stream
from mirrorstream_controller.results import TagResult
from mirrorstream_controller.status_writer import apply_results
from mirrorstream_webhook.claims import StreamClaims, read_claims
from mirrorstream_webhook.connection import MAXIMUM_BODY
from mirrorstream_webhook.index import Index
from mirrorstream_webhook.metrics import ReviewMetrics
from msgspec.structs import replace

from e2e.testbed.simulator.patches import json_patch
from tests.fuzz.bounds import LARGEST, examples, grows_linearly
from tests.fuzz.corpus import raw_cases
from tests.fuzz.values import DIGEST, image_streams, json_values
from tests.webhook.builders import MIRROR_SET, SOURCE, Bed, imported, pod, stream, tag
from tests.webhook.http import application, converse, post

Object = dict[str, Any]
RULES = MirrorPolicy.from_objects([MIRROR_SET])


def decide(raw: bytes) -> None:
    """All that is decided about a stream, by the controller, the command line and the webhook."""
    found = decode_imagestream(raw)
    plans = plan_stream(found, RULES, PlanSettings(), History(), 1e9)
    assert {plan.tag for plan in plans} <= {tag.name for tag in found.spec_tags} | {""}
    states = list(tag_states(found, RULES, AttemptHistory(), ControllerView()))
    suggestion(states, RULES, [MIRROR_SET])
    checks = [check for check in checks_of(found, RULES, ControllerView()) if check.tag]
    follow = {name for check in checks for name in check.followers}
    left_out = skipped_tags(StreamOf(found.metadata, found.spec))
    names = {tag.name for tag in found.spec_tags}
    if len(names) == len(found.spec_tags):
        # Each tag is asked for, or follows one that is, or is counted.
        assert len({check.tag for check in checks} | follow) + left_out.total() == len(names)
    list(failing_tags(found))
    listed_tags(found)
    for each in found.spec_tags[:3]:
        followers(found, each.name)
        importing_tag(found, each.name)
    claims = read_claims(raw)
    index = Index()
    index.apply(None, claims)
    index.apply(claims, claims)
    for key, claim in claims.pairs():
        # Whether an item is of the present `from` is the index' own to say.
        assert claim in [replace(found, standing=claim.standing) for found in index.find(claims.stream.namespace, key)]
    index.apply(claims, None)
    assert index.references() == 0


@given(image_streams)
@examples(400)
def test_any_stream_is_decided_about_or_is_malformed(document: Any) -> None:
    """Only msgspec's errors come out, and those the informer survives; what an index took in it gives back whole."""
    try:
        raw = json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return  # half a surrogate pair, which no JSON has
    try:
        decode_imagestream(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        with pytest.raises((msgspec.MsgspecError, UnicodeDecodeError)):
            read_claims(raw)
        return
    decide(raw)


@given(st.binary(max_size=60), st.integers(0, 2**30))
@examples(200)
def test_broken_bytes_are_malformed(junk: bytes, place: int) -> None:
    """Cut, or with something in between."""
    raw = _stream_of(400, lambda n: ({"name": f"v{n}"}, None))
    place %= len(raw)
    for broken in (raw[:place], raw[:place] + junk + raw[place:], junk):
        try:
            decide(broken)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue


def _stream_of(size: int, make: Any, each: int = 300) -> bytes:
    pairs = [make(number) for number in range(max(1, size // each))]
    status = {"dockerImageRepository": "registry.svc:5000/team/app", "tags": [status for _, status in pairs if status]}
    spec = {"tags": [spec for spec, _ in pairs]}
    return json.dumps({"metadata": {"name": "app", "namespace": "team"}, "spec": spec, "status": status}).encode()


def _failing(name: str, source: str, message: str = "dial tcp: connection refused", **spec: Any) -> tuple[Object, Object]:
    entry = {"name": name, "from": {"kind": "DockerImage", "name": source}, "generation": 1, "referencePolicy": {"type": "Local"}}
    condition = {"type": "ImportSuccess", "status": "False", "generation": 1, "message": message}
    return {**entry, **spec}, {"tag": name, "conditions": [condition]}


def _follower(number: int) -> tuple[Object, Object]:
    if not number:
        return _failing("v0", f"{SOURCE}:v0")
    return {"name": f"v{number}", "from": {"kind": "ImageStreamTag", "name": f"v{number - 1}"}}, {"tag": f"v{number}", "items": []}


STREAMS = {
    "failing-tags": lambda size: _stream_of(size, lambda n: _failing(f"v{n}", f"{SOURCE}:v{n}")),
    "tags-of-one-source": lambda size: _stream_of(size, lambda n: _failing(f"v{n}", f"{SOURCE}:v1")),
    "tags-of-one-name": lambda size: _stream_of(size, lambda n: _failing("v1", f"{SOURCE}:v1")),
    "a-chain-of-tags": lambda size: _stream_of(size, _follower, 120),
    "a-long-history": lambda size: _stream_of(size, lambda n: tag("v1", f"{SOURCE}:v1", *map(imported, range(size // 200))), size),
    "the-same-item-again": lambda size: _stream_of(size, lambda n: tag("v1", f"{SOURCE}:v1", *[imported(1)] * (size // 200)), size),
    "long-messages": lambda size: _stream_of(size, lambda n: _failing(f"v{n}", f"{SOURCE}:v{n}", "a/" + "/" * 9000), 10_000),
    "one-long-message": lambda size: _stream_of(size, lambda n: _failing("v1", f"{SOURCE}:v1", "[" * size + "]"), size),
    "long-references": lambda size: _stream_of(size, lambda n: _failing(f"v{n}", "a/" * 5000), 10_000),
    "one-long-reference": lambda size: _stream_of(
        size, lambda n: _failing("v1", "a" * size, f"[a/b: c, {'a' * size}: d]"), size * 2
    ),
}


@pytest.mark.parametrize("make", STREAMS.values(), ids=STREAMS)
def test_streams_take_linear_time(make: Any) -> None:
    """A stream has 1.5 MB at most; thousands of tags, of one source even, must not hold the others up."""
    grows_linearly(make, decide, largest=LARGEST, smallest=16384, enough=0.25)


@pytest.mark.parametrize("make", [STREAMS["tags-of-one-source"], STREAMS["tags-of-one-name"]], ids=["tags", "names"])
def test_the_index_takes_in_a_stream_in_linear_time(make: Any) -> None:
    """Thousands of tags that claim one reference were sorted in one by one, while every other stream waited."""

    def run(claims: StreamClaims) -> None:
        index = Index()
        index.apply(None, claims)
        index.apply(claims, claims)
        index.apply(claims, None)

    grows_linearly(lambda size: read_claims(make(size)), run, largest=LARGEST)


def test_a_long_chain_of_tags_is_moved() -> None:
    """2,000 tags that follow each other once were too many for Python."""
    document = json.loads(_stream_of(2000, _follower, 1))
    (plan,) = [
        p for p in plan_stream(decode_imagestream(json.dumps(document).encode()), RULES, PlanSettings(), History(), 1e9) if p.tag
    ]
    applied = apply_results(document, [TagResult(plan, "v0", DIGEST, f"{SOURCE}@{DIGEST}", "m", "s", "2026-01-01T00:00:00Z")])
    assert len(applied.recorded) == 1
    assert all(entry["items"][0]["image"] == DIGEST for entry in document["status"]["tags"])


# Reviews: tests/webhook/test_fuzz.py has the pods; these are the extremes.


class Webhook:
    """The application, asked as a server would."""

    def __init__(self) -> None:
        bed = Bed(stream("app", tag("v1", f"{SOURCE}:v1", imported(1))), rules=(MIRROR_SET,))
        self.metrics = Metrics()
        self.application = application(bed, ReviewMetrics(self.metrics))

    def ask(self, body: bytes) -> tuple[int, bytes]:
        """Status and body of the answer."""
        return post(self.application, body)

    def failed(self) -> float | None:
        """How many reviews failed inside."""
        return self.metrics.registry.get_sample_value("mirrorstream_webhook_reviews_total", {"outcome": "failed"})

    def check(self, body: bytes, document: Any = None) -> None:
        """An answer is 200 and allowed, with a patch that applies, or 400 in one line; nothing fails inside."""
        status, answer = self.ask(body)
        assert status in (200, 400)
        assert self.failed() == 0
        if status == 400:
            assert answer.count(b"\n") == 1
            return
        response = json.loads(answer)["response"]
        assert response["allowed"] is True
        if "patch" in response and document is not None:
            json_patch(document, json.loads(base64.b64decode(response["patch"])))


def review(document: Any, old: Any = None) -> bytes:
    """A review of a pod."""
    request = {"uid": "u", "kind": {"kind": "Pod"}, "namespace": "team", "operation": "UPDATE" if old else "CREATE"}
    request |= {"object": document, "oldObject": old}
    return json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}).encode()


def _pod_with(**metadata: Any) -> Object:
    return pod(f"{SOURCE}:v1", metadata=metadata)


@given(
    json_values,
    st.sampled_from(["apiVersion", "kind", "request", "uid", "object", "oldObject", "operation", "metadata", "spec", "image"]),
)
@examples(400)
def test_any_value_in_any_place_of_a_review(value: Any, place: str) -> None:
    """Once instead of what belongs there, and once after it: of two fields of one name the last counts, as in the API server."""
    webhook = Webhook()
    body = review(_pod_with(name="p"), _pod_with(name="p"))
    key = b'"%s": ' % place.encode()
    raw = json.dumps(value).encode()
    webhook.check(body.replace(key, key + raw + b", " + key))
    webhook.check(body.replace(key, b'"other": ').replace(b"{", b"{" + key + raw + b", ", 1))


@pytest.mark.parametrize("body", raw_cases("review"))
def test_what_once_broke_a_review(body: bytes) -> None:
    """Each is answered, and does not count as failed."""
    Webhook().check(body, json.loads(body)["request"]["object"])


EXTREME = {
    "deep-lists": lambda size: b"[" * size,
    "deep-mappings": lambda size: b'{"a":' * (size // 5),
    "a-deep-pod": lambda size: review(0).replace(b'"object": 0', b'"object": ' + b"[" * (size // 2) + b"]" * (size // 2)),
    "a-deep-label": lambda size: review(_pod_with(labels=0)).replace(b'"labels": 0', b'"labels": ' + b'{"a":' * (size // 6)),
    "a-long-image": lambda size: review(pod("a/" * (size // 2))),
    "many-images": lambda size: review(pod(*[f"{SOURCE}:v{n}" for n in range(size // 80)])),
    "one-image-again-and-again": lambda size: review(pod(*[f"{SOURCE}:v1"] * (size // 80))),
    "an-update-of-many": lambda size: review(pod(*["b"] * (size // 80)), pod(*[f"{SOURCE}:v1"] * (size // 80))),
    "a-long-account": lambda size: review(pod(f"{SOURCE}:v1", serviceAccountName="." * size, imagePullSecrets=[{"name": "a"}] * 9)),
    "many-secrets": lambda size: review(pod(f"{SOURCE}:v1", imagePullSecrets=[{"name": "a"}] * (size // 15))),
    "many-owners": lambda size: review(_pod_with(ownerReferences=[{"kind": "A", "apiVersion": "/" * 50}] * (size // 90))),
    "our-annotation-long": lambda size: review(_annotated(json.dumps({f"c{n}": "x" for n in range(size // 20)}))),
    "our-annotation-deep": lambda size: review(_annotated("[" * size)),
    "many-fields-of-one-name": lambda size: b"{" + b'"kind":"a",' * (size // 11) + b'"kind":"b"}',
    "escapes": lambda size: review(pod("\u0001" * (size // 6))),
    "invalid-utf-8": lambda size: review(pod("@@@")).replace(b"@@@", b"\xff" * size),
    "invalid-utf-8-where-nobody-looks": lambda size: review(_pod_with(other="@@@")).replace(b"@@@", b"\xff" * size),
    "a-long-number": lambda size: review(_pod_with(generation=0)).replace(b'"generation": 0', b'"generation": ' + b"9" * size),
    "spaces": lambda size: review(_pod_with(name="p")) + b" " * size,
    "nul": lambda size: b"\0" * size,
}


def _annotated(text: str) -> Object:
    return _pod_with(annotations={"mirrorstream.github.io/original-images": text})


@pytest.mark.parametrize("make", EXTREME.values(), ids=EXTREME)
def test_reviews_take_linear_time(make: Any) -> None:
    """Up to what the webhook reads of a review."""
    webhook = Webhook()
    grows_linearly(make, webhook.check, largest=MAXIMUM_BODY // 2, smallest=16384)


HEAD = b"POST /mutate-pods HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize("length", [b"-1", b"1e3", b"", "٣".encode(), b"9" * 5000, b"%d" % (MAXIMUM_BODY + 1)])
def test_any_length_is_answered(length: bytes) -> None:
    """The header may say anything."""
    answered = converse(Webhook().application, HEAD + b"Content-Length: %b\r\n\r\n{}" % length)
    assert re.match(rb"HTTP/1.1 4(00|13|31) ", answered)
    assert answered.count(b"HTTP/1.1") == 1


@given(st.data())
@examples(400)
def test_a_connection_reads_the_same_in_whatever_pieces_it_comes(data: st.DataObject) -> None:
    """Two reviews, of which one comes in chunks, cut at any places; with bytes changed or lost, too: then nothing fails inside."""
    webhook, body = Webhook(), review(_pod_with(name="p"))
    whole = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    sent = bytearray(whole + HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
    places = st.integers(0, len(sent) - 1)
    changes = data.draw(st.lists(st.tuples(places, st.binary(max_size=3)), max_size=3))
    for place, replacement in changes:
        sent[place : place + 1] = replacement
    cuts = sorted(data.draw(st.lists(places, max_size=8)))
    answered = converse(webhook.application, *(bytes(sent[a:b]) for a, b in pairwise([0, *cuts, len(sent)])))
    assert webhook.failed() == 0
    assert b"HTTP/1.1 500" not in answered
    if not changes:
        assert answered.count(b"HTTP/1.1 200 OK") == 2
