"""Whether a tag's newest item is an image of its present `from`.

The platform does not record from which `from` an item came. After `app:1` became `app:2` and the import of `app:2` failed, the tag
still has the item of `app:1`. Only a program that compares the stream before and after a change can tell: an item is settled under
a `from` when it was imported while the tag had that `from`, and a later `from` does not change that.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from mirrorstream.imagestream.eligibility import normalised
from mirrorstream.imagestream.model import ImageStream, SpecTag, StatusTag

UNKNOWN = ""
"""Stands for a `from` that is not known: it may have changed before this program saw the stream."""
EARLIER = "earlier"
"""Stands for a `from` that the tag does not have any more."""


class TagItem(msgspec.Struct, frozen=True, gc=False):
    """An importable tag's `from` (normalised) and generation, and its newest item.

    `failed_generation` is that of the condition ImportSuccess=False, 0 without one.
    """

    source: str
    generation: int
    image: str
    item_generation: int
    failed_generation: int = 0

    @property
    def imported(self) -> bool:
        """Whether the item was imported at the spec tag's present generation, which rises with each change of `from`."""
        return self.item_generation >= self.generation

    @property
    def only_failed(self) -> bool:
        """Whether the present generation comes from a failed import alone.

        A failure raises the spec tag's generation by one beyond the stream's: nothing was changed since the item was imported.
        """
        return self.failed_generation == self.generation == self.item_generation + 1


def tag_item(tag: SpecTag, status: StatusTag | None) -> TagItem | None:
    """The item of an importable tag; None if the tag is not importable or has no image."""
    newest = status.newest if status else None
    if not tag.importable or tag.from_ is None or status is None or newest is None or not newest.image:
        return None
    failure = status.failure
    return TagItem(
        normalised(tag.from_.name),
        tag.generation or 0,
        newest.image,
        newest.generation,
        failure.generation if failure else 0,
    )


def tag_items(stream: ImageStream) -> dict[str, TagItem]:
    """The items of a stream's importable tags, by tag."""
    statuses = stream.status_by_tag()
    items = {tag.name: tag_item(tag, statuses.get(tag.name)) for tag in stream.spec_tags}
    return {name: item for name, item in items.items() if item is not None}


def settled_under(new: TagItem, old: TagItem | None = None, before: str = UNKNOWN) -> str:
    """The `from` under which the item of `new` is settled, UNKNOWN or EARLIER if that cannot be told.

    `old` is the tag as it was last seen, None if it was not, and `before` the `from` under which its item was settled.
    """
    if new.imported:
        return new.source
    if old is not None and (old.image, old.item_generation) == (new.image, new.item_generation):
        return EARLIER if before == UNKNOWN and old.source != new.source else before
    if new.only_failed or (old is not None and old.source == new.source):
        # Imported and failed between two observations, or before the first: `from` did not change.
        return new.source
    return UNKNOWN


@dataclass(frozen=True, slots=True)
class StreamItems:
    """A stream's items as they were last seen.

    `unsettled` has the tags whose item is not of their present `from`, each with what `of` says.
    """

    uid: str
    items: Mapping[str, TagItem]
    unsettled: Mapping[str, str]

    def of(self, tag: str) -> str | None:
        """The `from` under which the item of `tag` is settled, UNKNOWN or EARLIER; None if there is no item."""
        item = self.items.get(tag)
        return None if item is None else self.unsettled.get(tag, item.source)


def follow(old: StreamItems | None, uid: str, items: Mapping[str, TagItem]) -> StreamItems:
    """The items of a stream after a change; `old` is what this returned before it, None at the first look.

    A stream with another `uid` is another stream.
    """
    if old is not None and old.uid != uid:
        old = None
    unsettled = {}
    for tag, item in items.items():
        before = old.of(tag) if old else None
        found = settled_under(item, old.items.get(tag) if old else None, before or UNKNOWN)
        if found != item.source:
            unsettled[tag] = found
    return StreamItems(uid, items, unsettled)
