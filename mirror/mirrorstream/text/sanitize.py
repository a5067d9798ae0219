"""Text from a cluster, made safe to show: a tenant may have written it."""

import functools
import re
from collections.abc import Sequence
from typing import Any

# Whole escape sequences go, not only their first byte: what follows it would read as nonsense.
_SEQUENCES = (
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"  # CSI: colours, cursor, screen
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f]).*?(?:\x07|\x1b\\|\x9c|$)"  # OSC, DCS, SOS, PM, APC: titles, links, clipboard
    r"|\x1b[ -/]*[0-~]?"
)
# Control characters, and those that reorder or hide text.
_UNSEEN = r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]"


@functools.cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Escape sequences, and unseen characters; compiled where a text may have some: it takes half of a bare interpreter's start."""
    return re.compile(_SEQUENCES, re.DOTALL), re.compile(_UNSEEN)


def clean(text: str) -> str:
    """`text` without escape sequences, control characters and characters that reorder or hide others; line breaks become spaces."""
    if text.isascii() and text.isprintable():
        return text
    sequences, unseen = _patterns()
    return unseen.sub("", re.sub(r"[\n\r\t\v\f\x85]", " ", sequences.sub("", text)))


def one_line(text: str) -> str:
    """`text` cleaned, with single spaces between its words."""
    return " ".join(clean(text).split())


def harmless(value: Any) -> Any:
    """`value`, as JSON has it, with every text in it harmless; line breaks stay. Tuples become lists."""
    if isinstance(value, str):
        if value.isascii() and value.isprintable():
            return value
        sequences, unseen = _patterns()
        return "\n".join(unseen.sub("", line.replace("\t", " ")) for line in sequences.sub("", value).split("\n"))
    if isinstance(value, dict):
        return {harmless(str(key)): harmless(item) for key, item in value.items()}
    return [harmless(item) for item in value] if isinstance(value, list | tuple) else value


def shortened(text: str, limit: int) -> str:
    """`text` in at most `limit` characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def listed(texts: Sequence[str], most: int | None) -> str:
    """The first `most` of `texts`, all without a number, and how many more there are."""
    rest = 0 if most is None else len(texts) - most
    return ", ".join(texts[:most]) + (f" and {rest} more" if rest > 0 else "")


def shortened_inside(text: str, limit: int) -> str:
    """`text` in at most `limit` characters: both ends of a reference tell what it is, its middle less."""
    if len(text) <= limit:
        return text
    tail = limit // 2
    return f"{text[: limit - 1 - tail]}…{text[len(text) - tail :]}"
