"""Images on their way into the store: what the API server completes, keeps and refuses, for imports as for everybody."""

import json
import re
from typing import Any

from mirrorstream.rules.references import ReferenceError, parse_reference

from e2e.testbed.simulator import errors
from e2e.testbed.simulator.errors import Cause
from e2e.testbed.simulator.resources import Context, Strategy

Object = dict[str, Any]
BLOB_STORED = "image.openshift.io/manifestBlobStored"
ANNOTATIONS_SIZE = 256 * 1024
"""Bytes of all annotations together, keys included."""
_UNCHANGEABLE = ("dockerImageMetadata", "dockerImageMetadataVersion", "dockerImageLayers")
_DIGEST = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9A-Fa-f]{32,}")
_MEDIA_TYPE = re.compile(r" *[A-Za-z0-9][A-Za-z0-9!#$&^_-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126} *")


class ImageStrategy(Strategy):
    """Images have no generation; an update of what was read from the image changes nothing of it."""

    unconditional_update = False

    def prepare_create(self, item: Object, context: Context) -> None:
        """Complete and check a new Image."""
        self._finish(item)

    def prepare_update(self, new: Object, old: Object, context: Context) -> None:
        """The same for a changed one."""
        for key in _UNCHANGEABLE:
            new.pop(key, None)
            if key in old:
                new[key] = old[key]
        self._finish(new)

    @staticmethod
    def _finish(item: Object) -> None:
        if (item["metadata"].get("annotations") or {}).get(BLOB_STORED) == "true":
            item.pop("dockerImageManifest", None)
            item.pop("dockerImageConfig", None)
        if causes := _causes(item):
            raise errors.invalid("image.openshift.io", "Image", item["metadata"]["name"], causes)


def _causes(image: Object) -> list[Cause]:
    causes: list[Cause] = []
    annotations = image["metadata"].get("annotations") or {}
    if sum(len(text.encode()) for pair in annotations.items() for text in pair) > ANNOTATIONS_SIZE:
        why = f"Too long: may not be more than {ANNOTATIONS_SIZE} bytes"
        causes.append(Cause("FieldValueTooLong", "metadata.annotations", why))
    causes += _reference(image.get("dockerImageReference") or "")
    parts = image.get("dockerImageManifests") or []
    for number, part in enumerate(parts):
        causes += _part(f"dockerImageManifests[{number}]", part)
    if parts and (layers := image.get("dockerImageLayers")):
        why = "dockerImageLayers should not be set when dockerImageManifests is set"
        causes.append(errors.invalid_value("dockerImageLayers", json.dumps(layers), why))
    return causes


def _reference(reference: str) -> list[Cause]:
    if not reference:
        return [errors.required("dockerImageReference", "")]
    try:
        parse_reference(reference)
    except ReferenceError as error:
        return [errors.invalid_value("dockerImageReference", json.dumps(reference), str(error).rpartition(": ")[2])]
    return []


def _part(path: str, part: Object) -> list[Cause]:
    """What is wrong with an entry of a manifest list: one without a platform is enough to refuse the whole list."""
    causes: list[Cause] = []
    digest, media, size = part.get("digest") or "", part.get("mediaType") or "", part.get("manifestSize") or 0
    if not _DIGEST.search(digest):
        why = "digest does not conform with OCI image specification"
        causes.append(errors.invalid_value(f"{path}.digest", json.dumps(digest), why))
    if not _MEDIA_TYPE.fullmatch(media):
        causes.append(errors.invalid_value(f"{path}.mediaType", json.dumps(media), "media type does not conform to RFC6838"))
    causes += [errors.required(f"{path}.{key}", "") for key in ("architecture", "os") if not part.get(key)]
    if size < 0:
        causes.append(errors.invalid_value(f"{path}.size", json.dumps(size), "manifest size cannot be negative"))
    return causes
