"""Keys that are to be dealt with at a time, one namespace after another: one with a thousand pods delays only its own."""

import heapq
from collections import OrderedDict

from mirrorstream.kube.objects import Key

ROOM = 64
"""Entries that count no more, besides as many as there are keys, before they are dropped."""


class NamespaceQueue:
    """Each key is in it once, with the earliest time that was asked for. Not safe for threads by itself."""

    def __init__(self) -> None:
        self._due: dict[Key, float] = {}
        self._later: list[tuple[float, Key]] = []
        self._ready: OrderedDict[str, OrderedDict[Key, None]] = OrderedDict()

    def add(self, key: Key, when: float) -> None:
        """Have a key dealt with at `when`, or before if that was asked for."""
        if when < self._due.get(key, float("inf")):
            self._due[key] = when
            heapq.heappush(self._later, (when, key))
            if len(self._later) > 2 * len(self._due) + ROOM:
                # Entries that were replaced or discarded, most of them not to come for long.
                self._later = [(when, key) for key, when in self._due.items()]
                heapq.heapify(self._later)

    def discard(self, key: Key) -> None:
        """Forget a key."""
        self._due.pop(key, None)

    def take(self, now: float) -> Key | None:
        """A key that is due, of the namespace whose turn it is; None if none is."""
        while self._later and self._later[0][0] <= now:
            when, key = heapq.heappop(self._later)
            if self._due.get(key) == when:
                self._ready.setdefault(key[0], OrderedDict())[key] = None
        while self._ready:
            namespace, keys = self._ready.popitem(last=False)
            key, _ = keys.popitem(last=False)
            if keys:
                self._ready[namespace] = keys
            if self._due.get(key, float("inf")) <= now:
                del self._due[key]
                return key
        return None

    def next(self, now: float) -> float | None:
        """Seconds until a key is due; None if there is none."""
        if self._ready:
            return 0.0
        return max(0.0, self._later[0][0] - now) if self._later else None

    def entries(self) -> int:
        """How many times it keeps, with those that count no more."""
        return len(self._later)

    def __len__(self) -> int:
        return len(self._due)
