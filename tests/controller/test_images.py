"""Images: what is stored in them, and whose items they have."""

import copy

import pytest
from mirrorstream.imagestream.recorded import RECORDED_ANNOTATION, RECORDED_ITEMS, RECORDED_LENGTH, recorded_items, with_item
from mirrorstream.kube.client import ApiError
from mirrorstream_controller.images import CONFLICT_RETRIES, Images
from mirrorstream_controller.importer import FetchedImage

from tests.controller.image_store import FETCHED, RAW, THROUGH, Store, image

FIRST, SECOND = "2027-01-15T08:00:00Z", "2027-01-15T08:10:00Z"


@pytest.fixture
def store() -> Store:
    """One without an Image."""
    return Store()


@pytest.fixture
def images(store: Store) -> Images:
    """The Images of it."""
    return Images(store, sleep=lambda seconds: None)  # type: ignore[arg-type]


def test_parts_are_stored_as_the_platform_stores_them(store: Store, images: Images) -> None:
    """Neither raw manifest, nor configuration, nor signatures: of a list with 10 parts they are a megabyte."""
    images.create(FETCHED, "src.io/team/app", FIRST)
    assert list(store.images) == ["sha256:bb", "sha256:cc", "sha256:aa"], "the parts first"
    for name, found in store.images.items():
        assert found["dockerImageReference"] == f"src.io/team/app@{name}"
        assert found["dockerImageMetadata"] == {"Id": name}
        assert not RAW.keys() & found.keys()
        assert found["metadata"]["annotations"]["order"] == "ascending"
        assert found["metadata"]["annotations"][THROUGH] == "m.io:5000"
    assert store.recorded() == {FIRST: "m.io:5000"}
    assert store.recorded("sha256:bb") == {}, "no tag has it as its item"


def test_two_items_of_one_image(store: Store, images: Images) -> None:
    """Of two tags, at two times, through two mirrors: each is known. Of one time it is written once."""
    assert images.create(FETCHED, "src.io/team/app", FIRST) == {FIRST}
    other = FetchedImage("v2", "n.io/app:v2", FETCHED.image)
    assert images.create(other, "src.io/team/other", SECOND) == {FIRST, SECOND}
    assert store.recorded() == {FIRST: "m.io:5000", SECOND: "n.io"}
    store.calls.clear()
    assert images.create(other, "src.io/team/other", SECOND) == {FIRST, SECOND}
    assert store.calls == ["POST", "GET"]
    assert images.recorded("sha256:aa") == {FIRST: "m.io:5000", SECOND: "n.io"}
    assert images.recorded("sha256:gone") is None


def test_an_image_that_the_platform_created_is_never_changed(store: Store, images: Images) -> None:
    """Its items count as the platform's."""
    store.images["sha256:aa"] = {**image("sha256:aa"), "dockerImageReference": "src.io/first@sha256:aa"}
    before = copy.deepcopy(store.images["sha256:aa"])
    assert images.create(FETCHED, "src.io/team/app", FIRST) == frozenset()
    assert store.images["sha256:aa"] == before
    assert images.recorded("sha256:aa") == {}


def test_a_conflict_is_read_again(store: Store, images: Images) -> None:
    """Sixteen imports run at once, and many tags have the same image: no item is lost."""
    images.create(FETCHED, "src.io/team/app", FIRST)
    left = [3]

    def after_get() -> None:
        if left[0]:
            left[0] -= 1
            annotations = store.images["sha256:aa"]["metadata"]["annotations"]
            annotations[RECORDED_ANNOTATION] = with_item(store.recorded(), f"2027-01-15T08:00:0{left[0] + 1}Z", "o.io")
            store.images["sha256:aa"]["metadata"]["resourceVersion"] += "x"

    store.after_get = after_get
    assert len(images.create(FETCHED, "src.io/team/app", SECOND)) == 5
    assert store.recorded()[SECOND] == "m.io:5000"
    left[0] = 1000
    with pytest.raises(ApiError, match=f"{CONFLICT_RETRIES} times"):
        images.create(FETCHED, "src.io/team/app", "2027-01-15T09:00:00Z")


def test_an_image_that_is_deleted_in_between_is_created_again(store: Store, images: Images) -> None:
    """`oc adm prune images` deletes what nothing refers to, and the item is not recorded yet."""
    images.create(FETCHED, "src.io/team/app", FIRST)
    gone = [True]

    def after_get() -> None:
        if gone.pop() if gone else False:
            del store.images["sha256:aa"]

    store.after_get = after_get
    store.refusal = ApiError(404, "NotFound", "")
    assert images.create(FETCHED, "src.io/team/app", SECOND) == {SECOND}
    assert store.recorded() == {SECOND: "m.io:5000"}


def test_without_the_right_to_annotate_the_tag_heals_all_the_same(store: Store, images: Images) -> None:
    """The role of an earlier version has no `patch` of Images. Other refusals are errors."""
    images.create(FETCHED, "src.io/team/app", FIRST)
    store.refusal = ApiError(403, "Forbidden", "no")
    assert images.create(FETCHED, "src.io/team/app", SECOND) == {FIRST}
    store.refusal = ApiError(422, "Invalid", "no")
    with pytest.raises(ApiError):
        images.create(FETCHED, "src.io/team/app", SECOND)


# The annotation.


def test_the_annotation_has_a_bounded_size() -> None:
    """A tag that is healed every quarter of an hour with another image of its repository, for years: the newest stay."""
    stamps = [f"2027-01-15T08:{number // 60:02}:{number % 60:02}Z" for number in range(2 * RECORDED_ITEMS)]
    items = dict(recorded_items(with_item(dict.fromkeys(stamps[:-1], "mirror.example.com:5000"), stamps[-1], "m.io")))
    assert list(items) == stamps[RECORDED_ITEMS:]
    longest = with_item(dict.fromkeys(stamps, "x" * 255), stamps[-1], "m.io")
    assert RECORDED_LENGTH // 2 < len(longest) <= RECORDED_LENGTH
    assert stamps[-1] in recorded_items(longest)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "1", '{"a": 1}', "[" * 100_000])
def test_an_annotation_of_anything_else_has_no_items(text: str) -> None:
    """A client that may write Images may write anything into it."""
    assert dict(recorded_items(text)) == {}
