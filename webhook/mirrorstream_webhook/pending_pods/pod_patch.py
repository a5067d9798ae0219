"""The JSON Patch that replaces images of a pending pod, and records it in the pod's annotation and label. Pure."""

from typing import Any

import msgspec
from mirrorstream.diagnose.pods import ORIGINALS_ANNOTATION

from mirrorstream_webhook.patch import pointer, put
from mirrorstream_webhook.pending_pods.hangs import Change, PendingPod
from mirrorstream_webhook.pods import REPAIRED_LABEL, TRUE


def json_patch(pending: PendingPod, changes: tuple[Change, ...]) -> list[dict[str, Any]]:
    """The JSON Patch for the pod, which fails if it is another pod, or has other images, by now."""
    operations: list[dict[str, Any]] = [_test("/metadata/uid", pending.uid)]
    for change in changes:
        operations.append(_test(change.slot.pointer, change.slot.image))
        operations.append({"op": "replace", "path": change.slot.pointer, "value": change.target})
    originals = {**pending.originals, **{change.slot.name: change.original for change in changes}}
    written: list[tuple[str, str, str, bool]] = []
    if originals != pending.originals or not pending.has_ours:
        written.append(("annotations", ORIGINALS_ANNOTATION, msgspec.json.encode(originals).decode(), pending.annotated))
    if pending.repaired:
        operations.append(_test(pointer("labels", REPAIRED_LABEL), TRUE))
    else:
        written.append(("labels", REPAIRED_LABEL, TRUE, pending.labelled))
    operations += [put(field, key, value, has_field=has_field) for field, key, value, has_field in written]
    if not all(has_field for *_, has_field in written):
        # Adding the whole field would overwrite what others have added to it since.
        operations.insert(0, _test("/metadata/resourceVersion", pending.version))
    return operations


def _test(path: str, value: str) -> dict[str, Any]:
    return {"op": "test", "path": path, "value": value}
