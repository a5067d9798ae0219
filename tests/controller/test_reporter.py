"""What is told of each outcome, to people and to programs alike."""

from typing import Any

import pytest
from mirrorstream.imagestream.failures import Failure, FailureClass
from mirrorstream.imagestream.outcomes import OUTCOME_ANNOTATION, Attempt, read_attempts
from mirrorstream.kube.client import ApiError
from mirrorstream.rules.candidates import Candidate
from mirrorstream_controller.metrics import ControllerMetrics
from mirrorstream_controller.plan import Action, TagPlan
from mirrorstream_controller.reporter import Reporter
from mirrorstream_controller.results import FailedImport, HeldImport, TagResult, UnmadeImport
from mirrorstream_controller.stream_events import StreamEvents

KEY = ("ns", "app")
PLAN = TagPlan("v1", Action.IMPORT, "because", "src.io/a:v1", failure=Failure(FailureClass.TLS, "x509"))
TRIED = (
    (Candidate("m.io/a:v1", False, "ImageDigestMirrorSet/m"), Failure(FailureClass.NOT_FOUND, "not found")),
    (Candidate("n.io/a:v1", False, "ImageDigestMirrorSet/n"), Failure(FailureClass.TIMEOUT, "timeout")),
)
RESULT = TagResult(PLAN, "v1", "sha256:a", "src.io/a@sha256:a", "m.io/a:v1", "ImageDigestMirrorSet/m")
HELD = HeldImport(PLAN, "sha256:b", TRIED[1][0], 1_800_000_000.2, TRIED[:1])


class Events:
    """Takes Events as the recorder does."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, Attempt]] = []

    def event(self, involved: Any, event_type: str, reason: str, message: str, annotations: Any = ()) -> None:
        """Take one that tells of one tag."""
        (attempt,) = read_attempts(dict(annotations)[OUTCOME_ANNOTATION])
        assert (attempt.source, attempt.failure) == ("src.io/a:v1", "tls")
        self.seen.append((reason, message, attempt))


def reported(tell: Any, *, active: bool = True) -> list[tuple[str, str, Attempt]]:
    """The Events about what `tell` reports."""
    recorder = Events()
    events = StreamEvents(recorder)  # type: ignore[arg-type]
    tell(Reporter(events, ControllerMetrics(), lambda: active))
    events.tell_all()
    assert len(events) == 0
    return recorder.seen


@pytest.mark.parametrize(
    ("tell", "reason", "says", "result", "message", "answers"),
    [
        (
            lambda r: r.imported(KEY, "u", RESULT, ("first", "second")),
            "ImportedFromMirror",
            "since the source failed: tls; first; second",
            "imported",
            "",
            [("m.io/a:v1", "")],
        ),
        (lambda r: r.imported(KEY, "u", RESULT), "ImportedFromMirror", "through m.io/a:v1", "imported", "", [("m.io/a:v1", "")]),
        (
            lambda r: r.report(KEY, "u", FailedImport(PLAN, TRIED)),
            "MirrorImportFailed",
            "is in no mirror: m.io/a:v1: not-found: not found; n.io/a:v1: timeout",
            "failed",
            "",
            [("m.io/a:v1", "not-found"), ("n.io/a:v1", "timeout")],
        ),
        (lambda r: r.refused(KEY, "u", PLAN), "MirrorImportRefused", "not imported through a mirror", "refused", "because", []),
        (
            lambda r: r.report(KEY, "u", UnmadeImport(PLAN, refusal="no")),
            "MirrorImportFailed",
            "the API server refused the import: no",
            "error",
            "the API server refused the import: no",
            [],
        ),
        (
            lambda r: r.not_recorded(KEY, "u", RESULT, ApiError(403, "Forbidden", "quota")),
            "MirrorImportRefused",
            "tag v1: the API server refused to record the import: quota",
            "not-recorded",
            "the API server refused to record the import: quota",
            [("m.io/a:v1", "")],
        ),
        (
            lambda r: r.report(KEY, "u", HELD),
            "MirrorImportHeld",
            "tag v1: n.io/a:v1 serves another image than the source did; from 2027-01-15T08:00:01Z on",
            "held",
            "serves another image than the source did; from 2027-01-15T08:00:01Z on, if the source still fails, the tag gets it: "
            "sha256:b",
            [("m.io/a:v1", "not-found"), ("n.io/a:v1", "")],
        ),
    ],
    ids=["imported-with-warnings", "imported", "failed", "refused", "not-made", "not-recorded", "held"],
)
def test_an_outcome(tell: Any, reason: str, says: str, result: str, message: str, answers: list[tuple[str, str]]) -> None:
    """The sentence and the annotation say the same."""
    ((seen, text, attempt),) = reported(tell)
    assert seen == reason
    assert says in text
    assert (attempt.tag, attempt.result, attempt.message) == ("v1", result, message)
    assert [(answer.reference, answer.failure) for answer in attempt.candidates] == answers


@pytest.mark.parametrize(
    "tell", [lambda r: r.report(KEY, "u", FailedImport(PLAN, TRIED)), lambda r: r.report(KEY, "u", HELD)], ids=["failed", "held"]
)
def test_an_observer_writes_no_event(tell: Any) -> None:
    """It writes nothing at all."""
    assert not reported(tell, active=False)
