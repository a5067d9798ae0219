"""Printing an answer: for people, or as JSON or YAML for programs. Whatever came from the cluster is made harmless on the way."""

import json
import os
import shutil
import sys
from collections.abc import Iterable
from typing import Any, Self

import yaml
from mirrorstream.text.sanitize import harmless
from mirrorstream.text.terminal import Text, layout, period

_WORDS = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})


class _Dumper(yaml.SafeDumper):
    """Quotes every text that any reader of YAML could take for something else.

    PyYAML quotes what it would misread itself, by YAML 1.1. For readers of YAML 1.2, as Go's (oc, yq, oc-mirror), `1e3` and `0o17`
    are numbers as well. No version of YAML has a number or a date that begins with a letter.
    """

    def represent_text(self, text: str) -> yaml.ScalarNode:
        """A text, plain only if it is safe."""
        plain = text[:1].isalpha() and text.lower() not in _WORDS
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else "'")


_Dumper.add_representer(str, _Dumper.represent_text)


def print_document(document: Any, output: str) -> None:
    """Print `document` as `json` or `yaml` on stdout."""
    plain = harmless(document)
    if output == "json":
        json.dump(plain, sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        every_character = (sys.stdout.encoding or "").lower().startswith("utf")
        yaml.dump(plain, sys.stdout, _Dumper, sort_keys=False, allow_unicode=every_character)


def terminal_width() -> int | None:
    """The columns of the terminal that stdout is; None if it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def print_lines(lines: Iterable[Text]) -> None:
    """Print text on stdout: on a terminal in colour, unless NO_COLOR is set, and at most as wide; otherwise plain and unbroken."""
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    sys.stdout.write(layout(lines, width=terminal_width(), colour=colour))


def say_waiting(seconds: float, what: str) -> None:
    """Tell a user at a terminal that nothing happens for a while, and why."""
    if seconds and sys.stderr.isatty():
        print(f"Waiting for {what}, for at most {period(seconds)} …", file=sys.stderr)  # noqa: T201


class Progress:
    """How far something is, on one line of stderr that is rewritten and removed in the end; only for a user at a terminal."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total = what, total
        self._shown = sys.stderr.isatty()

    def __enter__(self) -> Self:
        self.show(0)
        return self

    def show(self, count: int) -> None:
        """`count` of the total are done."""
        self._write(f"{self._what}: {count} of {self._total} …")

    def __exit__(self, *_: object) -> None:
        self._write("")

    def _write(self, text: str) -> None:
        if self._shown:
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()
