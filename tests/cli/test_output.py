"""Where the answer goes: a terminal, a pipe, a program."""

import io
import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from mirrorstream.attempts import read_attempt
from mirrorstream.commands.output import print_document, print_lines
from mirrorstream.safetext import harmless, one_line
from mirrorstream.screen import Span, Style, layout, line

from tests.cli.builders import attempt, event

LINES = [line(Span("failing", Style.BAD), " ", "word " * 20)]


class Terminal(io.StringIO):
    """A stdout that says what it is."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        """Whether it is one."""
        return self._terminal


@pytest.mark.parametrize(
    ("terminal", "environment", "colour", "broken"),
    [
        (True, {"TERM": "xterm"}, True, True),
        (True, {"TERM": "xterm", "NO_COLOR": "1"}, False, True),
        (True, {"TERM": "xterm", "NO_COLOR": ""}, True, True),
        (True, {"TERM": "dumb"}, False, True),
        (False, {"TERM": "xterm"}, False, False),
    ],
    ids=["terminal", "no-colour", "an-empty-NO_COLOR", "dumb", "pipe"],
)
def test_colour_and_width(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, environment: dict[str, str], colour: bool, broken: bool
) -> None:
    """A pipe's text does not depend on who looks at it."""
    out = Terminal(terminal)
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in {"COLUMNS": "60", **environment}.items():
        monkeypatch.setenv(name, value)
    print_lines(LINES)
    text = out.getvalue()
    assert ("\x1b[31m" in text) is colour
    assert (text.count("\n") > 1) is broken


@pytest.mark.parametrize(("output", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_documents(capsys: pytest.CaptureFixture[str], output: str, read: Any) -> None:
    """Tuples are lists, and no text does anything to a terminal."""
    print_document({"a": ("x\x1b[31m", {"b": None}), "ä": "中"}, output)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert read(out) == {"a": ["x", {"b": None}], "ä": "中"}


@given(st.text())
def test_no_text_gets_through_as_more_than_text(text: str) -> None:
    """Whatever it is; cleaning twice changes nothing."""
    shown = one_line(text)
    assert not [c for c in shown if ord(c) < 32 or 127 <= ord(c) < 160 or c in "\u202e\u2066\u200b"]
    assert one_line(shown) == shown
    assert not set("\x1b\x07\x9b\r") & set(layout([line(text, Span(text, Style.BAD))], width=50))
    assert set(harmless(text)) - {"\n", " "} <= set(text)


VALUES = st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


@given(st.text() | VALUES.map(json.dumps))
def test_no_annotation_breaks_the_reader(text: str) -> None:
    """A tenant may write anything."""
    found = read_attempt(text)
    assert found is None or found.result
    assert event(text).at
    assert read_attempt(event(attempt()).metadata.annotations.outcome)  # type: ignore[union-attr]
