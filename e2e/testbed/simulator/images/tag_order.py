"""In which order the platform takes the tags of a whole repository: it imports only the first of them."""

import re
from typing import Any

Version = tuple[Any, ...]
_NUMBER, _WORD = r"(?:0|[1-9]\d*)", r"[0-9A-Za-z-]+"
_VERSION = re.compile(rf"({_NUMBER})\.({_NUMBER})\.({_NUMBER})(?:-({_WORD}(?:\.{_WORD})*))?")
_MINOR = re.compile(r"(\d+\.\d+)(-\w+)?", re.ASCII)


def prioritized(tags: list[str]) -> list[str]:
    """`latest`, then versions of two numbers, then those of three, the newest first, then all others by name."""
    minor: list[tuple[Version, str]] = []
    full: list[tuple[Version, str]] = []
    others: list[str] = []
    for tag in sorted(set(tags) - {"latest"}, key=lambda tag: (tag.startswith("v"), tag)):
        short = tag.removeprefix("v")
        two = _MINOR.fullmatch(short)
        if version := _version(short):
            full.append((version, tag))
        elif two and (version := _version(f"{two[1]}.0{two[2] or ''}")):
            minor.append((version, tag))
        else:
            others.append(tag)
    latest = ["latest"] if "latest" in tags else []
    # Of equal versions the one without `v` comes first, as it was sorted.
    versions = [tag for found in (minor, full) for _, tag in sorted(found, key=lambda entry: entry[0], reverse=True)]
    return [*latest, *versions, *sorted(others)]


def _version(text: str) -> Version | None:
    """What a semantic version is compared by, None if it is none."""
    found = _VERSION.fullmatch(text)
    if not found:
        return None
    words = found[4].split(".") if found[4] else []
    if any(word.isdigit() and word != str(int(word)) for word in words):
        return None
    # A version without further words is newer than one with, and a number is older than a word.
    rest = [(0, int(word), "") if word.isdigit() else (1, 0, word) for word in words]
    return (int(found[1]), int(found[2]), int(found[3]), not words, rest)
