"""What a failure costs of a tag that has the mirror's image already: scheduled tags fail at each of the platform's turns."""

from typing import Any

from mirrorstream.imagestream.model import imagestream_from
from mirrorstream.imagestream.recorded import RECORDED_ANNOTATION, recorded_items, with_item
from mirrorstream.kube.client import ApiError
from mirrorstream_controller.images import Images
from mirrorstream_controller.importer import FetchedImage

from tests.controller.bed import KEY, Bed, Storing, storing
from tests.controller.builders import Object, failure, item, stream
from tests.controller.image_store import FETCHED, THROUGH, Store

HOSTED = 600
RETRY = "mirrorstream.github.io/retry"


def failing(**annotations: str) -> Object:
    """A stream whose tag has the image, and fails again."""
    return stream({"items": [item(2)], "conditions": [failure(3)]}, {"generation": 3}, annotations={**annotations})


class Healed(Storing):
    """An API server on which mirrorstream recorded the tag's item; its image is a list of two parts."""

    asked_for: list[str]

    def request(self, method: str, path: str, *, body: Any = None, **more: Any) -> Any:
        """A dry run, an Image, or a write."""
        self.asked_for.append(f"{method} {path.rpartition('/')[2]}")
        answer = super().request(method, path, body=body, **more)
        if path.endswith("/imagestreamimports"):
            answer["status"]["images"][0]["manifests"] = [{"metadata": {"name": f"sha256:part{n}"}} for n in range(2)]
        return answer

    def get(self, path: str) -> Any:
        """The stream, or an Image of mirrorstream's."""
        self.asked_for.append("GET")
        if "/images/" in path:
            annotations = {THROUGH: "m.io", RECORDED_ANNOTATION: with_item({}, "x", "m.io")}
            return {"metadata": {"name": path.rpartition("/")[2], "annotations": annotations}}
        return super().get(path)


class Deleted(Healed):
    """The same, but somebody has deleted the Image since."""

    created: list[Object]

    def request(self, method: str, path: str, *, body: Any = None, **more: Any) -> Any:
        """Remember the Images that are created."""
        if path.endswith("/images"):
            self.created.append(body)
        return super().request(method, path, body=body, **more)

    def get(self, path: str) -> Any:
        """The stream; no Image."""
        if "/images/" in path:
            raise ApiError(404, "NotFound", "there is no such Image")
        return super().get(path)


def heal(document: Object, before: Object | None = None, kind: type[Healed] = Healed) -> Any:
    """Have the watch bring a stream, and do all that is to do; what the API server was asked for."""
    bed = Bed()
    platform = storing(bed, document)
    platform.__class__ = kind
    healed: Any = platform
    healed.asked_for, healed.created = [], []
    if before:
        bed.see(KEY, imagestream_from(before))
    bed.see(KEY, imagestream_from(document))
    bed.settle()
    return healed


def test_the_same_image_again_is_only_read() -> None:
    """The Image and its parts are there since the item was recorded; the item's reference stays."""
    platform = heal(failing())
    assert platform.asked_for == ["POST imagestreamimports", "GET", "GET", "PUT status"]
    (written,) = platform.written
    assert written["status"]["tags"][0] == {"tag": "v1", "items": [item(3)]}


def test_who_asks_for_a_retry_gets_the_parts_again() -> None:
    """Somebody may have deleted one, and then the image cannot be pulled."""
    platform = heal(failing(**{RETRY: "2"}), before=stream({"items": [item(2)]}, annotations={RETRY: "1"}))
    assert platform.asked_for.count("POST images") == 3


def test_an_image_that_was_deleted_knows_the_item_again() -> None:
    """The item stays as it was made, so that is what the new Image must have: else it would count as the platform's."""
    platform = heal(failing(), kind=Deleted)
    (written,) = platform.written
    assert written["status"]["tags"][0] == {"tag": "v1", "items": [item(3)]}
    recorded = [recorded_items(image["metadata"]["annotations"].get(RECORDED_ANNOTATION, "")) for image in platform.created]
    assert [list(items) for items in recorded if items] == [[item(3)["created"]]]


def test_an_image_knows_the_items_of_every_hosted_cluster() -> None:
    """All have the same catalogs. They were created one after the other, and each item has a second of its own."""
    store = Store()
    images = Images(store, sleep=lambda seconds: None)  # type: ignore[arg-type]
    fetched = FetchedImage(FETCHED.tag, FETCHED.through, FETCHED.image)
    for number in range(HOSTED):
        images.create(fetched, "src.io/team/app", f"2027-01-15T08:{number // 60:02}:{number % 60:02}Z")
    assert len(store.recorded()) == HOSTED
