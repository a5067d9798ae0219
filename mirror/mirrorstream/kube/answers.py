"""Answers of an API server in the form that is expected of them.

The server may be a proxy or a sign-in page, not an API server. Each answer is checked as it is decoded, so that one that cannot be
read is an error with one clear line, as a server that cannot be reached is.
"""

from typing import Any

import msgspec

UNREADABLE = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)
"""What decoding JSON raises; where msgspec skips a value it does not look whether its text is UTF-8."""

# Made before any thread: see `Client.request`.
_decode = msgspec.json.Decoder(dict[str, Any]).decode


def decode_answer(data: bytes) -> dict[str, Any]:
    """The JSON object that each answer of an API server is. Raises msgspec.MsgspecError, also for an empty answer."""
    return _decode(data)


def decode_object(data: bytes) -> dict[str, Any]:
    """An object of a list or by itself, with its metadata. Raises msgspec.MsgspecError."""
    found = _decode(data)
    if not isinstance(found.get("metadata"), dict):
        raise msgspec.ValidationError("Expected `object` - at `$.metadata`")
    return found
