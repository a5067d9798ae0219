"""The tags whose newest item is not an image of their present `from`, of every stream that the cluster has.

The informer's handler keeps them, on the leader and on replicas that stand by, so that a new leader knows of changes that it did
not have to act on. Only exceptions are kept: a cluster has tens of thousands of tags, and few of them change their `from`.
"""

from collections.abc import Mapping

from mirrorstream.imagestream.model import ImageStream
from mirrorstream.imagestream.settled import StreamItems, follow, tag_items
from mirrorstream.kube.informer import Change
from mirrorstream.kube.objects import Key

NONE: Mapping[str, str] = {}


class UnsettledItems:
    """For each stream's unsettled tags, the `from` that their newest item is settled under, UNKNOWN or EARLIER.

    One thread calls `update`; others may call `of` at any time.
    """

    def __init__(self) -> None:
        self._streams: dict[Key, Mapping[str, str]] = {}

    def __len__(self) -> int:
        """How many streams have such tags."""
        return len(self._streams)

    def of(self, key: Key) -> Mapping[str, str]:
        """The unsettled tags of a stream, as `StreamItems.unsettled` has them."""
        return self._streams.get(key, NONE)

    def update(self, change: Change[ImageStream]) -> None:
        """Take in a change of a stream. To be called for every change, and in their order."""
        found = _unsettled(change.old, change.new, self.of(change.key))
        if found:
            self._streams[change.key] = found
        else:
            self._streams.pop(change.key, None)


def _unsettled(old: ImageStream | None, new: ImageStream | None, known: Mapping[str, str]) -> Mapping[str, str]:
    if new is None or not _may_have_unsettled(new):
        return NONE
    before = StreamItems(old.metadata.uid, tag_items(old), known) if old else None
    return follow(before, new.metadata.uid, tag_items(new)).unsettled


def _may_have_unsettled(stream: ImageStream) -> bool:
    """Whether an item is older than its tag: without one, which is the usual case, no reference has to be parsed."""
    statuses = stream.status_by_tag()
    for tag in stream.spec_tags:
        status = statuses.get(tag.name)
        if tag.importable and status is not None and status.newest and status.newest.generation < (tag.generation or 0):
            return True
    return False
