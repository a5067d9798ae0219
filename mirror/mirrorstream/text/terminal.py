"""Lines of text for people: what they consist of, and how they fit a terminal. Plain and unbroken where there is none."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from mirrorstream.text.sanitize import clean, shortened_inside

HANGING = 4
"""How much further in a broken line goes on."""
LEAST_WIDTH = 40
LEAST_CELL = 8


class Style(StrEnum):
    """What a piece of text is; the values are the parameters of its terminal colour.

    Nobody can tell whether a terminal is dark or light. The basic yellow and green (33, 32) are hard to read on white, faint text
    (2) on black. So the colours are of those of the 256 that terminals do not redefine, about as far from black as from white:
    red, orange, green and grey.
    """

    PLAIN = ""
    TITLE = "1"
    BAD = "38;5;196"
    WARNING = "38;5;166"
    GOOD = "38;5;28"
    QUIET = "38;5;244"


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


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells, one line for each row: where the terminal is too narrow, the longest cells are shortened in the middle."""

    rows: tuple[tuple[Span, ...], ...]
    indent: int = 0


Text = Line | Table


def line(*parts: str | Span, indent: int = 0, hang: int | None = None) -> Line:
    """A line of texts and spans, which are put one behind the other."""
    return Line(tuple(part if isinstance(part, Span) else Span(part) for part in parts), indent, hang)


def blank() -> Line:
    """An empty line."""
    return Line()


def notes(texts: Iterable[str]) -> list[Line]:
    """What the asking user should know of the answer itself."""
    return [line(Span("Note: ", Style.QUIET), Span(text, Style.QUIET), hang=6) for text in texts]


def table(rows: Iterable[Sequence[str | Span]], indent: int = 0) -> Table:
    """A table of texts and spans; rows may have fewer cells than others."""
    return Table(tuple(tuple(_span(part) for part in row) for row in rows), indent)


def _span(part: str | Span) -> Span:
    return part if isinstance(part, Span) else Span(part)


def comma_separated(spans: Iterable[Span]) -> list[str | Span]:
    """Spans with commas between them."""
    return [part for span in spans for part in (", ", span)][1:]


def columns(rows: Iterable[Sequence[str | Span]], indent: int = 0) -> list[Line]:
    """Rows whose columns begin below each other, and whose last one goes on below itself; empty cells at the end are left out."""
    cells = [[_span(part) for part in row] for row in rows]
    widths = _widths(cells)
    made = []
    for row in cells:
        while row and not row[-1].text:
            row.pop()
        spans: list[Span] = []
        for index, cell in enumerate(row):
            last = index == len(row) - 1
            spans += [cell] if last else [cell, Span(" " * (widths[index] - display_width(clean(cell.text)) + 2))]
        made.append(Line(tuple(spans), indent, indent + sum(width + 2 for width in widths[: len(row) - 1])))
    return made


def _widths(rows: Sequence[Sequence[Span]]) -> list[int]:
    number = max(map(len, rows), default=0)
    return [max((display_width(clean(row[i].text)) for row in rows if i < len(row)), default=0) for i in range(number)]


def display_width(text: str) -> int:
    """How many columns of a terminal a text takes: East Asian characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    import unicodedata  # noqa: PLC0415  most texts are ASCII

    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def layout(lines: Iterable[Text], *, width: int | None = None, colour: bool = False) -> str:
    """The text of `lines`, none of which is longer than `width` columns, unless it is None, or less than LEAST_WIDTH.

    Whatever the lines say, the only escape sequences in the result are the colours.
    """
    width = None if width is None else max(width, LEAST_WIDTH)
    return "".join(
        f"{text}\n"
        for item in lines
        for text in (_rows(item, width, colour) if isinstance(item, Table) else _broken(item, width, colour))
    )


def _rows(item: Table, width: int | None, colour: bool) -> list[str]:
    widths = _widths(item.rows)
    if width is not None:
        widths = _narrowed(widths, width - item.indent - 2 * (len(widths) - 1))
    made = []
    for row in item.rows:
        cells = [(_fitted(clean(span.text), limit), span.style) for span, limit in zip(row, widths, strict=False)]
        painted = (
            _paint(text, style, colour) + " " * (limit - display_width(text) + 2)
            for (text, style), limit in zip(cells, widths, strict=False)
        )
        made.append((" " * item.indent + "".join(painted)).rstrip())
    return made


def _fitted(text: str, width: int) -> str:
    while display_width(text) > width:
        text = shortened_inside(text, min(width, len(text) - 1))
    return text


def _narrowed(widths: list[int], available: int) -> list[int]:
    """The widths of columns that together take what is available: the widest ones give."""
    limit = max(widths, default=0)
    while limit > LEAST_CELL and sum(min(width, limit) for width in widths) > available:
        limit -= 1
    return [min(width, limit) for width in widths]


def _broken(item: Line, width: int | None, colour: bool) -> list[str]:
    pieces = [(clean(span.text), span.style) for span in item.spans]
    if width is None or item.indent + sum(display_width(text) for text, _ in pieces) <= width:
        return [(" " * item.indent + "".join(_paint(text, style, colour) for text, style in pieces)).rstrip()]
    hang = item.hang if item.hang is not None and item.hang <= width // 2 else item.indent + HANGING
    if hang + max((display_width(word.strip()) for text, _ in pieces for word in _words(text)), default=0) > width:
        hang = min(hang, item.indent + HANGING)
    rows: list[list[tuple[str, Style]]] = [[]]
    used = item.indent
    for text, style in pieces:
        for word in (part for whole in _words(text) for part in _parts(whole, width - hang)):
            if used + display_width(word.rstrip()) > width and rows[-1]:
                rows.append([])
                used = hang
                word = word.lstrip()  # noqa: PLW2901  a new line does not begin with the space before it
            rows[-1].append((word, style))
            used += display_width(word)
    return [
        (" " * (hang if number else item.indent) + "".join(_paint(text, style, colour) for text, style in row)).rstrip()
        for number, row in enumerate(rows)
    ]


def _parts(word: str, room: int) -> list[str]:
    """A word in parts that fit into a line; nearly all words are one part."""
    if display_width(word.strip()) <= room:
        return [word]
    parts, used = [""], 0
    for character in word:
        size = display_width(character)
        if parts[-1].strip() and used + size > room:
            parts.append("")
            used = 0
        parts[-1] += character
        used += size if parts[-1].strip() else 0
    return parts


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
