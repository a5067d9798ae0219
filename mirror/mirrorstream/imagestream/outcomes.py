"""What was tried for each tag, and what came of it, as the controller's Events say it to programs.

The annotation `mirrorstream.github.io/outcome` of an Event is a JSON list, one object per tag, so that programs do not parse
its sentence. Owners of a namespace may write any Event there: what is read here is sanitized, and no write depends on it.
"""

from collections.abc import Collection, Iterable, Iterator
from enum import StrEnum
from typing import Any

import msgspec

from mirrorstream.imagestream.failures import FailureClass
from mirrorstream.text.sanitize import one_line, shortened

OUTCOME_ANNOTATION = "mirrorstream.github.io/outcome"
IMPORTED, FAILED, REFUSED, HELD = "ImportedFromMirror", "MirrorImportFailed", "MirrorImportRefused", "MirrorImportHeld"
"""Event reasons; users' alerts may match them, so they never change."""
REASONS = frozenset({IMPORTED, FAILED, REFUSED, HELD})
CANDIDATES, REFERENCE_LENGTH, MESSAGE_LENGTH, RETRY_TOKEN_LENGTH = 16, 512, 300, 64
"""What an annotation says of one tag at most; beyond it, candidates are left out and texts cut."""
ANNOTATION_LENGTH = 65536
"""A longer annotation is none of ours, and is not read. What does not fit is another Event's."""


class AttemptResult(StrEnum):
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


RESULTS = frozenset(str(result) for result in AttemptResult)


class CandidateAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """What one candidate answered; an empty `failure` means that it served the image."""

    reference: str
    mirror_set: str = ""
    failure: str = ""
    message: str = ""

    def document(self) -> dict[str, Any]:
        """The JSON form."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found


def absent_everywhere(answers: Collection[CandidateAnswer]) -> bool:
    """Whether candidates were asked, and each answered that it does not have the image."""
    return bool(answers) and all(answer.failure == FailureClass.NOT_FOUND for answer in answers)


class Attempt(msgspec.Struct, frozen=True, rename="camel"):
    """One outcome. `tag` is empty for a whole repository; `failure` is the class of the source's own failure.

    `retry_token`: the stream's retry annotation when the attempt was planned, as `as_retry_token` writes it.
    """

    tag: str
    result: str
    source: str = ""
    failure: str = ""
    message: str = ""
    candidates: tuple[CandidateAnswer, ...] = ()
    retry_token: str | msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name="asked")

    @property
    def through(self) -> str:
        """The candidate that served the image; empty if none did."""
        served = [answer.reference for answer in self.candidates if not answer.failure]
        return served[0] if self.result == AttemptResult.IMPORTED and served else ""


class ReportedAttempt(msgspec.Struct, frozen=True, rename="camel"):
    """An attempt, and the Event that told of it; `at` is RFC 3339 text, `count` how often it was the same."""

    attempt: Attempt
    at: str
    count: int
    event: str


def encode_attempts(attempts: Iterable[Attempt]) -> Iterator[tuple[str, int]]:
    """The annotations that tell of `attempts`, as few as can be read, each with how many of them it tells of."""
    encoded: list[bytes] = []
    for attempt in map(_encode, attempts):
        if encoded and sum(map(len, encoded)) + len(encoded) + len(attempt) + 2 > ANNOTATION_LENGTH:
            yield _as_list(encoded), len(encoded)
            encoded = []
        encoded.append(attempt)
    if encoded:
        yield _as_list(encoded), len(encoded)


def _as_list(encoded: list[bytes]) -> str:
    return f"[{b','.join(encoded).decode()}]"


def _encode(attempt: Attempt) -> bytes:
    """An attempt's JSON, of bounded size."""
    answers = tuple(
        CandidateAnswer(
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
        retry_token=_retry_token(attempt.retry_token),
    )
    return msgspec.json.encode(bounded)


_DECODER = msgspec.json.Decoder(list[Attempt] | Attempt)


def read_attempts(text: str) -> tuple[Attempt, ...]:
    """The attempts that an annotation tells of; of earlier versions it is the object of one.

    Empty if the text is no such annotation. Never raises, and what it returns is harmless to show.
    """
    if not text or len(text) > ANNOTATION_LENGTH:
        return ()
    try:
        found = _DECODER.decode(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return ()
    return tuple(_shown(attempt) for attempt in (found if isinstance(found, list) else [found]) if attempt.result in RESULTS)


def _shown(found: Attempt) -> Attempt:
    return Attempt(
        one_line(found.tag),
        found.result,
        _text(found.source, REFERENCE_LENGTH),
        _text(found.failure, 40),
        _text(found.message, MESSAGE_LENGTH),
        tuple(_harmless(answer) for answer in found.candidates[:CANDIDATES]),
        _retry_token(found.retry_token),
    )


def as_retry_token(annotation: str) -> str:
    """A stream's retry annotation as attempts name it."""
    return _text(annotation, RETRY_TOKEN_LENGTH)


def _retry_token(found: str | msgspec.UnsetType) -> str | msgspec.UnsetType:
    return found if found is msgspec.UNSET else as_retry_token(found)


def _harmless(answer: CandidateAnswer) -> CandidateAnswer:
    return CandidateAnswer(
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


StreamKey = tuple[str, str]
"""A stream's namespace and name."""


class AttemptHistory:
    """What Events say of many streams' tags: the latest attempt of each, and the sentences of Events without an annotation."""

    def __init__(self, events: Iterable[StreamEvent] = ()) -> None:
        self._tried: dict[tuple[StreamKey, str, str], tuple[tuple[str, int], ReportedAttempt]] = {}
        self._sentences: dict[tuple[StreamKey, str], list[tuple[str, str]]] = {}
        for event in events:
            self._add(event)

    def _add(self, event: StreamEvent) -> None:
        involved = event.involved_object
        if involved.kind != "ImageStream" or event.reason not in REASONS:
            return
        key = (involved.namespace, involved.name)
        attempts = read_attempts(event.metadata.annotations.outcome if event.metadata.annotations else "")
        if not attempts:
            self._sentences.setdefault((key, involved.uid), []).append((event.at, f"{event.reason}: {one_line(event.message)}"))
        # Times are whole seconds; of two in the same one, the version tells which was written last.
        version = event.metadata.resource_version
        order = (event.at, int(version) if version.isascii() and version.isdigit() and len(version) < 40 else 0)
        for attempt in attempts:
            known = self._tried.get((key, involved.uid, attempt.tag))
            if known is None or order >= known[0]:
                tried = ReportedAttempt(attempt, event.at, event.count or 1, one_line(event.metadata.name))
                self._tried[key, involved.uid, attempt.tag] = (order, tried)

    def latest(self, key: StreamKey, uid: str, tag: str, source: str) -> ReportedAttempt | None:
        """The latest attempt for a tag of a stream with this `uid`, if it was about the tag's present `source`."""
        found = self._tried.get((key, uid, tag)) or self._tried.get((key, "", tag))
        return found[1] if found is not None and found[1].attempt.source in ("", source) else None

    def sentences(self, key: StreamKey, uid: str) -> list[str]:
        """What Events of versions without the annotation say of a stream, oldest first, as `time reason: message`."""
        found = [*self._sentences.get((key, uid), ()), *(self._sentences.get((key, ""), ()) if uid else ())]
        return [f"{at} {text}".strip() for at, text in sorted(found)]


decode_event = msgspec.json.Decoder(StreamEvent).decode
"""An Event from its JSON. Raises msgspec.ValidationError."""


def attempt_document(tried: ReportedAttempt) -> dict[str, Any]:
    """The JSON form of an attempt."""
    document: dict[str, Any] = msgspec.to_builtins(tried.attempt)
    del document["tag"]
    document.pop("asked", None)
    return {**document, "candidates": list(document["candidates"]), "at": tried.at, "count": tried.count}
