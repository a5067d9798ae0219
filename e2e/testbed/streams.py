"""The streams of a namespace, as its user sees and changes them."""

import json
import re
import threading
from typing import Any

from mirrorstream.kube.client import ApiError, Client

from e2e.testbed.support.waiting import PATIENCE, wait_for

Object = dict[str, Any]
IMAGE_API = "/apis/image.openshift.io/v1"


def tag(name: str, source: str, **more: Any) -> Object:
    """A spec tag that imports `source`; `more` are further fields, in the API's names."""
    return {"name": name, "from": {"kind": "DockerImage", "name": source}, "referencePolicy": {"type": "Local"}, **more}


def following(name: str, followed: str) -> Object:
    """A spec tag that follows another of its stream."""
    return {"name": name, "from": {"kind": "ImageStreamTag", "name": followed}, "referencePolicy": {"type": "Local"}}


def without_generations(spec: Object) -> Object:
    """A stream's spec without the tags' generations, which the platform itself raises."""
    return {**spec, "tags": [{k: v for k, v in t.items() if k != "generation"} for t in spec.get("tags") or []]}


class Streams:
    """What a user does with the streams of the namespace `name`, and whether they are what their user wrote."""

    name: str
    _written: dict[str, Object]

    @property
    def client(self) -> Client:
        """The user's."""
        raise NotImplementedError

    @property
    def _streams(self) -> str:
        return f"{IMAGE_API}/namespaces/{self.name}/imagestreams"

    def create(self, name: str, *tags: Object, annotations: dict[str, str] | None = None, **spec: Any) -> Object:
        """Create a stream as a user does."""
        metadata: Object = {"name": name, "labels": {"made-by": "user"}, "annotations": annotations or {}}
        body = {
            "apiVersion": "image.openshift.io/v1",
            "kind": "ImageStream",
            "metadata": metadata,
            "spec": {"tags": list(tags), **spec},
        }
        return self._wrote(self.client.request("POST", self._streams, body=body))

    def change(self, name: str, change: Any) -> Object:
        """Change a stream's spec or metadata as a user does, with `change(stream)`, until there is no conflict."""

        def attempt() -> Object | None:
            stream = self.get(name)
            change(stream)
            try:
                answer: Object = self.client.request("PUT", f"{self._streams}/{name}", body=stream)
            except ApiError as error:
                if error.status != 409:
                    raise
                return None
            return answer

        return self._wrote(wait_for("a spec write without a conflict", attempt))

    def annotate(self, name: str, key: str, value: str) -> None:
        """Set an annotation of a stream."""
        self.change(name, lambda stream: stream["metadata"].setdefault("annotations", {}).update({key: value}))

    def wrote(self, name: str) -> None:
        """Take what a stream says now for what its user wrote: a tool of the user's has just written it."""
        self._wrote(self.get(name))

    def _wrote(self, stream: Object) -> Object:
        self._written[stream["metadata"]["name"]] = stream
        return stream

    def delete(self, name: str) -> None:
        """Delete a stream."""
        self._written.pop(name, None)
        self.client.request("DELETE", f"{self._streams}/{name}")

    def get(self, name: str) -> Object:
        """A stream as it is now."""
        stream: Object = self.client.get(f"{self._streams}/{name}")
        return stream

    def streams(self) -> list[Object]:
        """All streams."""
        items: list[Object] = self.client.get(self._streams).get("items") or []
        return items

    def import_image(self, name: str, tag_name: str, source: str, **policy: Any) -> Object:
        """`oc import-image`."""
        return self.import_images(name, tag(tag_name, source, importPolicy=policy))

    def import_images(self, name: str, *tags: Object) -> Object:
        """`oc import-image` of several tags at once, each as the spec has it."""
        images = [
            {
                "from": one["from"],
                "to": {"name": one["name"]},
                "importPolicy": one.get("importPolicy", {}),
                "referencePolicy": one["referencePolicy"],
            }
            for one in tags
        ]
        body = {"metadata": {"name": name}, "spec": {"import": True, "images": images}}
        path = f"{IMAGE_API}/namespaces/{self.name}/imagestreamimports"

        def attempt() -> Object | None:
            try:
                answer: Object = self.client.request("POST", path, body=body, timeout=90)
            except ApiError as error:
                if error.status != 409:
                    raise
                return None
            return answer

        return wait_for("an import without a conflict", attempt)

    def tag_status(self, name: str, tag_name: str) -> Object:
        """The status of a tag; empty if there is none."""
        tags = (self.get(name).get("status") or {}).get("tags") or []
        return next((t for t in tags if t["tag"] == tag_name), {})

    def spec_tag(self, name: str, tag_name: str) -> Object:
        """A tag of the spec."""
        found: Object = next(t for t in self.get(name)["spec"]["tags"] if t["name"] == tag_name)
        return found

    def failure(self, name: str, tag_name: str) -> Object | None:
        """The tag's ImportSuccess=False, if it has one."""
        conditions = self.tag_status(name, tag_name).get("conditions") or []
        return next((c for c in conditions if c["type"] == "ImportSuccess" and c["status"] == "False"), None)

    def wait_failed(self, name: str, tag_name: str, *, seconds: float = PATIENCE) -> Object:
        """Wait until the platform's import of a tag has failed; the condition."""
        return wait_for(f"{name}:{tag_name} fails", lambda: self.failure(name, tag_name), seconds=seconds)

    def healed(self, name: str, tag_name: str, digest: str = "") -> Object | None:
        """The tag's newest item if the tag is well: no failure, and at the spec tag's generation."""
        status = self.tag_status(name, tag_name)
        items = status.get("items") or []
        if not items or status.get("conditions") or (digest and items[0]["image"] != digest):
            return None
        generation = self.spec_tag(name, tag_name)["generation"] if self._is_importable(name, tag_name) else 0
        newest: Object = items[0]
        return newest if newest["generation"] >= generation else None

    def _is_importable(self, name: str, tag_name: str) -> bool:
        tags = self.get(name)["spec"].get("tags") or []
        return any(t["name"] == tag_name and t["from"]["kind"] == "DockerImage" for t in tags)

    def wait_healed(self, name: str, tag_name: str, digest: str = "", *, seconds: float = PATIENCE) -> Object:
        """Wait until a tag is well (and points to `digest`); its newest item."""
        try:
            return wait_for(f"{name}:{tag_name} heals", lambda: self.healed(name, tag_name, digest), seconds=seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{json.dumps(self.get(name), indent=1)}\n{self.events(name)}") from None

    def stays(self, what: str, condition: Any, *, seconds: float = 1.5) -> None:
        """Check that something remains true for a while."""
        stop = threading.Event()
        for _ in range(int(seconds / 0.1)):
            assert condition(), f"did not stay so: {what}"
            stop.wait(0.1)

    def events(self, name: str, reason: str = "") -> list[str]:
        """The messages of a stream's Events, as `reason: message`."""
        items = self.client.get(f"/api/v1/namespaces/{self.name}/events").get("items") or []
        return [
            f"{e['reason']}: {e['message']}"
            for e in items
            if e["involvedObject"]["name"] == name and (not reason or e["reason"] == reason)
        ]

    def wait_event(self, name: str, reason: str, pattern: str = "", *, seconds: float = PATIENCE) -> str:
        """Wait for an Event of a stream; its text."""

        def found() -> str | None:
            return next((text for text in self.events(name, reason) if re.search(pattern, text)), None)

        return wait_for(f"Event {reason} with {pattern!r} on {name}", found, seconds=seconds)

    def image(self, digest: str) -> Object:
        """An Image."""
        image: Object = self.client.get(f"{IMAGE_API}/images/{digest}")
        return image

    def check_untouched(self) -> None:
        """Check that every stream's spec, labels and annotations are what the user wrote."""
        for stream in self.streams():
            written = self._written.get(stream["metadata"]["name"])
            if written is None:
                continue
            assert without_generations(stream["spec"]) == without_generations(written["spec"])
            assert stream["metadata"].get("labels") == written["metadata"].get("labels")
            assert _users_annotations(stream) == _users_annotations(written)


def _users_annotations(stream: Object) -> dict[str, str]:
    annotations = stream["metadata"].get("annotations") or {}
    return {key: value for key, value in annotations.items() if key != "openshift.io/image.dockerRepositoryCheck"}
