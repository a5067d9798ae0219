"""JSON Patch and JSON Merge Patch."""

import copy
from typing import Any

from e2e.testbed.simulator.errors import StatusError, bad_request


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


def json_patch(document: Any, operations: Any) -> Any:
    """RFC 6902 without `move`. Raises a 400 for an operation that makes no sense, a 422 for one that does not apply."""
    if not isinstance(operations, list):
        raise bad_request("a JSON patch is a list of operations")
    document = copy.deepcopy(document)
    for operation in operations:
        try:
            document = _apply(document, operation)
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise StatusError(
                422, "Invalid", f"the server rejected our request due to an error in our request: {error!r}"
            ) from error
    return document


def _apply(document: Any, operation: dict[str, Any]) -> Any:
    kind, path = operation["op"], operation["path"]
    if path == "":
        return copy.deepcopy(operation["value"]) if kind in ("add", "replace") else document
    *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[1:]]
    target = document
    for part in parents:
        target = target[int(part)] if isinstance(target, list) else target[part]
    key: Any = last if isinstance(target, dict) else len(target) if last == "-" else int(last)
    if kind == "test":
        if target[key] != operation["value"]:
            raise ValueError(f"test failed at {path}")
    elif kind == "remove":
        del target[key]
    elif kind == "add" and isinstance(target, list):
        target.insert(key, copy.deepcopy(operation["value"]))
    elif kind in ("add", "replace"):
        if kind == "replace":
            _ = target[key]
        target[key] = copy.deepcopy(operation["value"])
    elif kind == "copy":
        source = document
        for part in operation["from"].split("/")[1:]:
            source = source[int(part)] if isinstance(source, list) else source[part]
        target[key] = copy.deepcopy(source)
    else:
        raise ValueError(f"unknown operation {kind!r}")
    return document
