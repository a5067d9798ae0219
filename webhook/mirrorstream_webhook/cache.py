"""What a review answered, kept for a moment: a rollout creates the same pod many times, and only their names differ."""

import binascii
import threading
import time
from collections.abc import Callable, Hashable

import msgspec

from mirrorstream_webhook.patch import Result, Rewriting

ENTRY_SECONDS = 1.0
"""Short beside what a change of a right to pull takes to be noticed; streams, rules and settings count at once."""
MAX_ENTRIES = 1_000
MAX_REVIEW_BYTES = 32 * 1024
"""Bytes of a review whose outcome is kept: many large pods must not fill the memory."""
_encode = msgspec.json.Encoder().encode
_PASSING = frozenset({Result.ACCESS_UNKNOWN, Result.NOT_SYNCED, Result.ERROR})


class ReviewOutcome(msgspec.Struct, frozen=True, gc=False):
    """An answer in the form in which it is sent.

    `patch` is base64 and empty if there is none, `audit` the audit annotation, `results` has one for each image in it.
    """

    patch: str
    audit: str
    results: tuple[Result, ...]
    keep: bool

    @property
    def name(self) -> str:
        """How the review is counted."""
        if Result.ERROR in self.results:
            return "failed"
        return "patched" if self.patch else "unchanged"


def review_outcome(rewriting: Rewriting, namespace: str = "") -> ReviewOutcome:
    """Put what was decided about a pod of `namespace` into the form of an answer."""
    results = tuple([image.decision.result for image in rewriting.images])
    return ReviewOutcome(
        binascii.b2a_base64(_encode(rewriting.patch), newline=False).decode() if rewriting.patch else "",
        _encode([image.document(namespace) for image in rewriting.images]).decode() if rewriting.images else "",
        results,
        # What is unknown now may be known in a moment.
        keep=_PASSING.isdisjoint(results),
    )


class ReviewCache:
    """Outcomes by what they depend on."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: dict[Hashable, tuple[Hashable, float, ReviewOutcome]] = {}
        """In the order in which they end."""
        self._lock = threading.Lock()

    def get(self, key: Hashable, version: Hashable) -> ReviewOutcome | None:
        """What was kept under `key`, if it is young enough and of the same version."""
        found = self._kept.get(key)
        if found is None or found[0] != version or self._clock() > found[1]:
            return None
        return found[2]

    def put(self, key: Hashable, version: Hashable, outcome: ReviewOutcome) -> None:
        """Keep an outcome; `version` is the one that was read before it was decided."""
        if not outcome.keep:
            return
        now, kept = self._clock(), self._kept
        with self._lock:
            if len(kept) >= MAX_ENTRIES:
                kept.clear()
            kept.pop(key, None)
            kept[key] = (version, now + ENTRY_SECONDS, outcome)
            # What counts no more need not stay until there are many of them.
            while kept[oldest := next(iter(kept))][1] < now:
                del kept[oldest]
