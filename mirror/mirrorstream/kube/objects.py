"""What API servers send of objects: their identities, pages of lists, events of watches, and versions that can be compared."""

from typing import Any

import msgspec

Key = tuple[str, str]
"""Namespace (empty for cluster-wide objects) and name."""


class Meta(msgspec.Struct, rename="camel"):
    """What tells an object, and its version, from others."""

    name: str = ""
    namespace: str = ""
    resource_version: str = ""


class Identity(msgspec.Struct):
    """An object, of which nothing but that is read."""

    metadata: Meta = msgspec.field(default_factory=Meta)


class ListMeta(msgspec.Struct, rename="camel"):
    """The version of a list, and the token of its next page."""

    resource_version: str = ""
    continue_: str = msgspec.field(name="continue", default="")


class Page(msgspec.Struct):
    """A page of a list, with its objects as they came."""

    metadata: ListMeta = msgspec.field(default_factory=ListMeta)
    items: list[msgspec.Raw] | None = None


class WatchEvent(msgspec.Struct):
    """An event of a watch, with its object as it came."""

    type: str
    object: msgspec.Raw


class StatusObject(msgspec.Struct):
    """The Status in an ERROR event."""

    code: int = 0
    reason: str = ""
    message: str = ""


PAGE = msgspec.json.Decoder(Page)
IDENTITY = msgspec.json.Decoder(Identity)
EVENT = msgspec.json.Decoder(WatchEvent)
STATUS = msgspec.json.Decoder(StatusObject)


class Expired(Exception):  # noqa: N818  internal control flow
    """The resourceVersion is no longer served: only a new list helps."""

    event = "the watch is too far behind, listing again"


class TooLarge(Expired):
    """A watch that resumes here would get the same event again."""

    event = "the watch cannot be read, listing again"


class WentBack(Expired):
    """The server is at an older version than what is known: etcd was restored from a backup, say."""

    event = "the API server went back to an older version, listing again"


class Broken(Exception):  # noqa: N818  internal control flow
    """The watch ended in the middle; `version` is the last one seen whole.

    `refused`: the server sent an error, or what cannot be read, and may do so again from there.
    """

    def __init__(self, message: str, version: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.version, self.refused = version, refused


def identity_of(raw: bytes) -> Meta:
    """An object's identity. Raises ValueError, or what decoding raises, for what is no object of a cluster."""
    meta = IDENTITY.decode(raw).metadata
    if not meta.name:
        raise ValueError("it has no name")
    return meta


def watch_error(event: WatchEvent, version: str) -> Exception:
    """What an ERROR event means for a watch that got to `version`."""
    status = STATUS.decode(event.object)
    if status.code == 410 or status.reason in ("Expired", "Gone"):
        return Expired(status.message)
    return Broken(f"the watch ended with an error: {status.message or status.reason}", version, refused=True)


def is_older(version: str, than: str) -> bool:
    """Whether an event is older than what is known, where both versions are numbers (all servers in use have them so)."""
    if not (_is_number(version) and _is_number(than)):
        return False
    # Python's `int` refuses very long ones.
    version, than = version.lstrip("0"), than.lstrip("0")
    return (len(version), version) < (len(than), than)


def may_follow(version: str, before: str) -> bool:
    """Whether a watch may be resumed from `version`, after it got to `before`: no server takes what is no version of its own."""
    return _is_number(version) is _is_number(before) and not is_older(version, before)


def _is_number(version: str) -> bool:
    return version.isascii() and version.isdigit()


def json_objects(raw: bytes) -> dict[str, Any]:
    """A `read` for kinds that are wanted whole."""
    value = msgspec.json.decode(raw)
    if not isinstance(value, dict):
        raise TypeError(f"expected an object, found {type(value).__name__}")
    return value
