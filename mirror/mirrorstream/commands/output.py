"""Printing an answer as JSON or YAML for programs."""

import json
import sys
from typing import Any

import yaml


def print_document(document: Any, output: str) -> None:
    """Print `document` as `json` or `yaml` on stdout."""
    if output == "json":
        json.dump(document, sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        yaml.safe_dump(_plain(document), sys.stdout, sort_keys=False, allow_unicode=True)


def _plain(value: Any) -> Any:
    """`value` without tuples, which YAML would tag."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
