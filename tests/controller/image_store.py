"""An API server that stores Images, and an image that a mirror served."""

import copy
from typing import Any

from mirrorstream.imagestream.recorded import RECORDED_ANNOTATION, recorded_items
from mirrorstream.kube.client import ApiError
from mirrorstream_controller.importer import FetchedImage

Object = dict[str, Any]
THROUGH = "mirrorstream.github.io/imported-through"
PATH = "/apis/image.openshift.io/v1/images"


def image(name: str, **more: Any) -> Object:
    """An Image as a dry run answers it."""
    return {"metadata": {"name": name, "annotations": {"order": "ascending"}}, "dockerImageMetadata": {"Id": name}, **more}


RAW = {"dockerImageManifest": "{}", "dockerImageConfig": "{}", "signatures": [{"type": "AtomicImageV1"}]}
FETCHED = FetchedImage("v1", "m.io:5000/team/app:v1", image("sha256:aa"), (image("sha256:bb", **RAW), image("sha256:cc", **RAW)))


class Store:
    """An API server that stores Images; `after_get` changes them after each read, `refusal` is the answer to a PATCH."""

    def __init__(self) -> None:
        self.images: dict[str, Object] = {}
        self.calls: list[str] = []
        self.refusal: ApiError | None = None
        self.after_get: Any = lambda: None

    def get(self, path: str) -> Object:
        """Read one."""
        self.calls.append("GET")
        found = copy.deepcopy(self.images.get(path.removeprefix(f"{PATH}/")))
        self.after_get()
        if found is None:
            raise ApiError(404, "NotFound", path)
        return found

    def request(self, method: str, path: str, *, body: Object, **more: Any) -> Object:
        """Create or change one."""
        self.calls.append(method)
        if method == "POST":
            if body["metadata"]["name"] in self.images:
                raise ApiError(409, "AlreadyExists", "")
            self.images[body["metadata"]["name"]] = copy.deepcopy(body)
            self.images[body["metadata"]["name"]]["metadata"]["resourceVersion"] = "1"
            return body
        if self.refusal:
            raise self.refusal
        metadata = self.images[path.removeprefix(f"{PATH}/")]["metadata"]
        assert more["content_type"] == "application/merge-patch+json"
        assert body.keys() == {"metadata"}
        if body["metadata"]["resourceVersion"] != metadata["resourceVersion"]:
            raise ApiError(409, "Conflict", "")
        metadata["annotations"].update(body["metadata"]["annotations"])
        metadata["resourceVersion"] += "1"
        return body

    def recorded(self, name: str = "sha256:aa") -> Object:
        """The annotation of one."""
        return dict(recorded_items(self.images[name]["metadata"]["annotations"].get(RECORDED_ANNOTATION, "")))
