"""What was tried for a tag, and what came of it, as the controller's Events say it to programs.

The annotation `mirrorstream.github.io/outcome` of an Event is a JSON object, so that nobody has to parse its sentence. Whoever owns
a namespace may write Events of any content there: what is read here is fit to be shown, and no harm can be decided by it.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

import msgspec

from mirrorstream.safetext import one_line, shortened

OUTCOME_ANNOTATION = "mirrorstream.github.io/outcome"
IMPORTED, FAILED, REFUSED, HELD = "ImportedFromMirror", "MirrorImportFailed", "MirrorImportRefused", "MirrorImportHeld"
"""Event reasons; users' alerts may match them, so they never change."""
REASONS = frozenset({IMPORTED, FAILED, REFUSED, HELD})
CANDIDATES, REFERENCE_LENGTH, MESSAGE_LENGTH, ASKED_LENGTH = 16, 512, 300, 64
"""What an annotation holds at most; beyond it, candidates are left out and texts cut."""
ANNOTATION_LENGTH = 65536
"""A longer annotation is none of ours, and is not read."""


class Result(StrEnum):
    """What came of an attempt."""

    IMPORTED = "imported"
    FAILED = "failed"
    """No candidate served it."""
    REFUSED = "refused"
    """It must not be imported through a mirror."""
    HELD = "held"
    """A candidate served another image than the source had, which is kept until the source has failed for long enough."""
    NOT_RECORDED = "not-recorded"
    """A candidate served it, and the API server refused the write: a quota, say."""
    ERROR = "error"
    """The API server did not let mirrorstream try."""


RESULTS = frozenset(str(result) for result in Result)


class Answer(msgspec.Struct, frozen=True, rename="camel"):
    """What one candidate answered; an empty `failure` means that it served the image."""

    reference: str
    mirror_set: str = ""
    failure: str = ""
    message: str = ""


class Attempt(msgspec.Struct, frozen=True, rename="camel"):
    """One outcome. `tag` is empty for a whole repository; `failure` is the class of the source's own failure.

    `asked`: the stream's retry annotation when the attempt was planned, as `asked_as` writes it.
    """

    tag: str
    result: str
    source: str = ""
    failure: str = ""
    message: str = ""
    candidates: tuple[Answer, ...] = ()
    asked: str | msgspec.UnsetType = msgspec.UNSET

    @property
    def through(self) -> str:
        """The candidate that served the image; empty if none did."""
        served = [answer.reference for answer in self.candidates if not answer.failure]
        return served[0] if self.result == Result.IMPORTED and served else ""


class Tried(msgspec.Struct, frozen=True, rename="camel"):
    """An attempt, and the Event that told of it; `at` is RFC 3339 text, `count` how often it was the same."""

    attempt: Attempt
    at: str
    count: int
    event: str


def encode_attempt(attempt: Attempt) -> str:
    """The annotation's text, of bounded size."""
    answers = tuple(
        Answer(
            shortened(answer.reference, REFERENCE_LENGTH),
            shortened(answer.mirror_set, REFERENCE_LENGTH),
            answer.failure,
            shortened(answer.message, MESSAGE_LENGTH),
        )
        for answer in attempt.candidates[:CANDIDATES]
    )
    bounded = msgspec.structs.replace(
        attempt,
        source=shortened(attempt.source, REFERENCE_LENGTH),
        message=shortened(attempt.message, MESSAGE_LENGTH),
        candidates=answers,
        asked=_asked(attempt.asked),
    )
    return msgspec.json.encode(bounded).decode()


_DECODER = msgspec.json.Decoder(Attempt)


def read_attempt(text: str) -> Attempt | None:
    """The attempt that an annotation tells of; None if it is not one. Never raises, and what it returns is harmless to show."""
    if not text or len(text) > ANNOTATION_LENGTH:
        return None
    try:
        found = _DECODER.decode(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return None
    if found.result not in RESULTS:
        return None
    return Attempt(
        one_line(found.tag),
        found.result,
        _text(found.source, REFERENCE_LENGTH),
        _text(found.failure, 40),
        _text(found.message, MESSAGE_LENGTH),
        tuple(_harmless(answer) for answer in found.candidates[:CANDIDATES]),
        _asked(found.asked),
    )


def asked_as(annotation: str) -> str:
    """A stream's retry annotation as attempts name it."""
    return _text(annotation, ASKED_LENGTH)


def _asked(found: str | msgspec.UnsetType) -> str | msgspec.UnsetType:
    return found if found is msgspec.UNSET else asked_as(found)


def _harmless(answer: Answer) -> Answer:
    return Answer(
        _text(answer.reference, REFERENCE_LENGTH),
        _text(answer.mirror_set, REFERENCE_LENGTH),
        _text(answer.failure, 40),
        _text(answer.message, MESSAGE_LENGTH),
    )


def _text(text: str, limit: int) -> str:
    return shortened(one_line(text), limit)


# Events, as an API server lists them.


class _EventAnnotations(msgspec.Struct, rename={"outcome": OUTCOME_ANNOTATION}):
    outcome: str = ""


class _EventMeta(msgspec.Struct, rename="camel"):
    name: str = ""
    resource_version: str = ""
    annotations: _EventAnnotations | None = None


class _Involved(msgspec.Struct):
    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""


class StreamEvent(msgspec.Struct, rename="camel"):
    """The few fields of an Event that count here."""

    metadata: _EventMeta = msgspec.field(default_factory=_EventMeta)
    involved_object: _Involved = msgspec.field(default_factory=_Involved)
    reason: str = ""
    message: str = ""
    last_timestamp: str | None = None
    event_time: str | None = None
    count: int | None = None

    @property
    def at(self) -> str:
        """When it happened last, as the API server wrote it."""
        return one_line(self.last_timestamp or self.event_time or "")


Key = tuple[str, str]
"""A stream's namespace and name."""


class Journal:
    """What Events say of many streams' tags: the latest attempt of each, and the sentences of Events without an annotation."""

    def __init__(self, events: Iterable[StreamEvent] = ()) -> None:
        self._tried: dict[tuple[Key, str, str], tuple[tuple[str, int], Tried]] = {}
        self._sentences: dict[tuple[Key, str], list[tuple[str, str]]] = {}
        for event in events:
            self._add(event)

    def _add(self, event: StreamEvent) -> None:
        involved = event.involved_object
        if involved.kind != "ImageStream" or event.reason not in REASONS:
            return
        key = (involved.namespace, involved.name)
        attempt = read_attempt(event.metadata.annotations.outcome if event.metadata.annotations else "")
        if attempt is None:
            self._sentences.setdefault((key, involved.uid), []).append((event.at, f"{event.reason}: {one_line(event.message)}"))
            return
        tried = Tried(attempt, event.at, event.count or 1, one_line(event.metadata.name))
        # Times are whole seconds; of two in the same one, the version tells which was written last.
        version = event.metadata.resource_version
        order = (event.at, int(version) if version.isascii() and version.isdigit() and len(version) < 40 else 0)
        known = self._tried.get((key, involved.uid, attempt.tag))
        if known is None or order >= known[0]:
            self._tried[key, involved.uid, attempt.tag] = (order, tried)

    def of(self, key: Key, uid: str, tag: str, source: str) -> Tried | None:
        """The latest attempt for a tag of a stream with this `uid`, if it was about the tag's present `source`."""
        found = self._tried.get((key, uid, tag)) or self._tried.get((key, "", tag))
        return found[1] if found is not None and found[1].attempt.source in ("", source) else None

    def sentences(self, key: Key, uid: str) -> list[str]:
        """What Events of versions without the annotation say of a stream, oldest first, as `time reason: message`."""
        found = [*self._sentences.get((key, uid), ()), *(self._sentences.get((key, ""), ()) if uid else ())]
        return [f"{at} {text}".strip() for at, text in sorted(found)]


decode_event = msgspec.json.Decoder(StreamEvent).decode
"""An Event from its JSON. Raises msgspec.ValidationError."""


def tried_document(tried: Tried) -> dict[str, Any]:
    """The JSON form of an attempt."""
    document: dict[str, Any] = msgspec.to_builtins(tried.attempt)
    del document["tag"]
    document.pop("asked", None)
    return {**document, "candidates": list(document["candidates"]), "at": tried.at, "count": tried.count}
