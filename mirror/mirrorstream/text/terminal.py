"""Lines of text for people: what they consist of, and how they fit a terminal. Plain and unbroken where there is none."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from mirrorstream.text.sanitize import clean

HANGING = 4
"""How much further in a broken line goes on."""
LEAST_WIDTH = 40


class Style(StrEnum):
    """What a piece of text is; the values are the parameters of its terminal colour."""

    PLAIN = ""
    TITLE = "1"
    BAD = "31"
    WARNING = "33"
    GOOD = "32"
    QUIET = "2"


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a line."""

    text: str
    style: Style = Style.PLAIN


@dataclass(frozen=True, slots=True)
class Line:
    """One line; where it must be broken it goes on at `hang`, or a little further in than it began."""

    spans: tuple[Span, ...] = ()
    indent: int = 0
    hang: int | None = None


def line(*parts: str | Span, indent: int = 0, hang: int | None = None) -> Line:
    """A line of texts and spans, which are put one behind the other."""
    return Line(tuple(part if isinstance(part, Span) else Span(part) for part in parts), indent, hang)


def blank() -> Line:
    """An empty line."""
    return Line()


def columns(rows: Iterable[Sequence[str | Span]], indent: int = 0) -> list[Line]:
    """Rows whose columns begin below each other; empty cells at the end are left out."""
    cells = [[part if isinstance(part, Span) else Span(part) for part in row] for row in rows]
    number = max((len(row) for row in cells), default=0)
    widths = [max((len(clean(row[i].text)) for row in cells if i < len(row)), default=0) for i in range(number)]
    made = []
    for row in cells:
        while row and not row[-1].text:
            row.pop()
        spans: list[Span] = []
        for index, cell in enumerate(row):
            last = index == len(row) - 1
            spans += [cell] if last else [cell, Span(" " * (widths[index] - len(clean(cell.text)) + 2))]
        made.append(Line(tuple(spans), indent, indent + sum(width + 2 for width in widths[: len(row) - 1])))
    return made


def layout(lines: Iterable[Line], *, width: int | None = None, colour: bool = False) -> str:
    """The text of `lines`: broken at `width` columns, unless it is None; words, references among them, stay whole.

    Whatever the lines say, the only escape sequences in the result are the colours.
    """
    return "".join(f"{text}\n" for item in lines for text in _broken(item, width, colour))


def _broken(item: Line, width: int | None, colour: bool) -> list[str]:
    pieces = [(clean(span.text), span.style) for span in item.spans]
    if width is None or item.indent + sum(len(text) for text, _ in pieces) <= max(width, LEAST_WIDTH):
        return [(" " * item.indent + "".join(_paint(text, style, colour) for text, style in pieces)).rstrip()]
    width = max(width, LEAST_WIDTH)
    hang = item.hang if item.hang is not None and item.hang <= width // 2 else item.indent + HANGING
    if hang + max((len(word.strip()) for text, _ in pieces for word in _words(text)), default=0) > width:
        hang = min(hang, item.indent + HANGING)
    rows: list[list[tuple[str, Style]]] = [[]]
    used = item.indent
    for text, style in pieces:
        for word in _words(text):
            if used + len(word.rstrip()) > width and rows[-1]:
                rows.append([])
                used = hang
                word = word.lstrip()  # noqa: PLW2901  a new line does not begin with the space before it
            rows[-1].append((word, style))
            used += len(word)
    return [
        (" " * (hang if number else item.indent) + "".join(_paint(text, style, colour) for text, style in row)).rstrip()
        for number, row in enumerate(rows)
    ]


def _words(text: str) -> list[str]:
    """The words of a text, each with the spaces before it."""
    words: list[str] = []
    start = 0
    for index in range(1, len(text) + 1):
        if index == len(text) or (text[index] == " " and text[index - 1] != " "):
            words.append(text[start:index])
            start = index
    return words


def _paint(text: str, style: Style, colour: bool) -> str:
    return f"\x1b[{style.value}m{text}\x1b[0m" if colour and style and text.strip() else text


def period(seconds: float) -> str:
    """A time that has passed, as kubectl writes it: `45s`, `12m`, `3h20m`, `2d4h`, `45d`."""
    whole = max(0, int(seconds))
    for unit, size, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if whole >= 2 * size or (unit != "m" and whole >= size):
            count, rest = divmod(whole, size)
            return f"{count}{unit}" + (f"{rest // part}{smaller}" if count < 10 and rest // part else "")
    return f"{whole}s"
