"""Streams, rules and Events for the tables."""

import json
from typing import Any

from mirrorstream.diagnose.check import TagCheck, checks_of
from mirrorstream.diagnose.tag_status import ControllerView
from mirrorstream.imagestream.failures import Failure, FailureClass
from mirrorstream.imagestream.model import ImageStream, imagestream_from
from mirrorstream.imagestream.outcomes import (
    OUTCOME_ANNOTATION,
    Attempt,
    AttemptHistory,
    AttemptResult,
    CandidateAnswer,
    StreamEvent,
    decode_event,
    encode_attempts,
)
from mirrorstream.rules.policy import MirrorPolicy

Object = dict[str, Any]
NOW = 1_800_000_000.0
"""2027-01-15T08:00:00Z."""
SOURCE = "src.io/team/app:v1"
REFUSED = f'Internal error occurred: {SOURCE}: Get "https://src.io/v2/": dial tcp 10.0.0.1:443: connect: connection refused'
NOT_FOUND = f'dockerimage.image.openshift.io "{SOURCE}" not found'
IDMS = {
    "kind": "ImageDigestMirrorSet",
    "metadata": {"name": "m"},
    "spec": {"imageDigestMirrors": [{"source": "src.io", "mirrors": ["m.io/x", "n.io/y"]}]},
}
POLICY = MirrorPolicy.from_objects([IDMS])
FIRST, SECOND = "m.io/x/team/app:v1", "n.io/y/team/app:v1"
HOST = "m.io"
DIGEST = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64
ABSENT = Failure(FailureClass.NOT_FOUND, "name unknown: x")
DOWN = Failure(FailureClass.TIMEOUT, "i/o timeout")


def failure(message: str = REFUSED, reason: str = "InternalError", generation: int = 2) -> Object:
    """A status tag whose import failed an hour ago."""
    condition = {
        "type": "ImportSuccess",
        "status": "False",
        "reason": reason,
        "message": message,
        "generation": generation,
        "lastTransitionTime": "2027-01-15T07:00:00Z",
    }
    return {"conditions": [condition], "items": None}


def item(generation: int = 2) -> Object:
    """A status tag that has an image."""
    return {"items": [{"image": DIGEST, "dockerImageReference": f"src.io/team/app@{DIGEST}", "generation": generation}]}


def stream(status: Object | None = None, *tags: Object, annotations: Object | None = None, **spec: Any) -> ImageStream:
    """A stream `ns/app` with the tag `v1` at generation 2, in a status, and perhaps more tags."""
    tag = {"name": "v1", "from": {"kind": "DockerImage", "name": SOURCE}, "generation": 2}
    return imagestream_from(
        {
            "metadata": {"name": "app", "namespace": "ns", "uid": "u", "generation": 2, "annotations": annotations or {}},
            "spec": {"tags": [tag, *tags], **spec},
            "status": {"tags": [{"tag": "v1", **status}] if status else []},
        }
    )


def attempt(result: str = AttemptResult.FAILED, *failures: str, tag: str = "v1", **more: Any) -> Attempt:
    """An attempt whose candidates, the mirrors of POLICY in order, answered with these failures (empty: it served the image)."""
    answers = tuple(CandidateAnswer(ref, "ImageDigestMirrorSet/m", f, f) for ref, f in zip((FIRST, SECOND), failures, strict=False))
    return Attempt(**{"tag": tag, "result": str(result), "source": SOURCE, "candidates": answers, **more})


def event(
    outcome: Attempt | str | None, *, at: str = "2027-01-15T07:58:00Z", name: str = "app.1", version: str = "1", **more: Any
) -> StreamEvent:
    """An Event of the stream `ns/app`; `outcome` may be text that is no attempt, or None for no annotation at all."""
    text = next(encode_attempts([outcome]))[0] if isinstance(outcome, Attempt) else outcome
    annotations = {} if text is None else {"annotations": {OUTCOME_ANNOTATION: text, "other": "x"}}
    document = {
        "metadata": {"name": name, "resourceVersion": version, **annotations},
        "involvedObject": {"kind": "ImageStream", "namespace": "ns", "name": "app", "uid": "u"},
        "reason": "MirrorImportFailed",
        "message": "a sentence",
        "lastTimestamp": at,
        "count": 3,
        **more,
    }
    return decode_event(json.dumps(document).encode())


def history(*outcomes: Attempt) -> AttemptHistory:
    """A history with these attempts, in their order."""
    return AttemptHistory(event(outcome, name=f"app.{number}") for number, outcome in enumerate(outcomes))


def asked(*answers: str | Failure | None, of: ImageStream | None = None, policy: MirrorPolicy = POLICY, **view: Any) -> TagCheck:
    """What `check` knows of the tag v1 after these answers; None stands for a candidate that could not be asked."""
    (check,) = (c for c in checks_of(of or stream(), policy, ControllerView(**view)) if c.tag == "v1")
    for answer in answers:
        candidate = check.next_candidate
        assert candidate
        check = check.not_asked(candidate, "you may not") if answer is None else check.answered(candidate, answer)
    assert check.next_candidate is None
    return check
