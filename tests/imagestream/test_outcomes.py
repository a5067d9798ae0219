"""Events for programs: bounded when they are written, and not believed when they are read."""

import json
from typing import Any

import pytest
from mirrorstream.imagestream.outcomes import (
    ANNOTATION_LENGTH,
    CANDIDATES,
    Attempt,
    AttemptHistory,
    AttemptResult,
    CandidateAnswer,
    attempt_document,
    encode_attempts,
    read_attempts,
)

from tests.diagnose.builders import SOURCE, attempt, event, history

KEY = ("ns", "app")


def encoded(written: Attempt) -> str:
    """The annotation of an Event about one tag."""
    ((text, count),) = encode_attempts([written])
    assert count == 1
    return text


def test_what_is_written_is_read() -> None:
    """Every field."""
    written = attempt(AttemptResult.FAILED, "not-found", "timeout", failure="unreachable", message="why")
    assert read_attempts(encoded(written)) == (written,)


def test_one_annotation_tells_of_several_tags() -> None:
    """In the order that they came in."""
    written = tuple(attempt(AttemptResult.FAILED, "not-found", tag=f"v{number}") for number in range(50))
    ((text, count),) = encode_attempts(written)
    assert (count, read_attempts(text)) == (50, written)


def test_the_object_of_earlier_versions_is_read() -> None:
    """Events stay for three hours."""
    assert read_attempts(_json()) == (Attempt("v1", "failed"),)


def test_the_annotation_is_the_documented_list() -> None:
    """Others may read it, too."""
    assert json.loads(encoded(attempt(AttemptResult.IMPORTED, "", failure="tls"))) == [
        {
            "tag": "v1",
            "result": "imported",
            "source": SOURCE,
            "failure": "tls",
            "message": "",
            "candidates": [
                {"reference": "m.io/x/team/app:v1", "mirrorSet": "ImageDigestMirrorSet/m", "failure": "", "message": ""}
            ],
        }
    ]


def test_it_has_a_bounded_size() -> None:
    """However many mirrors there are, and however much they say."""
    answers = tuple(CandidateAnswer("r" * 5000, "m" * 5000, "unknown", "x" * 5000) for _ in range(100))
    longest = Attempt("t" * 128, "failed", "s" * 5000, "unknown", "y" * 5000, answers)
    text = encoded(longest)
    assert len(text) < 30000
    (found,) = read_attempts(text)
    assert len(found.candidates) == CANDIDATES
    assert found.candidates[0].message.endswith("…")
    several = list(encode_attempts([longest] * 9))
    assert sum(count for _, count in several) == 9
    assert len(several) == 5
    assert all(len(text.encode()) <= ANNOTATION_LENGTH and len(read_attempts(text)) == count for text, count in several)


def _json(**changes: Any) -> str:
    return json.dumps({"tag": "v1", "result": "failed", **changes})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        "{}",
        '"text"',
        _json(result="nonsense"),
        _json(tag=1),
        _json(candidates={}),
        _json(candidates=[1]),
        _json(candidates=[{}]),
        "[" * 100000,
        '{"tag":' * 3000,
        _json(message="x" * ANNOTATION_LENGTH),
        "\ud800",
    ],
    ids=range(15),
)
def test_garbage_is_no_attempt(text: str) -> None:
    """A tenant may write Events of any content."""
    assert read_attempts(text) == ()


def test_an_attempt_is_harmless_to_show() -> None:
    """Escape sequences, line breaks and endless texts are gone; unknown fields do not matter."""
    text = _json(
        source="a\x1b[31mb", message="x\ny" * 1000, more=1, candidates=[{"reference": "\x1b]0;t\x07r", "failure": "f\u202e" * 99}]
    )
    (found,) = read_attempts(text)
    assert (found.source, len(found.message)) == ("ab", 300)
    assert (found.candidates[0].reference, len(found.candidates[0].failure)) == ("r", 40)
    assert "\n" not in found.message


@pytest.mark.parametrize(
    ("result", "failures", "through"),
    [
        (AttemptResult.IMPORTED, ["not-found", ""], "n.io/y/team/app:v1"),
        (AttemptResult.IMPORTED, [], ""),
        (AttemptResult.FAILED, ["not-found", ""], ""),
    ],
)
def test_through_what(result: AttemptResult, failures: list[str], through: str) -> None:
    """The candidate without a failure, of an attempt that succeeded."""
    assert attempt(result, *failures).through == through


def test_the_latest_attempt_of_each_tag_counts() -> None:
    """Of two in the same second, the one that was written last."""
    old = event(attempt(AttemptResult.FAILED, "timeout"), at="2027-01-15T07:00:00Z", version="999")
    new = event(attempt(AttemptResult.FAILED, "not-found"), at="2027-01-15T07:30:00Z", version="98")
    imported = event(attempt(AttemptResult.IMPORTED, ""), at="2027-01-15T07:30:00Z", version="101")
    other = event(attempt(AttemptResult.REFUSED, tag="v2"), at="2027-01-15T07:59:00Z")
    for events in ([old, new, imported, other], [imported, other, new, old]):
        found = AttemptHistory(events)
        tried = found.latest(KEY, "u", "v1", SOURCE)
        assert tried
        assert tried.attempt.result == "imported"
        second = found.latest(KEY, "u", "v2", SOURCE)
        assert second
        assert (second.attempt.result, second.count, second.at) == ("refused", 3, "2027-01-15T07:59:00Z")
        assert attempt_document(second) == {
            "result": "refused", "source": SOURCE, "failure": "", "message": "", "candidates": [],
            "at": "2027-01-15T07:59:00Z", "count": 3,
        }  # fmt: skip


@pytest.mark.parametrize(
    ("uid", "source", "known"),
    [("u", SOURCE, True), ("another", SOURCE, False), ("u", "src.io/team/app:v2", False)],
    ids=["the-same", "a-stream-that-was-made-again", "a-tag-that-was-changed"],
)
def test_attempts_for_something_else_do_not_count(uid: str, source: str, known: bool) -> None:
    """What was tried for an earlier stream or source says nothing of the present one."""
    assert (history(attempt()).latest(KEY, uid, "v1", source) is not None) is known


@pytest.mark.parametrize(
    "more",
    [
        {"involvedObject": {"kind": "Pod", "namespace": "ns", "name": "app"}},
        {"involvedObject": {}},
        {"reason": "Scheduled"},
        {"metadata": {}},
    ],
    ids=["another-kind", "nothing", "another-reason", "no-annotations"],
)
def test_other_events_are_none_of_ours(more: dict[str, Any]) -> None:
    """Their annotation, too, could be anything."""
    assert AttemptHistory([event(attempt(), **more)]).latest(KEY, "u", "v1", SOURCE) is None


def test_events_of_older_versions_are_quoted() -> None:
    """Never parsed; without their annotation they say nothing of a single tag."""
    found = AttemptHistory([event(None, message="tag v1: x\x1b[2J is in no mirror"), event("{", at="2027-01-15T07:00:00Z")])
    assert found.latest(KEY, "u", "v1", SOURCE) is None
    assert found.sentences(KEY, "u") == [
        "2027-01-15T07:00:00Z MirrorImportFailed: a sentence",
        "2027-01-15T07:58:00Z MirrorImportFailed: tag v1: x is in no mirror",
    ]
    assert found.sentences(KEY, "another") == []
