"""What a review makes of a pod: which references are looked at, and the JSON Patch. Pure."""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

import msgspec
from mirrorstream.diagnose.pods import ORIGINALS_ANNOTATION
from mirrorstream.rules.references import MAXIMUM_LENGTH

from mirrorstream_webhook.pods import Pod, Slot, slots

EPHEMERAL = "ephemeralcontainers"


def pointer(field: str, key: str) -> str:
    """The JSON Pointer of a key in `metadata.labels` or `metadata.annotations`."""
    return f"/metadata/{field}/{key.replace('/', '~1')}"


def put(field: str, key: str, value: str, *, has_field: bool) -> dict[str, Any]:
    """The operation that sets such a key; `has_field` is whether the object has the field at all. Without it, it adds the field."""
    if not has_field:
        return {"op": "add", "path": f"/metadata/{field}", "value": {key: value}}
    return {"op": "add", "path": pointer(field, key), "value": value}


_POINTER = pointer("annotations", ORIGINALS_ANNOTATION)
ANNOTATION_LENGTH = 256 * 1024
"""Bytes that the API server accepts in all annotations of an object: no more letters of ours are read."""


class Way(StrEnum):
    """How a pod is served a digest; the values are those of `webhook.serveFrom`."""

    REGISTRY = "registry"
    """REGISTRY/NAMESPACE/STREAM@DIGEST, from the internal registry, which pulls it through a mirror."""
    DIGEST = "digest"
    """SOURCE@DIGEST, which the node pulls from a mirror."""


class Result(StrEnum):
    """What became of an image; the values label metrics and stand in the audit annotation."""

    __hash__ = str.__hash__
    """Enum's own is written in Python, and a review looks results up several times."""

    REWRITTEN = "rewritten"
    PENDING = "pending"
    OBSERVED = "observed"
    INTERNAL = "internal"
    KEPT = "kept"
    NO_STREAM = "no-stream"
    UNPARSABLE = "unparsable"
    NOT_MIRRORED = "not-mirrored"
    NOT_IMPORTED = "not-imported"
    EARLIER_IMAGE = "earlier-image"
    ARCHITECTURE = "architecture"
    OTHER_SOURCE = "other-source"
    NO_ACCESS = "no-access"
    ACCESS_UNKNOWN = "access-unknown"
    SIGNATURE_POLICY = "signature-policy"
    BLOCKED = "blocked"
    REGISTRY_REFUSED = "registry-refused"
    PULL_SECRETS = "pull-secrets"
    NO_REGISTRY = "no-registry"
    INSECURE_SOURCE = "insecure-source"
    NO_DIGEST_MIRROR = "no-digest-mirror"
    WINDOWS = "windows"
    TOO_LONG = "too-long"
    NEVER_PULLED = "never-pulled"
    SEARCH_REGISTRIES = "search-registries"
    STATIC_POD = "static-pod"
    OPTED_OUT = "opted-out"
    EXCLUDED_OWNER = "excluded-owner"
    EXCLUDED_NAMESPACE = "excluded-namespace"
    NOT_SYNCED = "not-synced"
    ERROR = "error"


_SERVED = frozenset({Result.REWRITTEN, Result.PENDING, Result.OBSERVED, Result.KEPT})
"""The right to pull from the stream was looked at, and is there."""
_ABOUT_THE_STREAM = frozenset(
    {
        Result.NOT_MIRRORED,
        Result.NOT_IMPORTED,
        Result.OTHER_SOURCE,
        Result.EARLIER_IMAGE,
        Result.ARCHITECTURE,
        Result.NO_DIGEST_MIRROR,
        Result.TOO_LONG,
        Result.INSECURE_SOURCE,
    }
)
"""Their reasons tell of the stream; all others tell of the pod, its account, and rules for its own reference."""


class Decision(msgspec.Struct, frozen=True, gc=False):
    """What is done about one reference; `target` is what it becomes, empty if it stays, `stream` is `namespace/stream:tag`.

    `way` is the Way that `target` takes, and `other` why one that comes earlier in `webhook.serveFrom` was not taken.
    """

    result: Result
    reason: str
    stream: str = ""
    target: str = ""
    way: str = ""
    other: str = ""


class Examined(msgspec.Struct, frozen=True, gc=False):
    """A place in the pod, and what was decided about it."""

    slot: Slot
    decision: Decision

    def document(self, namespace: str) -> dict[str, str]:
        """As the audit annotation of a pod of `namespace` has it.

        Clusters hand the audit events of a namespace on to its owners. So of a stream elsewhere it says no more than who may pull
        from there may know anyway: that right was seen only where an image is served.
        """
        decision = self.decision
        elsewhere = decision.stream.partition("/")[0]
        reason, stream, other = decision.reason, decision.stream, decision.other
        if stream and elsewhere != namespace and decision.result not in _SERVED:
            stream = other = ""
            if decision.result in _ABOUT_THE_STREAM:
                reason = f"a tag of {elsewhere} stands for it; `mirrorstream explain --as-pod` shows it to those who may read that"
        found = {"name": self.slot.name, "image": self.slot.image, "result": decision.result, "reason": reason, "stream": stream}
        if decision.way:
            found["way"] = decision.way
        if other:
            found["other"] = other
        return found


class Rewriting(msgspec.Struct, frozen=True):
    """The outcome for a pod: the operations of a JSON Patch, empty if nothing changes, and what was looked at."""

    patch: list[dict[str, Any]] = []
    images: list[Examined] = []


def rewrite(
    pod: Pod,
    old: Pod | None,
    decide: Callable[[Slot], Decision],
    stands_for: Callable[[str, str], bool] = lambda image, original: False,
    *,
    subresource: str = "",
) -> Rewriting:
    """Decide about every image of `pod` that `old` (None for a new pod) does not have at the same place.

    `stands_for` says whether an image is one that an original reference may have become. The answer is idempotent, and what is ours
    is recognised by its content, never by who asks.
    """
    if old is None:
        examined = [Examined(slot, _settle(slot, decide(slot))) for slot in slots(pod)]
        if (text := _written(pod)) is not None:
            # The API server asks again after another webhook has changed the pod: what was decided stays.
            named = read_originals(text)
            examined = [Examined(e.slot, _kept(e.slot, named.get(e.slot.name, ""), stands_for) or e.decision) for e in examined]
    else:
        before = _images(old)
        changed = _changed(pod, before)
        was, now = (read_originals(_written(old)), read_originals(_written(pod))) if changed else ({}, {})
        examined = [
            Examined(slot, _as_before(slot, before, was, now, stands_for) or _settle(slot, decide(slot))) for slot in changed
        ]
    if not examined:
        return Rewriting()
    patch: list[dict[str, Any]] = [
        {"op": "replace", "path": e.slot.pointer, "value": e.decision.target} for e in examined if e.decision.target
    ]
    # An update of the subresource keeps nothing but the containers.
    if subresource != EPHEMERAL and (operation := _annotate(pod, examined, stands_for)):
        patch.insert(0, operation)
    return Rewriting(patch, examined)


def new_slots(pod: Pod, old: Pod | None) -> list[Slot]:
    """The places whose image `old` (None for a new pod) does not have at the same place."""
    return _changed(pod, _images(old) if old else {})


def _changed(pod: Pod, before: Mapping[str, str]) -> list[Slot]:
    return [slot for slot in slots(pod) if before.get(slot.name) != slot.image]


def _images(pod: Pod) -> dict[str, str]:
    return {slot.name: slot.image for slot in slots(pod)}


def observed(rewriting: Rewriting) -> Rewriting:
    """The outcome where nothing is changed: what would be."""
    return Rewriting([], [Examined(e.slot, _observed(e.decision)) for e in rewriting.images])


def _observed(decision: Decision) -> Decision:
    if not decision.target:
        return decision
    reason = f"would become {decision.target}: {decision.reason}"
    return Decision(Result.OBSERVED, reason, decision.stream, way=decision.way, other=decision.other)


def _settle(slot: Slot, decision: Decision) -> Decision:
    """Leave an image that is already what it would become."""
    if decision.target != slot.image:
        return decision
    reason = "nodes pull it from a mirror by this digest"
    return Decision(Result.KEPT, reason, decision.stream, way=decision.way, other=decision.other)


def _as_before(
    slot: Slot,
    before: Mapping[str, str],
    was: Mapping[str, str],
    now: Mapping[str, str],
    stands_for: Callable[[str, str], bool],
) -> Decision | None:
    """Keep what the same reference was rewritten to; None where it was not.

    An annotation may be another pod's, or invented: it counts only where the image that the pod has stands for it.
    """
    present = before.get(slot.name)
    if present is None:
        return None
    original = was.get(slot.name, "")
    counts = bool(original) and stands_for(present, original)
    if counts and original == slot.image:
        # A pod that is applied again keeps its image, though the tag may have moved: nothing may restart.
        return Decision(Result.REWRITTEN, "the pod has it already, from when it was created", target=present)
    named = now.get(slot.name, "")
    return _kept(slot, named, stands_for) if named == present or (counts and named == original) else None


def _kept(slot: Slot, original: str, stands_for: Callable[[str, str], bool]) -> Decision | None:
    """Leave an image by which its original is served already."""
    if original and "@" in slot.image and stands_for(slot.image, original):
        return Decision(Result.KEPT, f"it is an image of {original}, which the annotation names")
    return None


def _written(pod: Pod) -> str | None:
    """Our annotation's text, if the pod has it."""
    return pod.metadata.annotations.originals if pod.metadata.annotations else None


def _annotate(pod: Pod, examined: list[Examined], stands_for: Callable[[str, str], bool]) -> dict[str, Any] | None:
    """The operation that keeps the annotation with the original references true; None if it is."""
    written = _written(pod)
    before = read_originals(written)
    originals: dict[str, str] = {}
    if before:
        places = {slot.name for slot in slots(pod)}
        originals = {name: original for name, original in before.items() if name in places}
    for item in examined:
        name, image = item.slot.name, item.slot.image
        if item.decision.target:
            originals[name] = image
        elif name in originals and not stands_for(image, originals[name]):
            # Somebody put another image there since: what was original before says nothing about it.
            del originals[name]
    if not originals:
        return {"op": "remove", "path": _POINTER} if written is not None else None
    if written is not None and originals == before:
        return None
    value = msgspec.json.encode(originals).decode()
    return put("annotations", ORIGINALS_ANNOTATION, value, has_field=pod.metadata.annotations is not None)


def fits(annotations: Mapping[str, str], patch: list[dict[str, Any]]) -> bool:
    """Whether the API server accepts the annotations that a pod has after the patch: it counts the bytes of keys and values."""
    after = dict(annotations)
    for operation in patch:
        if operation["path"] == "/metadata/annotations":
            after |= operation["value"]
        elif operation["path"] == _POINTER and operation["op"] == "remove":
            del after[ORIGINALS_ANNOTATION]
        elif operation["path"] == _POINTER:
            after[ORIGINALS_ANNOTATION] = operation["value"]
    return sum(len(key.encode()) + len(value.encode()) for key, value in after.items()) <= ANNOTATION_LENGTH


def without_room(rewriting: Rewriting) -> Rewriting:
    """The outcome for a pod that has no room for the annotation: the pod stays unchanged, and each image has the reason."""
    decision = Decision(Result.TOO_LONG, "the pod's annotations leave no room for its original images")
    return Rewriting([], [Examined(e.slot, decision) if e.decision.target else e for e in rewriting.images])


def read_originals(text: str | None) -> dict[str, str]:
    """The original references in the annotation's text; what is not ours, or is broken, counts as nothing."""
    if not text or len(text) > ANNOTATION_LENGTH:
        return {}
    try:
        # Not Python's own: it takes half a surrogate pair, which no answer can have.
        found = msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: image for name, image in found.items() if isinstance(image, str) and len(image) <= MAXIMUM_LENGTH}
