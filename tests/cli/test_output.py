"""Where the answer goes: a terminal, a pipe, a program."""

import contextlib
import io
import json
import re
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from mirrorstream.imagestream.outcomes import read_attempts
from mirrorstream.text.sanitize import harmless, one_line
from mirrorstream.text.terminal import Span, Style, layout, line
from mirrorstream_cli.output import print_document, print_lines

from tests.diagnose.builders import attempt, event

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
    assert ("\x1b[38;5;196m" in text) is colour
    assert (text.count("\n") > 1) is broken


@pytest.mark.parametrize(("output", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_documents(capsys: pytest.CaptureFixture[str], output: str, read: Any) -> None:
    """Tuples are lists, and no text does anything to a terminal."""
    print_document({"a": ("x\x1b[31m", {"b": None}), "ä": "中"}, output)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert read(out) == {"a": ["x", {"b": None}], "ä": "中"}


OTHER_THAN_TEXT = {
    "1.2 null": r"~|null|Null|NULL|",
    "1.2 bool": r"true|True|TRUE|false|False|FALSE",
    "1.2 int": r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+",
    "1.2 float": r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
    "1.1 bool": r"y|Y|yes|Yes|YES|n|N|no|No|NO|on|On|ON|off|Off|OFF",
    "1.1 int": r"[-+]?(0b[0-1_]+|0[0-7_]+|0|[1-9][0-9_]*|0x[0-9a-fA-F_]+|[1-9][0-9_]*(:[0-5]?[0-9])+)",
    "1.1 float": r"[-+]?([0-9][0-9_]*)?\.[0-9.]*([eE][-+][0-9]+)?|[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+\.[0-9_]*",
    "1.1 timestamp": r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(([Tt]|[ \t]+)[0-9]{1,2}:[0-9]{2}:[0-9]{2}(\.[0-9]*)?[ \t]*(Z|[-+][0-9:]+)?)?",
    "1.1 merge and value": r"<<|=",
    "Go": r"[-+]?0[bBoO][0-7_]+|[-+]?[0-9][0-9_]*(\.[0-9_]*)?([eE][-+]?[0-9_]+)?",
}
"""What plain scalars YAML 1.1 (yaml.org/type) and the core schema of YAML 1.2 read as something else, and Go's YAML besides."""
LOOKS_LIKE_TEXT = st.one_of(st.text(), *(st.from_regex(re.compile(p, re.ASCII), fullmatch=True) for p in OTHER_THAN_TEXT.values()))


@given(st.lists(LOOKS_LIKE_TEXT, min_size=1, max_size=4))
@example(["1e3", "0o17", "72225e2", "0x1f", "1_000", ".5", ".inf", "yes", "NO", "on", "off", "~", "null", "", "2001-01-01"])
@example(["=", "<<", "012", "1:20", "+1", "-.INF", "0b1", "2001-12-14t21:59:43.10-05:00", "y", "N"])
@example(
    ["registry.example.com:5000/a:v1", "sha256:0123", "latest", "yesterday", "app-1", "e3", "x:y", "10.0.0.1/a", "a: b", "a #b"]
)
def test_every_reader_of_yaml_gets_the_same_text(texts: list[str]) -> None:
    """Of YAML 1.1 and 1.2: a plain scalar is none that one of them reads as a number, a date, a bool or null."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        print_document({"texts": texts}, "yaml")
    root = yaml.compose(out.getvalue(), yaml.SafeLoader)
    nodes = root.value[0][1].value
    assert [node.value for node in nodes] == harmless(texts)
    for node in nodes:
        assert node.tag == "tag:yaml.org,2002:str"
        read = [name for name, pattern in OTHER_THAN_TEXT.items() if re.fullmatch(pattern, node.value, re.ASCII)]
        assert node.style is not None or not read, node.value


@pytest.mark.parametrize("text", ["registry.example.com:5000/a:v1", "sha256:0123", "latest", "app-1", "yesterday"])
def test_what_is_text_to_everybody_is_not_quoted(capsys: pytest.CaptureFixture[str], text: str) -> None:
    """Most of what is printed: people read it as well."""
    print_document({"a": text}, "yaml")
    assert capsys.readouterr().out == f"a: {text}\n"


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
    assert all(found.result for found in read_attempts(text))
    assert event(text).at
    assert read_attempts(event(attempt()).metadata.annotations.outcome)  # type: ignore[union-attr]
