"""Which tags are failing now, told apart by whether mirrorstream can do anything about them.

Counted when a stream is looked at, so that a scrape walks through no tags: a cluster may have 50,000.
"""

import threading
from collections import Counter
from collections.abc import Iterable
from enum import StrEnum

from mirrorstream.imagestreams import ImageStream, failing_tags

from mirrorstream_controller.memory import OBSERVED, StreamMemory
from mirrorstream_controller.plan import Action, TagPlan

Key = tuple[str, str]


class State(StrEnum):
    """Why a tag still fails; the values label a metric, and alerts name them."""

    COVERED = "covered"
    """A mirror rule covers it, and no mirror has served it yet; it is imported as soon as one does, unless this is an observer."""
    HELD = "held"
    """A mirror has another image than the source had, and the source has not failed for long enough."""
    REFUSED = "refused"
    """A mirror rule covers it, but what the source or the platform said must not be walked around."""
    UNCOVERED = "uncovered"
    """No mirror rule covers it."""
    OPTED_OUT = "opted-out"
    """Its stream has the annotation that keeps mirrorstream away."""
    EXCLUDED = "excluded"
    """The configuration leaves its namespace out."""
    OBSERVED = "observed"
    """A mirror serves it, and it would be imported, were this not `mode: observe`."""


class FailingTags:
    """Counts failing tags by state, and knows since when the longest-failing covered one fails; safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._streams: dict[Key, tuple[Counter[State], float | None]] = {}
        self._counts: Counter[State] = Counter()

    def put(self, key: Key, states: Iterable[State], oldest: float | None = None) -> None:
        """Say what fails in a stream now: the state of each failing tag, and since when the oldest covered one fails."""
        found = Counter(states)
        with self._lock:
            self._counts.subtract(self._streams.pop(key, (Counter(), None))[0])
            if found:
                self._streams[key] = (found, oldest)
                self._counts.update(found)

    def counts(self) -> dict[State, int]:
        """How many tags fail, for every state."""
        with self._lock:
            return {state: self._counts[state] for state in State}

    def oldest(self) -> float | None:
        """Since when that covered tag fails that has failed longest, in seconds since the epoch; None if none fails."""
        with self._lock:
            return min((since for _, since in self._streams.values() if since is not None), default=None)

    def look(
        self, key: Key, stream: ImageStream, plans: Iterable[TagPlan], memory: StreamMemory, *, observing: bool, now: float
    ) -> None:
        """Count a stream by the plans for it. An observer heals nothing: that a tag fails for long is no news there."""
        if stream.opted_out:
            self.put(key, [State.OPTED_OUT for _ in failing_tags(stream)])
            return
        states: list[State] = []
        oldest: float | None = None
        for plan in plans:
            state = state_of(plan, held_until=memory.held_until.get(plan.tag), now=now)
            if state is not None:
                states.append(state)
            if not observing and state is State.COVERED and (since := memory.failed_since(plan)) is not None:
                oldest = since if oldest is None else min(oldest, since)
        self.put(key, states, oldest)


def state_of(plan: TagPlan, *, held_until: float | None, now: float) -> State | None:
    """The state of the tag that `plan` is about; None if it does not fail."""
    if plan.failure is None:
        return None
    if plan.action is Action.REFUSE:
        return State.REFUSED
    if plan.action is not Action.IMPORT:
        return State.UNCOVERED
    if held_until == OBSERVED:
        return State.OBSERVED
    return State.HELD if held_until is not None and now < held_until else State.COVERED
