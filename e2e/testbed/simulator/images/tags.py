"""The views of a stream's tags and images: imagestreamtags, imagestreamimages, layers, secrets."""

from typing import Any

from e2e.testbed.simulator import errors
from e2e.testbed.simulator.images.imports import IMAGES
from e2e.testbed.simulator.images.streams import GROUP, STREAMS, StreamStrategy, canonical, spec_tags, status_tags
from e2e.testbed.simulator.resources import Context

Object = dict[str, Any]
CONFIG_TYPES = {
    "application/vnd.docker.distribution.manifest.v2+json": "application/vnd.docker.container.image.v1+json",
    "application/vnd.oci.image.manifest.v1+json": "application/vnd.oci.image.config.v1+json",
}
"""The media type of an image's configuration, by that of its manifest."""


class Views:
    """Reads and deletes tags through their stream."""

    def __init__(self, strategy: StreamStrategy) -> None:
        self._strategy = strategy

    def _stream(self, context: Context, resource: str, name: str, shown: str) -> Object:
        try:
            return context.store.get(STREAMS, context.namespace, name)
        except errors.StatusError as error:
            raise errors.not_found(GROUP, resource, shown) from error

    def get_tag(self, context: Context, name: str, body: Any) -> Object:
        """GET an ImageStreamTag: the image that the tag points to."""
        stream_name, _, tag = name.partition(":")
        stream = self._stream(context, "imagestreamtags", stream_name, stream_name)
        entry, spec = status_tags(stream).get(tag, {}), spec_tags(stream).get(tag)
        newest = (entry.get("items") or [None])[0]
        if newest is None:
            raise errors.not_found(GROUP, "imagestreamtags", name)
        answer: Object = {
            "kind": "ImageStreamTag",
            "apiVersion": f"{GROUP}/v1",
            "metadata": {
                "name": name,
                "namespace": context.namespace,
                "uid": stream["metadata"]["uid"],
                "resourceVersion": stream["metadata"]["resourceVersion"],
                "creationTimestamp": newest["created"],
            },
            "tag": spec,
            "generation": newest["generation"],
            "lookupPolicy": stream["spec"]["lookupPolicy"],
            "image": self._image(context, stream, newest, spec),
        }
        if entry.get("conditions"):
            answer["conditions"] = entry["conditions"]
        return answer

    def _image(self, context: Context, stream: Object, event: Object, spec: Object | None) -> Object:
        try:
            image = context.store.get(IMAGES, "", event["image"])
        except errors.StatusError as error:
            if event["image"]:
                raise errors.not_found(GROUP, "imagestreamtags", event["image"]) from error
            image = {"metadata": {"name": ""}, "dockerImageMetadata": None, "dockerImageLayers": None}
        reference = event["dockerImageReference"]
        local = self._strategy.decorate(stream)["status"]["dockerImageRepository"]
        if spec and spec["referencePolicy"]["type"] == "Local" and local and event["image"]:
            reference = f"{local}@{event['image']}"
        return {**image, "dockerImageReference": reference}

    def delete_tag(self, context: Context, name: str, body: Any) -> Object:
        """DELETE an ImageStreamTag: from the spec and from the status."""
        stream_name, _, tag = name.partition(":")
        stream = self._stream(context, "imagestreamtags", stream_name, stream_name)
        if tag not in spec_tags(stream) and tag not in status_tags(stream):
            raise errors.not_found(GROUP, "imagestreamtags", name)

        def remove(old: Object) -> Object:
            spec, status = old["spec"], old.get("status") or {}
            changed = {
                **old,
                "spec": {**spec, "tags": [t for t in spec.get("tags") or [] if t["name"] != tag]},
                "status": {**status, "tags": [t for t in status.get("tags") or [] if t["tag"] != tag]},
            }
            canonical(changed)
            changed["metadata"]["generation"] += 1
            return changed

        context.store.update(STREAMS, context.namespace, stream_name, remove)
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}

    def get_image(self, context: Context, name: str, body: Any) -> Object:
        """GET an ImageStreamImage: the Image as it is stored, for everyone in whose stream it is, itself or as a part of a list."""
        stream, _, digest = name.partition("@")
        if not stream or not digest or "@" in digest:
            raise errors.bad_request("ImageStreamImages must be retrieved with <name>@<id>")
        annotations = self._stream(context, "imagestreamimages", stream, stream)["metadata"].get("annotations")
        layers = self.layers(context, stream, body)
        found = [image for image in layers["images"] if digest in (image[: len(digest)], image.partition(":")[2][: len(digest)])]
        if not found:
            raise errors.not_found(GROUP, "imagestreamimage", name)
        image = context.store.get(IMAGES, "", found[-1])
        metadata = {
            "name": name,
            "namespace": context.namespace,
            "creationTimestamp": image["metadata"]["creationTimestamp"],
            "annotations": annotations,
        }
        return {"kind": "ImageStreamImage", "apiVersion": f"{GROUP}/v1", "metadata": metadata, "image": image}

    def layers(self, context: Context, name: str, body: Any) -> Object:
        """GET a stream's layers: every blob that its images consist of."""
        stream = context.store.get(STREAMS, context.namespace, name)
        answer: Object = {
            "kind": "ImageStreamLayers",
            "apiVersion": f"{GROUP}/v1",
            "metadata": stream["metadata"],
            "blobs": {},
            "images": {},
        }
        for entry in status_tags(stream).values():
            for event in entry.get("items") or []:
                if event.get("image"):
                    _add_layers(context, answer, event["image"])
        return answer


def _add_layers(context: Context, answer: Object, digest: str) -> None:
    """Add an image, the blobs that it refers to, and its parts, if it is a list."""
    if digest in answer["images"]:
        return
    try:
        image = context.store.get(IMAGES, "", digest)
    except errors.StatusError:
        answer["images"][digest] = {"layers": None, "imageMissing": True}
        return
    layers = image.get("dockerImageLayers") or []
    media = image.get("dockerImageManifestMediaType", "")
    reference: Object = {"layers": [layer["name"] for layer in layers] or None, "imageMissing": False}
    for layer in layers:
        answer["blobs"].setdefault(layer["name"], {"size": layer["size"], "mediaType": layer["mediaType"]})
    if media in CONFIG_TYPES:
        reference["config"] = image["dockerImageMetadata"]["Id"]
        answer["blobs"].setdefault(reference["config"], {"size": None, "mediaType": CONFIG_TYPES[media]})
    parts = [part["digest"] for part in image.get("dockerImageManifests") or []]
    if parts:
        reference["manifests"] = parts
    answer["images"][digest] = reference
    answer["blobs"].setdefault(digest, {"size": None, "mediaType": media})
    for part in parts:
        _add_layers(context, answer, part)
