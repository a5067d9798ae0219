"""One Event tells of all tags of a stream that had the same kind of outcome."""

from typing import Any

import pytest
from mirrorstream.imagestream.outcomes import OUTCOME_ANNOTATION, Attempt, CandidateAnswer, read_attempts
from mirrorstream.kube.events import MESSAGE_LIMIT, NORMAL, WARNING
from mirrorstream_controller.stream_events import LONGEST_WAIT_SECONDS, Outcome, StreamEvents, message

KEY = ("ns", "app")


def imported(tag: str, text: str = "") -> Outcome:
    """A tag that was recorded."""
    attempt = Attempt(tag, "imported", f"src.io/a:{tag}", "unreachable")
    return Outcome(NORMAL, "ImportedFromMirror", text or f"src.io/a@sha256:{tag} through m.io/a:{tag}", attempt, "through m.io")


def failed(tag: str, answer: str = "not found") -> Outcome:
    """A tag that no mirror has."""
    attempt = Attempt(tag, "failed", f"src.io/a:{tag}", "unreachable", "", (CandidateAnswer("m.io/a", "", "not-found", answer),))
    return Outcome(WARNING, "MirrorImportFailed", f"src.io/a:{tag} is in no mirror: {answer}", attempt)


class Recorder:
    """Takes Events; `now` is the time that outcomes wait by."""

    def __init__(self) -> None:
        self.now = 100.0
        self.seen: list[tuple[str, str, list[str], str]] = []
        self.events = StreamEvents(self, lambda: self.now)  # type: ignore[arg-type]

    def event(self, involved: Any, event_type: str, reason: str, message: str, annotations: Any = ()) -> None:
        """Take one."""
        tags = [attempt.tag for attempt in read_attempts(dict(annotations)[OUTCOME_ANNOTATION])]
        self.seen.append((involved.uid, reason, tags, message))


def test_one_event_for_each_reason() -> None:
    """In the same order whatever came first, so that the same pass again only raises the counts."""
    told = []
    for order in (1, -1):
        recorder = Recorder()
        for outcome in [imported("b"), failed("c"), imported("a"), failed("d")][::order]:
            recorder.events.add(KEY, "u", outcome)
        assert recorder.seen == []
        recorder.events.tell(KEY)
        told.append(sorted(recorder.seen))
    assert told[0] == told[1]
    assert [event[:3] for event in told[0]] == [("u", "ImportedFromMirror", ["a", "b"]), ("u", "MirrorImportFailed", ["c", "d"])]
    recorder.events.tell(KEY)
    assert len(recorder.seen) == 2, "nothing is told twice"


def test_the_last_outcome_of_a_tag_counts() -> None:
    """A tag that failed, and was imported before it was told: two Events of one second have no order for those who read them."""
    recorder = Recorder()
    recorder.events.add(KEY, "u", failed("a"))
    recorder.events.add(KEY, "u", imported("a"))
    recorder.events.tell(KEY)
    assert [event[1] for event in recorder.seen] == ["ImportedFromMirror"]


def test_how_long_outcomes_wait() -> None:
    """From the first on."""
    recorder = Recorder()
    assert recorder.events.wait(KEY) is None
    recorder.events.add(KEY, "u", failed("a"))
    recorder.now += 5
    recorder.events.add(KEY, "u", failed("b"))
    assert recorder.events.wait(KEY) == LONGEST_WAIT_SECONDS - 5
    recorder.now += 100
    assert recorder.events.wait(KEY) == 0


def test_of_streams_that_are_gone_nothing_is_told() -> None:
    """Deleted, or deleted and created again."""
    recorder = Recorder()
    recorder.events.add(KEY, "old", failed("a"))
    recorder.events.add(KEY, "new", failed("b"))
    recorder.events.add(("ns", "gone"), "u", failed("c"))
    recorder.events.forget(("ns", "gone"))
    recorder.events.tell_all()
    assert [event[0] for event in recorder.seen] == ["new"]
    assert len(recorder.events) == 0


def test_a_stream_with_many_tags_has_as_few_events_as_programs_can_read() -> None:
    """A whole repository has 50 tags; streams of builds have hundreds. Every tag's answers are in an Event."""
    recorder = Recorder()
    tags = sorted(f"build-{number}" for number in range(1000))
    for tag in tags:
        recorder.events.add(KEY, "u", failed(tag, "manifest unknown: " + "x" * 200))
    recorder.events.tell(KEY)
    assert [tag for event in recorder.seen for tag in event[2]] == tags
    assert len(recorder.seen) < 10


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ([imported("v1")], "tag v1: src.io/a@sha256:v1 through m.io/a:v1"),
        ([imported(""), imported("v1")], "tags repository, v1: through m.io"),
        ([failed("")], "repository: src.io/a: is in no mirror: not found"),
        (
            [failed("a"), failed("b")],
            "tag a: src.io/a:a is in no mirror: not found; tag b: src.io/a:b is in no mirror: not found",
        ),
    ],
    ids=["one", "alike", "repository", "different"],
)
def test_the_sentence(outcomes: list[Outcome], expected: str) -> None:
    """What is the same of several tags is said once."""
    assert message(outcomes) == expected


@pytest.mark.parametrize("tags", [40, 500])
@pytest.mark.parametrize("make", [failed, imported])
def test_a_long_sentence_names_the_tags_first(make: Any, tags: int) -> None:
    """An Event has 1,024 letters; which tags it is about is what people look for."""
    said = message([make(f"v{number}") for number in range(tags)])
    assert len(said) <= MESSAGE_LIMIT
    assert "v0, v1, v2, v3, v4" in said
    assert said.count("v39") >= 1, said
    assert "m.io" in said or "is in no mirror" in said
