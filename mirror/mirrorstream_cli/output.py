"""Printing an answer: for people, or as JSON or YAML for programs. Whatever came from the cluster is made harmless on the way."""

import json
import os
import shutil
import sys
from collections.abc import Iterable
from typing import Any

import yaml
from mirrorstream.text.sanitize import harmless
from mirrorstream.text.terminal import Text, layout

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
