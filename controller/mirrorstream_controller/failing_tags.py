"""Which tags are failing now, told apart by whether mirrorstream can do anything about them.

Counted when a stream is looked at, so that a scrape walks through no tags: a cluster may have 50,000.
"""

import threading
from collections import Counter
from collections.abc import Iterable
from enum import StrEnum

from mirrorstream.imagestream.model import ImageStream, failing_tags
from mirrorstream.kube.objects import Key

from mirrorstream_controller.plan import Action, TagPlan
from mirrorstream_controller.stream_state import OBSERVED, StreamState


class FailingState(StrEnum):
    """Why a tag still fails, in the words of `mirrorstream status`; the values label a metric, and alerts name them."""

    FAILING = "failing"
    """A mirror rule covers it, and no mirror has served it yet; it is imported as soon as one does, unless this is an observer."""
    HELD = "held"
    """A mirror has another image than the source had, and the source has not failed for long enough."""
    REFUSED = "refused"
    """A mirror rule covers it, but what the source or the platform said must not be walked around."""
    UNMIRRORED = "unmirrored"
    """No mirror rule covers it."""
    OPTED_OUT = "opted-out"
    """The stream's annotation, or `controller.namespaces`, keeps mirrorstream away. Whether a rule covers it is not checked."""
    OBSERVED = "observed"
    """A mirror serves it, and it would be imported, were this not `mode: observe`."""


class FailingTags:
    """Counts failing tags by state, and knows the oldest failure in the state FAILING; safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._streams: dict[Key, tuple[Counter[FailingState], float | None]] = {}
        self._counts: Counter[FailingState] = Counter()

    def put(self, key: Key, states: Iterable[FailingState], oldest: float | None = None) -> None:
        """Say what fails in a stream now: the state of each failing tag, and since when the oldest in the state FAILING fails."""
        found = Counter(states)
        with self._lock:
            self._counts.subtract(self._streams.pop(key, (Counter(), None))[0])
            if found:
                self._streams[key] = (found, oldest)
                self._counts.update(found)

    def __contains__(self, key: Key) -> bool:
        """Whether a stream is counted."""
        with self._lock:
            return key in self._streams

    def counts(self) -> dict[FailingState, int]:
        """How many tags fail, for every state."""
        with self._lock:
            return {state: self._counts[state] for state in FailingState}

    def oldest(self) -> float | None:
        """Since when the oldest tag in the state FAILING fails, in seconds since the epoch; None if none fails."""
        with self._lock:
            return min((since for _, since in self._streams.values() if since is not None), default=None)

    def observe(
        self, key: Key, stream: ImageStream, plans: Iterable[TagPlan], known: StreamState, *, observing: bool, now: float
    ) -> None:
        """Count a stream by the plans for it. An observer heals nothing: that a tag fails for long is no news there."""
        if stream.opted_out:
            self.put(key, [FailingState.OPTED_OUT for _ in failing_tags(stream)])
            return
        states: list[FailingState] = []
        oldest: float | None = None
        for plan in plans:
            state = state_of(plan, held_until=known.held_until(plan.tag), now=now)
            if state is not None:
                states.append(state)
            if not observing and state is FailingState.FAILING and (since := known.failed_since(plan)) is not None:
                oldest = since if oldest is None else min(oldest, since)
        self.put(key, states, oldest)


def state_of(plan: TagPlan, *, held_until: float | None, now: float) -> FailingState | None:
    """The state of the tag that `plan` is about; None if it does not fail."""
    if plan.failure is None:
        return None
    if plan.action is Action.REFUSE:
        return FailingState.REFUSED
    if plan.action is Action.NOTHING:
        return FailingState.UNMIRRORED
    if held_until == OBSERVED:
        return FailingState.OBSERVED
    return FailingState.HELD if held_until is not None and now < held_until else FailingState.FAILING
