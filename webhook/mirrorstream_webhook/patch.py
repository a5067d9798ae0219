"""What a review makes of a pod: which references are looked at, and the JSON Patch. Pure."""

from collections.abc import Callable
from enum import StrEnum
from typing import Any

import msgspec

from mirrorstream_webhook.pods import ORIGINALS_ANNOTATION, Pod, Slot, slots

EPHEMERAL = "ephemeralcontainers"
_POINTER = f"/metadata/annotations/{ORIGINALS_ANNOTATION.replace('/', '~1')}"


class Result(StrEnum):
    """What became of an image; the values label metrics and stand in the audit annotation."""

    REWRITTEN = "rewritten"
    PENDING = "pending"
    OBSERVED = "observed"
    INTERNAL = "internal"
    NO_STREAM = "no-stream"
    UNPARSABLE = "unparsable"
    NOT_MIRRORED = "not-mirrored"
    NOT_IMPORTED = "not-imported"
    OTHER_SOURCE = "other-source"
    NO_ACCESS = "no-access"
    ACCESS_UNKNOWN = "access-unknown"
    SIGNATURE_POLICY = "signature-policy"
    BLOCKED = "blocked"
    REGISTRY_REFUSED = "registry-refused"
    PULL_SECRETS = "pull-secrets"
    OPTED_OUT = "opted-out"
    EXCLUDED_OWNER = "excluded-owner"
    EXCLUDED_NAMESPACE = "excluded-namespace"
    NOT_SYNCED = "not-synced"


_SERVED = frozenset({Result.REWRITTEN, Result.PENDING, Result.OBSERVED})
"""The right to pull from the stream was looked at, and is there."""
_ABOUT_THE_STREAM = frozenset({Result.NOT_MIRRORED, Result.NOT_IMPORTED, Result.OTHER_SOURCE})
"""Their reasons tell of the stream; all others tell of the pod, its account, and rules for its own reference."""


class Decision(msgspec.Struct, frozen=True, gc=False):
    """What is done about one reference; `target` is what it becomes, empty if it stays, `stream` is `namespace/stream:tag`."""

    result: Result
    reason: str
    stream: str = ""
    target: str = ""


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
        reason, stream = decision.reason, decision.stream
        if stream and elsewhere != namespace and decision.result not in _SERVED:
            stream = ""
            if decision.result in _ABOUT_THE_STREAM:
                reason = f"a tag of {elsewhere} stands for it; `mirrorstream explain --as-pod` tells more to whoever may see that"
        return {"name": self.slot.name, "image": self.slot.image, "result": decision.result, "reason": reason, "stream": stream}


class Rewriting(msgspec.Struct, frozen=True):
    """The outcome for a pod: the operations of a JSON Patch, empty if nothing changes, and what was looked at."""

    patch: list[dict[str, Any]] = []
    images: list[Examined] = []


def rewrite(pod: Pod, old: Pod | None, decide: Callable[[str], Decision], *, subresource: str = "") -> Rewriting:
    """Decide about every image of `pod` that `old` (None for a new pod) does not have at the same place.

    The answer is idempotent: what was rewritten is the internal registry's and stays.
    """
    if old is None:
        examined = [Examined(slot, decide(slot.image)) for slot in slots(pod)]
    else:
        before = {slot.name: slot.image for slot in slots(old)}
        changed = [slot for slot in slots(pod) if before.get(slot.name) != slot.image]
        originals = read_originals(_written(old)) if changed else {}
        examined = [Examined(slot, _as_before(slot, before, originals, decide) or decide(slot.image)) for slot in changed]
    if not examined:
        return Rewriting()
    patch: list[dict[str, Any]] = [
        {"op": "replace", "path": e.slot.pointer, "value": e.decision.target} for e in examined if e.decision.target
    ]
    # An update of the subresource keeps nothing but the containers.
    if subresource != EPHEMERAL and (operation := _annotate(pod, examined)):
        patch.insert(0, operation)
    return Rewriting(patch, examined)


def _as_before(slot: Slot, before: dict[str, str], originals: dict[str, str], decide: Callable[[str], Decision]) -> Decision | None:
    """Keep what the same reference was rewritten to; None where it was not.

    Whoever applies the same pod again has changed nothing, so nothing may restart, though the tag may have moved on.
    """
    present = before.get(slot.name)
    if present is None or originals.get(slot.name) != slot.image or decide(present).result is not Result.INTERNAL:
        return None
    return Decision(Result.REWRITTEN, "the pod has it already, from when it was created", target=present)


def _written(pod: Pod) -> str | None:
    """Our annotation's text, if the pod has it."""
    return pod.metadata.annotations.originals if pod.metadata.annotations else None


def _annotate(pod: Pod, examined: list[Examined]) -> dict[str, Any] | None:
    """The operation that keeps the annotation with the original references true; None if it is."""
    written = _written(pod)
    originals = read_originals(written)
    for item in examined:
        if item.decision.target:
            originals[item.slot.name] = item.slot.image
        elif item.decision.result is not Result.INTERNAL:
            # Somebody put another image there since: what was original before says nothing about it.
            originals.pop(item.slot.name, None)
    if not originals:
        return {"op": "remove", "path": _POINTER} if written is not None else None
    value = msgspec.json.encode(originals).decode()
    if written is not None and originals == read_originals(written):
        return None
    if pod.metadata.annotations is None:
        return {"op": "add", "path": "/metadata/annotations", "value": {ORIGINALS_ANNOTATION: value}}
    return {"op": "add", "path": _POINTER, "value": value}


def read_originals(text: str | None) -> dict[str, str]:
    """The original references in the annotation's text; what is not ours, or is broken, counts as nothing."""
    if not text:
        return {}
    try:
        # Not Python's own: it takes half a surrogate pair, which no answer can have.
        found = msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return {}
    return {name: image for name, image in found.items() if isinstance(image, str)} if isinstance(found, dict) else {}
