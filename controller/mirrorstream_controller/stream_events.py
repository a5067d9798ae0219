"""Events on streams: what came of a stream's tags goes into one Event for each reason, not into one for each tag.

A stream of the samples has up to 22 tags, which all fail, and are healed, together. Outcomes wait here until the stream's pass is
over, which the reconciler knows.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from mirrorstream.imagestream.model import WHOLE_REPOSITORY
from mirrorstream.imagestream.outcomes import OUTCOME_ANNOTATION, Attempt, encode_attempts
from mirrorstream.kube.events import MESSAGE_LIMIT, EventRecorder, Involved
from mirrorstream.kube.objects import Key
from mirrorstream.text.sanitize import shortened

LONGEST_WAIT_SECONDS = 15.0
"""Outcomes wait no longer for those of other tags: a mirror may take a minute for each."""
NAMES_LENGTH = MESSAGE_LIMIT // 2
"""How much of a message the names of the tags may take where it cannot hold everything."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one tag: `attempt` for programs, the rest for people."""

    event_type: str
    reason: str
    text: str
    """The sentence about this tag alone, without its name."""
    attempt: Attempt
    shared: str = ""
    """The same where it is told of several tags; empty if it is `text`."""


@dataclass(slots=True)
class _Waiting:
    uid: str
    since: float
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    """The last outcome of each tag."""


class StreamEvents:
    """The outcomes of each stream that no Event tells of yet; safe to use from many threads."""

    def __init__(self, events: EventRecorder, clock: Callable[[], float] = time.monotonic) -> None:
        self._events, self._clock = events, clock
        self._lock = threading.Lock()
        self._streams: dict[Key, _Waiting] = {}

    def __len__(self) -> int:
        """How many streams have such outcomes."""
        return len(self._streams)

    def add(self, key: Key, uid: str, outcome: Outcome) -> None:
        """Have an outcome told when the stream's pass is over."""
        with self._lock:
            waiting = self._streams.get(key)
            if waiting is None or waiting.uid != uid:
                waiting = self._streams[key] = _Waiting(uid, self._clock())
            waiting.outcomes[outcome.attempt.tag] = outcome

    def wait(self, key: Key) -> float | None:
        """For how many seconds a stream's outcomes may still wait; None if there are none."""
        with self._lock:
            waiting = self._streams.get(key)
            return None if waiting is None else max(0.0, waiting.since + LONGEST_WAIT_SECONDS - self._clock())

    def tell(self, key: Key) -> None:
        """Write the Events of a stream."""
        with self._lock:
            waiting = self._streams.pop(key, None)
        if waiting is None:
            return
        involved = Involved("image.openshift.io/v1", "ImageStream", key[0], key[1], waiting.uid)
        for outcomes in _by_reason(waiting.outcomes.values()):
            rest = outcomes
            for annotation, count in encode_attempts(outcome.attempt for outcome in outcomes):
                told, rest = rest[:count], rest[count:]
                self._events.event(involved, told[0].event_type, told[0].reason, message(told), ((OUTCOME_ANNOTATION, annotation),))

    def tell_all(self) -> None:
        """Write the Events of all streams: the process ends."""
        for key in list(self._streams):
            self.tell(key)

    def forget(self, key: Key) -> None:
        """Tell nothing of a stream that is gone."""
        with self._lock:
            self._streams.pop(key, None)


def _by_reason(outcomes: Iterable[Outcome]) -> Iterator[list[Outcome]]:
    """In an order that is the same for the same outcomes: then the Event is the same, and only its count rises."""
    found: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in sorted(outcomes, key=lambda outcome: outcome.attempt.tag):
        found.setdefault((outcome.reason, outcome.event_type), []).append(outcome)
    yield from found.values()


def message(outcomes: list[Outcome]) -> str:
    """The sentence of an Event about all `outcomes`, which is never longer than an Event's may be.

    Tags of which the same is to be told are named together. All names come first where not everything fits.
    """
    if len(outcomes) == 1:
        return shortened(f"{_named([outcomes[0].attempt.tag])}: {outcomes[0].text}", MESSAGE_LIMIT)
    groups: dict[str, list[str]] = {}
    for outcome in outcomes:
        groups.setdefault(outcome.shared or outcome.text, []).append(outcome.attempt.tag)
    whole = "; ".join(f"{_named(tags)}: {text}" for text, tags in groups.items())
    if len(whole) <= MESSAGE_LIMIT:
        return whole
    names = shortened(_named([outcome.attempt.tag for outcome in outcomes]), NAMES_LENGTH)
    if len(groups) == 1:
        return shortened(f"{names}: {next(iter(groups))}", MESSAGE_LIMIT)
    return shortened(f"{len(outcomes)} {names}: {whole}", MESSAGE_LIMIT)


def _named(tags: list[str]) -> str:
    if tags == [WHOLE_REPOSITORY]:
        return "repository"
    return f"tag {tags[0]}" if len(tags) == 1 else f"tags {', '.join(tag or 'repository' for tag in tags)}"
