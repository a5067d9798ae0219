"""Printing an answer: for people, or as JSON or YAML for programs. Whatever came from the cluster is made harmless on the way."""

import json
import os
import shutil
import sys
from collections.abc import Iterable
from typing import Any

import yaml

from mirrorstream.safetext import harmless
from mirrorstream.screen import Line, layout, period


def print_document(document: Any, output: str) -> None:
    """Print `document` as `json` or `yaml` on stdout."""
    plain = harmless(document)
    if output == "json":
        json.dump(plain, sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        every_character = (sys.stdout.encoding or "").lower().startswith("utf")
        yaml.safe_dump(plain, sys.stdout, sort_keys=False, allow_unicode=every_character)


def print_lines(lines: Iterable[Line]) -> None:
    """Print text on stdout: on a terminal in colour, unless NO_COLOR is set, and at most as wide; otherwise plain and unbroken."""
    terminal = sys.stdout.isatty()
    colour = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    sys.stdout.write(layout(lines, width=shutil.get_terminal_size().columns if terminal else None, colour=colour))


def say_waiting(seconds: float, what: str) -> None:
    """Tell whoever sits at a terminal that nothing happens for a while, and why."""
    if seconds and sys.stderr.isatty():
        print(f"Waiting for {what}, for at most {period(seconds)} …", file=sys.stderr)  # noqa: T201
