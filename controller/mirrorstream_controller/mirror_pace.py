"""How fast each mirror host answered last, and so how many tags may go together in one request to the platform.

The platform imports the images of a request one after another, and answers when all are there. Three cost no wait of its own. So
tags go together only as long as all of them are expected within a second.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")
MOST_TOGETHER = 3
"""The platform imports so many images of one request at once, and then two a second."""
TOGETHER_SECONDS = 1.0
"""A request for several tags has its answer within this time, or each tag goes alone."""
REMEMBERED = 1000
"""How many hosts, and how many slow references, are remembered."""


class MirrorPace:
    """What is known of mirrors' answers; safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds: OrderedDict[str, float] = OrderedDict()
        """By host: how long its last answer took for each image."""
        self._slow: OrderedDict[str, None] = OrderedDict()

    def most_together(self, host: str) -> int:
        """How many tags may go together at `host`: one while it is not known how fast it answers."""
        with self._lock:
            seconds = self._seconds.get(host, TOGETHER_SECONDS)
        return max(1, min(MOST_TOGETHER, int(TOGETHER_SECONDS / seconds) if seconds > 0 else MOST_TOGETHER))

    def is_slow(self, reference: str) -> bool:
        """Whether `reference` took longer than a second when it was last asked for alone."""
        with self._lock:
            return reference in self._slow

    def answered(self, host: str, references: Iterable[str], seconds: float) -> None:
        """`host` answered, with images or failures, for all `references` after `seconds`."""
        references = tuple(references)
        with self._lock:
            if seconds > TOGETHER_SECONDS and len(references) == 1:
                known = references[0] in self._slow
                _remember(self._slow, references[0], None)
                if known:
                    # Of the host's other images it tells nothing new.
                    return
            elif seconds <= TOGETHER_SECONDS:
                for reference in references:
                    self._slow.pop(reference, None)
            _remember(self._seconds, host, seconds / len(references))

    def lost(self, host: str) -> None:
        """A request for several tags brought no answer: how fast `host` is has to be seen again."""
        with self._lock:
            self._seconds.pop(host, None)


def _remember(known: OrderedDict[str, T], name: str, value: T) -> None:
    known[name] = value
    known.move_to_end(name)
    if len(known) > REMEMBERED:
        known.popitem(last=False)
