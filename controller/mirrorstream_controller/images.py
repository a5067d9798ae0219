"""Images: making those that a tag's history points to, and noting in them which items mirrorstream recorded."""

import random
import time
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from mirrorstream.imagestream.model import IMPORTED_THROUGH_ANNOTATION
from mirrorstream.imagestream.recorded import RECORDED_ANNOTATION, recorded_items, with_item
from mirrorstream.kube.client import MERGE_PATCH, ApiError, Client

from mirrorstream_controller.importer import API, FetchedImage

log = structlog.get_logger(__name__)

NOT_STORED = frozenset({"dockerImageManifest", "dockerImageConfig", "signatures"})
"""What a dry run has of the parts of a manifest list, and the platform's own import does not store."""
CONFLICT_RETRIES = 8
"""Up to 16 imports of one image may end in the same second."""


class Images:
    """Reads and writes Images. An Image that mirrorstream did not create is never changed."""

    def __init__(self, client: Client, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._client, self._sleep = client, sleep

    def recorded(self, digest: str) -> Mapping[str, str] | None:
        """The items with this image that mirrorstream recorded, as `recorded_items`; None if there is no such Image.

        Raises ClientError.
        """
        image = self._get(digest)
        return None if image is None else recorded_items(_annotations(image).get(RECORDED_ANNOTATION, ""))

    def create(self, fetched: FetchedImage, recorded_name: str, created: str) -> frozenset[str]:
        """Create the Image, and before it every sub-manifest, without which a manifest list could not be pulled.

        The Image's annotation has the item of the time `created` before the item is recorded; returns the `created` of all items
        with this image that mirrorstream recorded. An Image belongs to every stream that has its digest, and the platform shows it
        to their owners: so it has the mirror's host, and neither repository nor namespace. Raises ClientError.
        """
        host = fetched.through.partition("/")[0]
        for manifest in fetched.manifests:
            self._create(manifest, recorded_name, {IMPORTED_THROUGH_ANNOTATION: host})
        annotations = {IMPORTED_THROUGH_ANNOTATION: host, RECORDED_ANNOTATION: with_item({}, created, host)}
        for attempt in range(1, CONFLICT_RETRIES + 1):
            if self._create(fetched.image, recorded_name, annotations):
                return frozenset({created})
            noted = self._note(fetched.digest, created, host)
            if noted is not None:
                return noted
            self._sleep(random.uniform(0, 0.05) * attempt)  # noqa: S311  spreads requests, guards nothing
        raise ApiError(409, "Conflict", f"Image {fetched.digest} was changed by others {CONFLICT_RETRIES} times in a row")

    def _create(self, image: dict[str, Any], recorded_name: str, annotations: dict[str, str]) -> bool:
        """Whether the Image was created; otherwise there is one."""
        metadata = image["metadata"]
        body = {
            **{key: value for key, value in image.items() if key not in NOT_STORED},
            "apiVersion": "image.openshift.io/v1",
            "kind": "Image",
            "metadata": {"name": metadata["name"], "annotations": {**_annotations(image), **annotations}},
            "dockerImageReference": f"{recorded_name}@{metadata['name']}",
        }
        try:
            self._client.request("POST", f"{API}/images", body=body)
        except ApiError as error:
            if error.status != 409:
                raise
            return False
        return True

    def _note(self, digest: str, created: str, host: str) -> frozenset[str] | None:
        """Add an item to the annotation of an Image that exists; None if the Image has changed, or is gone, since it was read."""
        image = self._get(digest)
        if image is None:
            return None
        annotations = _annotations(image)
        items = recorded_items(annotations.get(RECORDED_ANNOTATION, ""))
        if IMPORTED_THROUGH_ANNOTATION not in annotations or created in items:
            return frozenset(items)
        metadata = {
            "resourceVersion": image["metadata"].get("resourceVersion"),
            "annotations": {RECORDED_ANNOTATION: with_item(items, created, host)},
        }
        try:
            self._client.request("PATCH", f"{API}/images/{digest}", body={"metadata": metadata}, content_type=MERGE_PATCH)
        except ApiError as error:
            if error.status in (404, 409):
                return None
            if error.status != 403:
                raise
            # A role of an earlier version. The tag heals all the same; later the item counts as one that the platform imported.
            log.warning("not allowed to annotate an Image", image=digest, error=str(error))
            return frozenset(items)
        return frozenset({*items, created})

    def _get(self, digest: str) -> dict[str, Any] | None:
        try:
            image: dict[str, Any] = self._client.get(f"{API}/images/{digest}")
        except ApiError as error:
            if error.status != 404:
                raise
            return None
        return image


def _annotations(image: dict[str, Any]) -> dict[str, str]:
    return image["metadata"].get("annotations") or {}
