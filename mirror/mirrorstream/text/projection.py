"""Objects of an API, read into structs that name only the fields that are used."""

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


def decoder(kind: type[T]) -> Callable[[bytes], T]:
    """What reads the JSON of an object as a `kind`, and raises msgspec.MsgspecError if it cannot.

    Make it before any thread: see `Client.request`. A field that is null is unset, as for the API (`encoding/json` of Go). API
    servers leave out what is unset, so nulls are removed only after the object could not be read with them.
    """
    decode = msgspec.json.Decoder(kind).decode

    def read(raw: bytes) -> T:
        try:
            return decode(raw)
        except msgspec.ValidationError:
            if b"null" not in raw:
                raise
            return _without_nulls(msgspec.json.decode(raw), kind)

    return read


def project(document: dict[str, Any], kind: type[T]) -> T:
    """A whole object as a `kind`; null is unset, as for `decoder`. Raises msgspec.ValidationError."""
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError:
        return _without_nulls(document, kind)


def _without_nulls(document: Any, kind: type[T]) -> T:
    try:
        left = _pruned(document)
    except RecursionError as error:
        raise msgspec.ValidationError("nested too deeply") from error
    return msgspec.convert(left, kind)


def _pruned(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _pruned(item) for key, item in value.items() if item is not None}
    return [_pruned(item) for item in value if item is not None] if isinstance(value, list) else value
