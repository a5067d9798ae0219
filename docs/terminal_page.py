"""What a command prints, as a page that looks like a terminal."""

import re
from html import escape

WIDTH, LINE, MARGIN = 900, 17, 14
COLOURS = {
    "31": "#ff7b72", "32": "#56d364", "33": "#e3b341", "34": "#79c0ff", "35": "#d2a8ff", "36": "#76e3ea",
    "91": "#ffa198", "92": "#7ee787", "93": "#f2cc60", "94": "#a5d6ff", "95": "#e2c5ff", "96": "#b3f0ff",
}  # fmt: skip
"""Of a dark terminal, by the numbers of ECMA-48's SGR."""
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


def _coloured(text: str) -> str:
    """Escape sequences as spans."""
    parts, styles = [], set[str]()
    pieces = _SGR.split(text)
    for number, piece in enumerate(pieces):
        if number % 2 == 0:
            style = ";".join(sorted(styles))
            parts.append(f'<span style="{style}">{escape(piece)}</span>' if style and piece else escape(piece))
            continue
        for code in piece.split(";"):
            if code in ("", "0"):
                styles.clear()
            elif code == "1":
                styles.add("font-weight: bold")
            elif code == "2":
                styles.add("opacity: 0.7")
            elif code in COLOURS:
                styles.add(f"color: {COLOURS[code]}")
    return "".join(parts)
