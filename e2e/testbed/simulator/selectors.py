"""Label and field selectors, as lists and watches take them."""

import re
from collections.abc import Callable
from typing import Any

from e2e.testbed.simulator.errors import bad_request

Object = dict[str, Any]
Matcher = Callable[[Object], bool]

_SET = re.compile(r"\s*([\w./-]+)\s+(in|notin)\s+\(([^)]*)\)\s*")
_EQUAL = re.compile(r"\s*([\w./-]+)\s*(==|!=|=)\s*([\w./:-]*)\s*")
_EXISTS = re.compile(r"\s*(!?)\s*([\w./-]+)\s*")


def matcher(label_selector: str, field_selector: str) -> Matcher:
    """Whether an object is selected. Raises a 400 for a selector that cannot be read."""
    requirements = [_label(part) for part in re.split(r",(?![^(]*\))", label_selector) if part.strip()]
    requirements += [_field(part) for part in field_selector.split(",") if part.strip()]
    return lambda item: all(requirement(item) for requirement in requirements)


def _labels(item: Object) -> dict[str, str]:
    return item["metadata"].get("labels") or {}


def _label(text: str) -> Matcher:
    if match := _SET.fullmatch(text):
        key, operator, listed = match.groups()
        values = {value.strip() for value in listed.split(",")}
        if operator == "in":
            return lambda item: _labels(item).get(key) in values
        return lambda item: _labels(item).get(key) not in values
    if match := _EQUAL.fullmatch(text):
        key, operator, value = match.groups()
        if operator == "!=":
            return lambda item: _labels(item).get(key) != value
        return lambda item: _labels(item).get(key) == value
    if match := _EXISTS.fullmatch(text):
        absent, key = match.groups()
        return lambda item: (key in _labels(item)) != bool(absent)
    raise bad_request(f"unable to parse requirement: {text!r}")


def _field(text: str) -> Matcher:
    match = _EQUAL.fullmatch(text)
    if not match:
        raise bad_request(f"invalid selector: {text!r}")
    path, operator, value = match.groups()

    def matches(item: Object) -> bool:
        found: Any = item
        for part in path.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        return (str(found or "") == value) != (operator == "!=")

    return matches
