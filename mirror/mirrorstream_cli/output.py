"""Printing an answer: for people, or as JSON or YAML for programs. Whatever came from the cluster is made harmless on the way."""

import os
import sys
from collections.abc import Iterable
from typing import Any

from mirrorstream.text.sanitize import harmless
from mirrorstream.text.terminal import Text, layout


def print_document(document: Any, output: str) -> None:
    """Print `document` as `json` or `yaml` on stdout."""
    plain = harmless(document)
    if output == "json":
        import json  # noqa: PLC0415  most answers are text

        json.dump(plain, sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        from mirrorstream_cli.yaml_output import dump  # noqa: PLC0415  most answers are text

        dump(plain, sys.stdout)


def terminal_width() -> int | None:
    """The columns of the terminal that stdout is; None if it is none."""
    if not sys.stdout.isatty():
        return None
    import shutil  # noqa: PLC0415  what a pipe reads needs none

    return shutil.get_terminal_size().columns


def print_lines(lines: Iterable[Text]) -> None:
    """Print text on stdout: on a terminal in colour, unless NO_COLOR is set, and at most as wide; otherwise plain and unbroken."""
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    sys.stdout.write(layout(lines, width=terminal_width(), colour=colour))
