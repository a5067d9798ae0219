"""Lines: plain and whole in a pipe, broken and in colour on a terminal."""

import re

import pytest
from mirrorstream.text.terminal import Span, Style, blank, columns, layout, line, period

from docs.terminal_page import colour

ROWS = [("a", Span("long word", Style.BAD), "said something rather long about it"), ("bbb", "x", ""), ("c",)]


def test_columns_begin_below_each_other() -> None:
    """Without spaces at the end."""
    assert layout(columns(ROWS, indent=2)) == "  a    long word  said something rather long about it\n  bbb  x\n  c\n"


def test_a_terminal_breaks_lines_below_their_last_column() -> None:
    """What does not fit goes on where it began."""
    assert layout(columns(ROWS[:1], indent=2), width=46) == (
        "  a  long word  said something rather long\n                about it\n"
    )


def test_a_deep_column_goes_on_near_the_left() -> None:
    """Otherwise there would be a word a line."""
    rows = [("x" * 30, "some words that go on and on")]
    assert layout(columns(rows), width=44) == f"{'x' * 30}  some words\n    that go on and on\n"


def test_only_a_word_that_is_longer_than_a_line_is_broken() -> None:
    """References are to be copied, and no line is wider than the terminal."""
    whole = "registry.example.com/" + "a" * 25
    assert layout([line("from ", whole)], width=50) == f"from\n    {whole}\n"
    longer = "registry.example.com/" + "a" * 80
    lines = layout([line("from ", longer)], width=50).splitlines()
    assert "".join(text.strip() for text in lines[1:]) == longer
    assert max(map(len, lines)) == 50


def test_a_word_that_fits_further_left_goes_there() -> None:
    """A reference behind a label would stick out of a terminal of the usual width, though there is room for it."""
    reference = "registry.example.com:5000/" + "a" * 41
    rows = [("from:       ", reference), ("failure:    ", "connection refused")]
    for text in layout(columns(rows, 4), width=80).splitlines():
        assert len(text) <= 80
    assert layout(columns(rows, 4), width=80) == (f"    from:\n        {reference}\n    failure:      connection refused\n")


def test_colours_are_the_only_escape_sequences() -> None:
    """Whatever a tenant writes into an Event."""
    lines = [line(Span("\x1b[5mbad\x1b]0;t\x07", Style.BAD), "\x1b[2J ok\n"), blank()]
    assert layout(lines, colour=True) == "\x1b[38;5;196mbad\x1b[0m ok\n\n"
    assert layout(lines) == "bad ok\n\n"


def luminance(colour: tuple[int, int, int]) -> float:
    """The relative luminance of WCAG 2, from 0 (black) to 1 (white)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (part / 255 for part in colour)]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("background", [(255, 255, 255), (0, 0, 0)], ids=["white", "black"])
@pytest.mark.parametrize("style", [Style.BAD, Style.WARNING, Style.GOOD, Style.QUIET])
def test_colours_can_be_read_on_white_and_on_black(style: Style, background: tuple[int, int, int]) -> None:
    """By the contrast ratio of WCAG 2: of one colour, it cannot be more than 4.6 on both. Yellow has 1.7 on xterm's white."""
    lighter, darker = sorted((luminance(colour(style)), luminance(background)), reverse=True)
    assert (lighter + 0.05) / (darker + 0.05) > 3.7


@pytest.mark.parametrize("width", [1, 20, 80])
def test_nothing_gets_lost(width: int) -> None:
    """At any width, with colours or without."""
    lines = [line(Span("some words", Style.TITLE), "  and ", Span("more of them", Style.QUIET), indent=3), *columns(ROWS)]
    words = layout(lines).split()
    assert layout(lines, width=width).split() == words
    assert re.sub(r"\x1b\[[\d;]+m", "", layout(lines, width=width, colour=True)).split() == words


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *[(-5, "0s"), (0, "0s"), (59, "59s"), (119, "119s"), (120, "2m"), (125, "2m5s"), (900, "15m"), (3600, "1h")],
        *[(4200, "1h10m"), (86400, "1d"), (90000, "1d1h"), (864000, "10d"), (900000, "10d")],
    ],
)
def test_periods(seconds: float, text: str) -> None:
    """As kubectl writes ages."""
    assert period(seconds) == text
