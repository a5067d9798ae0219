"""Failure messages, Events and everything that is shown: a tenant, or a tenant's registry, may have written it."""

import unicodedata
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mirrorstream.imagestream.failures import FailureClass, classify, classify_message
from mirrorstream.imagestream.messages import brief, mentions, split_aggregate
from mirrorstream.imagestream.outcomes import (
    ANNOTATION_LENGTH,
    CANDIDATES,
    MESSAGE_LENGTH,
    OUTCOME_ANNOTATION,
    REASONS,
    RESULTS,
    Attempt,
    AttemptHistory,
    CandidateAnswer,
    attempt_document,
    decode_event,
    encode_attempts,
    read_attempts,
)
from mirrorstream.text.sanitize import clean, harmless, one_line, shortened

from tests.fuzz.bounds import examples, grows_linearly
from tests.fuzz.corpus import cases
from tests.fuzz.values import json_values, mapping, messages, names, references, texts

REORDERING = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
shown = st.one_of(
    texts,
    st.text(st.sampled_from("\x1b\x9b\x9d\x90[]0;38m?\x07\\\x9cABJH \n\t\x85\u202e\u2066\u200b\ud800éa"), max_size=30),
    messages,
)


def steering(text: str, *, allowed: str = "") -> list[str]:
    """The characters in a text that a terminal would act on, or that would show it in another order than it has."""
    return [
        character
        for character in text
        if character not in allowed
        and (unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or unicodedata.bidirectional(character) in REORDERING)
    ]


@given(shown)
@examples(700)
def test_nothing_that_could_steer_a_terminal_comes_through(text: str) -> None:
    """And what was cleaned is not changed by cleaning it again."""
    assert not steering(clean(text))
    line = one_line(text)
    assert not steering(line)
    assert one_line(line) == line
    assert not steering(harmless(text), allowed="\n")
    assert len(shortened(text, 10)) <= 10


@given(json_values)
@examples(300)
def test_documents_are_harmless_in_every_place(value: Any) -> None:
    """Keys as well as values."""

    def walk(found: Any) -> None:
        if isinstance(found, str):
            assert not steering(found, allowed="\n")
        for item in [*found, *found.values()] if isinstance(found, dict) else found if isinstance(found, list) else ():
            walk(item)

    walk(harmless(value))


@given(names, messages, st.lists(references, max_size=2))
@example("InternalError", "[" * 2000 + "a" + "]" * 2000, ["quay.io/a"])
@examples(700)
def test_any_message_has_a_class(reason: str, message: str, sources: list[str]) -> None:
    """And loses nothing that is neither a wrapping nor a separator. 1,000 brackets once were too many for Python."""
    failure = classify(reason, message, tuple(sources))
    assert isinstance(failure.kind, FailureClass)
    assert failure.message in message
    split = split_aggregate(message)
    assert split
    for part in split:
        assert part in message
        assert isinstance(classify_message(part), FailureClass)
        for source in sources:
            assert not mentions(part, source) or source in part
    assert bool(brief(message)) is bool(message)


@given(st.one_of(texts, st.builds(repr, json_values)))
@examples(300)
def test_an_annotation_of_anything_is_read_or_is_none(text: str) -> None:
    """An Event's annotation has whatever its writer wanted."""
    read_attempts(text)


attempts = st.builds(
    Attempt,
    tag=shown,
    result=st.sampled_from(sorted(RESULTS)),
    source=shown,
    failure=shown,
    message=shown,
    candidates=st.lists(st.builds(CandidateAnswer, shown, shown, shown, shown), max_size=20).map(tuple),
)


@given(attempts)
@examples(300)
def test_what_is_read_of_an_attempt_is_harmless_and_bounded(attempt: Attempt) -> None:
    """And is written and read as what it is."""
    import msgspec

    try:
        raw = msgspec.json.encode(attempt).decode()
    except UnicodeEncodeError:
        return  # half a surrogate pair, which no JSON has
    all_found = read_attempts(raw)
    assert all_found or len(raw) > ANNOTATION_LENGTH
    if not all_found:
        return
    (found,) = all_found
    for text in (found.tag, found.source, found.failure, found.message, found.through):
        assert not steering(text)
        assert len(text) <= max(MESSAGE_LENGTH, 512) or text == found.tag
    assert len(found.candidates) <= CANDIDATES
    for answer in found.candidates:
        assert not any(steering(text) for text in (answer.reference, answer.mirror_set, answer.failure, answer.message))
    ((text, _),) = encode_attempts([found])
    assert read_attempts(text) == (found,)


events = mapping(
    metadata=mapping(
        name=shown,
        resourceVersion=st.sampled_from(["1", "²", "٣", "", "-1", "9" * 5000]),
        annotations=mapping(**{OUTCOME_ANNOTATION: st.sampled_from(["", "{}", '{"tag":"a","result":"failed"}'])}),
    ),
    involvedObject=mapping(kind=st.just("ImageStream"), namespace=names, name=names, uid=names),
    reason=st.sampled_from(sorted(REASONS)),
    message=shown,
    lastTimestamp=shown,
    eventTime=shown,
    count=st.integers(0, 2**63),
)


@given(st.lists(events, max_size=4))
@example(
    [
        {
            "metadata": {"resourceVersion": "9" * 5000, "annotations": {OUTCOME_ANNOTATION: '{"tag":"a","result":"failed"}'}},
            "involvedObject": {"kind": "ImageStream"},
            "reason": "MirrorImportFailed",
        }
    ]
)
@examples(300)
def test_events_of_anything_make_a_journal(documents: list[Any]) -> None:
    """One that cannot be read is left out, the others tell. A version of 5,000 digits once raised ValueError."""
    import msgspec

    found = []
    for document in documents:
        try:
            found.append(decode_event(msgspec.json.encode(document)))
        except (msgspec.MsgspecError, UnicodeEncodeError):
            continue
    history = AttemptHistory(found)
    for event in found:
        key = (event.involved_object.namespace, event.involved_object.name)
        assert not any(steering(sentence) for sentence in history.sentences(key, event.involved_object.uid))
        tried = history.latest(key, event.involved_object.uid, "a", "")
        assert tried is None or not steering(str(attempt_document(tried)["at"]))


@pytest.mark.parametrize("message", cases("message"))
def test_what_once_broke_a_message(message: str) -> None:
    """Each file in the corpus, with what it broke in its README."""
    classify("InternalError", message, ("quay.io/a/b:v1",))
    brief(message)
    one_line(message)


GROWING = {
    "slashes": lambda size: "a" + "/" * size,
    "slashes-and-words": lambda size: "a/b" * (size // 3),
    "colons": lambda size: "a/" + "b: " * (size // 3),
    "no-end": lambda size: "a/" + "b:" * (size // 2),
    "brackets": lambda size: "[" * (size // 2) + "]" * (size // 2),
    "brackets-with-parts": lambda size: "[a/b: c, " * (size // 18) + "]" * (size // 18),
    "parts": lambda size: "[" + ", ".join(["quay.io/a: refused"] * (size // 20)) + "]",
    "commas": lambda size: "[" + ", " * (size // 2) + "]",
    "commas-and-words": lambda size: "[" + ", a" * (size // 3) + "]",
    "commas-and-ports": lambda size: "[" + ", a" + ":1" * (size // 2) + "]",
    "words": lambda size: "a" * size,
    "registries": lambda size: "registry " * (size // 9),
    "registry-and-a-word": lambda size: "registry " + "a" * size,
    "lookups": lambda size: "lookup" * (size // 6),
    "digests": lambda size: "digests " * (size // 8),
    "spaces": lambda size: " " * size,
    "quotes": lambda size: '"' * size,
    "escaped-quotes": lambda size: '["' + '\\"' * (size // 2) + "]",
    "quoted-parts": lambda size: "[" + '", a/b: "' * (size // 9) + "]",
    "artifacts": lambda size: "a/b: unknown: " + "artifact " * (size // 9),
    "errors": lambda size: "a/b: errors:\n" + "denied: x\n" * (size // 10),
    "invalid": lambda size: 'a "" is invalid: ' * (size // 17),
    "get": lambda size: 'Get "' * (size // 5),
    "not-found": lambda size: 'dockerimage.image.openshift.io "' * (size // 32),
    "lines": lambda size: "\n" * size,
    "https": lambda size: "http" * (size // 4),
    "connections": lambda size: "connection " * (size // 11),
    "manifests": lambda size: "unsupported image manifest"[:-1] * (size // 25),
    "html": lambda size: "<html>" * (size // 6),
    "csi": lambda size: "\x1b[" * (size // 2),
    "csi-parameters": lambda size: "\x1b[" + "0;" * (size // 2),
    "csi-intermediates": lambda size: "\x1b[" + "0" * (size // 2) + " " * (size // 2) + "\u00e9",
    "escapes": lambda size: "\x1b" * size,
    "titles": lambda size: "\x1b]" * (size // 2),
    "titles-that-end": lambda size: "\x1b]0;a\x07" * (size // 6),
    "strings": lambda size: "\x90" * size,
    "hidden": lambda size: "\u200b" * (size // 3),
    "returns": lambda size: "\r\n" * (size // 2),
}


@pytest.mark.parametrize("make", GROWING.values(), ids=GROWING)
def test_messages_take_linear_time(make: Any) -> None:
    """Every pattern that a message is searched for, and everything that makes it fit to be shown. "a////…" once never ended."""
    sources = ("quay.io/a", "a a", "a" * 1024, " " * 1024, "a" * 100_000)

    def run(message: str) -> None:
        classify("InternalError", message, sources)
        classify_message(message)
        brief(message)
        one_line(message)
        harmless(message)
        read_attempts(message)

    grows_linearly(make, run)
