"""YAML that every reader of YAML takes for what it is."""

from typing import Any, TextIO

import yaml

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


def dump(document: Any, file: TextIO) -> None:
    """Write `document` as YAML."""
    every_character = (file.encoding or "").lower().startswith("utf")
    yaml.dump(document, file, _Dumper, sort_keys=False, allow_unicode=every_character)
