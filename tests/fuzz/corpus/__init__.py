"""Inputs that once broke something; README.md says what."""

from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


def cases(kind: str) -> list[Any]:
    """The texts of one folder, by their files' names."""
    return [pytest.param(raw.decode(), id=name) for name, raw in _files(kind)]


def raw_cases(kind: str) -> list[Any]:
    """The same as bytes."""
    return [pytest.param(raw, id=name) for name, raw in _files(kind)]


def _files(kind: str) -> list[tuple[str, bytes]]:
    return [(path.stem, path.read_bytes()) for path in sorted((HERE / kind).iterdir())]
