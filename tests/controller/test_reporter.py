"""What is told of each outcome, to people and to programs alike."""

from typing import Any

import pytest
from mirrorstream.attempts import OUTCOME_ANNOTATION, Attempt, read_attempt
from mirrorstream.candidates import Candidate
from mirrorstream.failures import Failure, FailureClass
from mirrorstream.kube.client import ApiError
from mirrorstream_controller.metrics import ControllerMetrics
from mirrorstream_controller.plan import Action, TagPlan
from mirrorstream_controller.recorder import Held, TagResult
from mirrorstream_controller.reports import Reports

KEY = ("ns", "app")
PLAN = TagPlan("v1", Action.IMPORT, "because", "src.io/a:v1", failure=Failure(FailureClass.TLS, "x509"))
TRIED = (
    (Candidate("m.io/a:v1", False, "ImageDigestMirrorSet/m"), Failure(FailureClass.NOT_FOUND, "not found")),
    (Candidate("n.io/a:v1", False, "ImageDigestMirrorSet/n"), Failure(FailureClass.TIMEOUT, "timeout")),
)
RESULT = TagResult(PLAN, "v1", "sha256:a", "src.io/a@sha256:a", "m.io/a:v1", "ImageDigestMirrorSet/m")
HELD = Held(PLAN, "sha256:b", TRIED[1][0], 1_800_000_000.2)


class Events:
    """Takes Events as the recorder does."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, Attempt]] = []

    def event(self, involved: Any, event_type: str, reason: str, message: str, annotations: Any = ()) -> None:
        """Take one."""
        attempt = read_attempt(dict(annotations)[OUTCOME_ANNOTATION])
        assert attempt
        assert (attempt.source, attempt.failure) == ("src.io/a:v1", "tls")
        self.seen.append((reason, message, attempt))


def reports(events: Events, *, active: bool = True) -> Reports:
    """Reports that write into `events`."""
    return Reports(events, ControllerMetrics(), lambda: active)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tell", "reason", "says", "result", "message", "answers"),
    [
        (lambda r: r.imported(KEY, "u", RESULT), "ImportedFromMirror", "through m.io/a:v1", "imported", "", [("m.io/a:v1", "")]),
        (
            lambda r: r.failed(KEY, "u", PLAN, TRIED),
            "MirrorImportFailed",
            "is in no mirror: m.io/a:v1: not-found: not found; n.io/a:v1: timeout",
            "failed",
            "",
            [("m.io/a:v1", "not-found"), ("n.io/a:v1", "timeout")],
        ),
        (lambda r: r.refused(KEY, "u", PLAN), "MirrorImportRefused", "not imported through a mirror", "refused", "because", []),
        (
            lambda r: r.not_made(KEY, "u", PLAN, ApiError(403, "Forbidden", "no")),
            "MirrorImportFailed",
            "the API server refused the import: no",
            "error",
            "the API server refused the import: no",
            [],
        ),
        (
            lambda r: r.not_recorded(KEY, "u", [RESULT], ApiError(403, "Forbidden", "quota")),
            "MirrorImportRefused",
            "tag v1: the API server refused to record the import: quota",
            "not-recorded",
            "the API server refused to record the import: quota",
            [("m.io/a:v1", "")],
        ),
        (
            lambda r: r.held(KEY, "u", HELD, TRIED[:1]),
            "MirrorImportHeld",
            "tag v1: n.io/a:v1 serves another image than the source did; from 2027-01-15T08:00:01Z on",
            "held",
            "serves another image than the source did; from 2027-01-15T08:00:01Z on, if the source still fails, the tag gets it: "
            "sha256:b",
            [("m.io/a:v1", "not-found"), ("n.io/a:v1", "")],
        ),
    ],
    ids=["imported", "failed", "refused", "not-made", "not-recorded", "held"],
)
def test_an_outcome(tell: Any, reason: str, says: str, result: str, message: str, answers: list[tuple[str, str]]) -> None:
    """The sentence and the annotation say the same."""
    events = Events()
    tell(reports(events))
    ((seen, text, attempt),) = events.seen
    assert seen == reason
    assert says in text
    assert (attempt.tag, attempt.result, attempt.message) == ("v1", result, message)
    assert [(answer.reference, answer.failure) for answer in attempt.candidates] == answers


@pytest.mark.parametrize(
    "tell", [lambda r: r.failed(KEY, "u", PLAN, TRIED), lambda r: r.held(KEY, "u", HELD, ())], ids=["failed", "held"]
)
def test_an_observer_writes_no_event(tell: Any) -> None:
    """It writes nothing at all."""
    events = Events()
    tell(reports(events, active=False))
    assert not events.seen
