"""Answers of an API server in the form that is expected of them.

What answers may be no API server but a proxy, a sign-in page or something broken: each answer is checked as it is decoded, so that
the client tells of one that cannot be read in a line, as of a server that cannot be reached.
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
