"""Objects of an API as structs: null is unset, wherever it is."""

from typing import Any

import msgspec
import pytest
from mirrorstream.text.projection import decoder, project


class Part(msgspec.Struct, frozen=True):
    """A part with defaults."""

    text: str = ""
    number: int = 7


class Whole(msgspec.Struct, frozen=True):
    """An object with such parts."""

    name: str
    part: Part = Part()
    parts: list[Part] | None = None


read = decoder(Whole)


@pytest.mark.parametrize(
    ("document", "found"),
    [
        ({"name": "a", "part": None}, Whole("a")),
        ({"name": "a", "part": {"text": None, "number": None}}, Whole("a")),
        ({"name": "a", "parts": None}, Whole("a")),
        ({"name": "a", "parts": [None, {"number": None, "text": "x"}]}, Whole("a", parts=[Part("x")])),
        ({"name": "a", "other": {"number": None}}, Whole("a")),
    ],
)
def test_null_is_unset(document: dict[str, Any], found: Whole) -> None:
    """As for Go's JSON, which the API server and kubectl read objects with."""
    before = msgspec.json.encode(document)
    assert read(before) == found
    assert project(document, Whole) == found
    assert msgspec.json.encode(document) == before


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"name": None}, "missing required field `name`"),
        ({"name": "a", "part": {"number": "null"}}, r"Expected `int`, got `str` - at `\$.part.number`"),
        ({"name": "a", "part": None, "parts": {}}, r"at `\$.parts`"),
    ],
)
def test_what_is_wrong_is_said(document: dict[str, Any], says: str) -> None:
    """With the place."""
    for make in (lambda: read(msgspec.json.encode(document)), lambda: project(document, Whole)):
        with pytest.raises(msgspec.ValidationError, match=says):
            make()


def test_the_deepest_object_is_refused_as_any_other() -> None:
    """Reading an object survives msgspec's errors."""
    document: dict[str, Any] = {"name": "a", "part": None}
    for _ in range(5000):
        document = {"name": "a", "part": None, "other": document}
    with pytest.raises(msgspec.ValidationError):
        project(document, Whole)
