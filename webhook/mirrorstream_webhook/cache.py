"""What a review answered, kept for a moment: a rollout creates the same pod many times, and only their names differ."""

import base64
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import msgspec

from mirrorstream_webhook.patch import Result, Rewriting

KEPT_SECONDS = 1.0
"""Short beside what a change of a right to pull takes to be noticed; streams, rules and settings count at once."""
KEPT = 1_000
LARGEST = 32 * 1024
"""Bytes of a review whose outcome is kept: whoever makes many large pods must not fill the memory with them."""
_encode = msgspec.json.Encoder().encode
_PASSING = {Result.ACCESS_UNKNOWN, Result.NOT_SYNCED}


@dataclass(frozen=True, slots=True)
class Outcome:
    """An answer in the form in which it is sent.

    `patch` is base64 and empty if there is none, `audit` the audit annotation, `results` how often each result is in it.
    """

    patch: str
    audit: str
    results: tuple[tuple[Result, int], ...]
    keep: bool


def outcome_of(rewriting: Rewriting, namespace: str = "") -> Outcome:
    """Put what was decided about a pod of `namespace` into the form of an answer."""
    counted = Counter(image.decision.result for image in rewriting.images)
    return Outcome(
        base64.b64encode(_encode(rewriting.patch)).decode() if rewriting.patch else "",
        _encode([image.document(namespace) for image in rewriting.images]).decode() if rewriting.images else "",
        tuple(counted.items()),
        # What is unknown now may be known in a moment.
        keep=_PASSING.isdisjoint(counted),
    )


class Outcomes:
    """Outcomes by what they depend on."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: dict[Hashable, tuple[Hashable, float, Outcome]] = {}
        """In the order in which they end."""
        self._lock = threading.Lock()

    def get(self, key: Hashable, version: Hashable) -> Outcome | None:
        """What was kept under `key`, if it is young enough and of the same version."""
        found = self._kept.get(key)
        if found is None or found[0] != version or self._clock() > found[1]:
            return None
        return found[2]

    def put(self, key: Hashable, version: Hashable, outcome: Outcome) -> None:
        """Keep an outcome; `version` is the one that was read before it was decided."""
        if not outcome.keep:
            return
        now, kept = self._clock(), self._kept
        with self._lock:
            if len(kept) >= KEPT:
                kept.clear()
            kept.pop(key, None)
            kept[key] = (version, now + KEPT_SECONDS, outcome)
            # What counts no more need not stay until there are many of them.
            while kept[oldest := next(iter(kept))][1] < now:
                del kept[oldest]
