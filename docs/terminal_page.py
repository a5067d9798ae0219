"""What a command prints, as a page that looks like a terminal."""

import re
from html import escape

from mirrorstream.text.terminal import Style

WIDTH, LINE, MARGIN = 900, 17, 14
_LEVELS = (0, 95, 135, 175, 215, 255)
_STYLE = f"""
body {{ margin: 0; background: #0d1117; color: #c9d1d9; width: {WIDTH}px }}
pre {{ font: 13px/{LINE}px "DejaVu Sans Mono", monospace; margin: {MARGIN}px {MARGIN + 4}px }}
"""
_SGR = re.compile(r"\x1b\[([\d;]*)m")


def terminal_height(text: str) -> int:
    """The page's height in pixels."""
    return (text.count("\n") + 1) * LINE + 2 * MARGIN


def terminal_page(command: str, text: str) -> str:
    """The page's HTML: a prompt with the command, and what it printed, in its colours."""
    return f"<!doctype html><meta charset=utf-8><style>{_STYLE}</style><pre>$ {escape(command)}\n{_coloured(text)}</pre>\n"


def colour(style: Style) -> tuple[int, int, int]:
    """Red, green and blue (0 to 255) of a style's colour: one of the 216 of the cube, or of the 24 greys, of the 256 colours."""
    number = int(style.removeprefix("38;5;")) - 16
    if number >= len(_LEVELS) ** 3:
        grey = 8 + 10 * (number - len(_LEVELS) ** 3)
        return grey, grey, grey
    return _LEVELS[number // 36], _LEVELS[number // 6 % 6], _LEVELS[number % 6]


def _css(style: Style) -> str:
    return "font-weight: bold" if style is Style.TITLE else "color: #{:02x}{:02x}{:02x}".format(*colour(style))


def _coloured(text: str) -> str:
    """Escape sequences as spans: each style ends before the next one begins."""
    plain, *pieces = _SGR.split(text)
    parts = [escape(plain)]
    for code, piece in zip(pieces[::2], pieces[1::2], strict=True):
        parts.append(escape(piece) if code == "0" else f'<span style="{_css(Style(code))}">{escape(piece)}</span>')
    return "".join(parts)
