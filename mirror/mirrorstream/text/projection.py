"""Objects of an API, read into structs that name only the fields that are used."""

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


def decoder(kind: type[T], *, places: bool = False) -> Callable[[bytes | msgspec.Raw], T]:
    """What reads the JSON of an object as a `kind`, and raises msgspec.MsgspecError if it cannot.

    Make it before any thread: see `Client.request`. A field that is null is unset, as for the API (`encoding/json` of Go). API
    servers leave out what is unset, so nulls are removed only after the object could not be read with them. With `places`, nulls
    in lists stay, for callers that count positions.
    """
    decode = msgspec.json.Decoder(kind).decode

    def read(raw: bytes | msgspec.Raw) -> T:
        try:
            return decode(raw)
        except msgspec.ValidationError:
            if b"null" not in bytes(raw):
                raise
            # Encoded again, since a Raw is made of nothing else.
            return decode(msgspec.json.encode(_without_nulls(msgspec.json.decode(raw), places=places)))

    return read


def project(document: dict[str, Any], kind: type[T]) -> T:
    """A whole object as a `kind`; null is unset, as for `decoder`. Raises msgspec.ValidationError."""
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError:
        return msgspec.convert(_without_nulls(document), kind)


def _without_nulls(document: Any, *, places: bool = False) -> Any:
    try:
        return _pruned(document, places=places)
    except RecursionError as error:
        raise msgspec.ValidationError("nested too deeply") from error


def _pruned(value: Any, *, places: bool) -> Any:
    if isinstance(value, dict):
        return {key: _pruned(item, places=places) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_pruned(item, places=places) for item in value if places or item is not None]
    return value
