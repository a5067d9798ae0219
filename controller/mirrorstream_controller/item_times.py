"""The `created` of items that their Images note already, and that the streams do not have yet.

An Image notes an item before the item is recorded. A status write that is refused is tried again for as long as it is refused:
if each attempt used a new time, items that no stream ever has would push the others out of the Image's annotation.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable

from mirrorstream.kube.objects import Key
from mirrorstream.text.times import rfc3339

REMEMBERED = 10_000
"""How many items are remembered."""

Item = tuple[Key, str, str]
"""The stream, the tag, and the image's digest."""


class ItemTimes:
    """The `created` of items until they are recorded; safe to use from many threads. A restart loses it without harm."""

    def __init__(self, wall: Callable[[], float]) -> None:
        """`wall` answers the time of day, in seconds since the epoch."""
        self._wall = wall
        self._lock = threading.Lock()
        self._created: OrderedDict[Item, str] = OrderedDict()

    def of(self, key: Key, tag: str, digest: str) -> str:
        """The item's `created`, as RFC 3339 text: the same until it is recorded, now for a new one."""
        item = (key, tag, digest)
        with self._lock:
            created = self._created.get(item) or rfc3339(self._wall())
            self._created[item] = created
            self._created.move_to_end(item)
            if len(self._created) > REMEMBERED:
                self._created.popitem(last=False)
        return created

    def forget(self, key: Key, tag: str, digest: str) -> None:
        """The stream has the item, or is not to get it: if the tag gets this image later, that is another item."""
        with self._lock:
            self._created.pop((key, tag, digest), None)
