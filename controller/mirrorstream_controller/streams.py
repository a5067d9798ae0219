"""The streams of the cluster as the controller keeps them: each as JSON, of the fields that decisions need.

A cluster can have 100,000 streams, and few of them change in a second. As structs a stream of five tags takes 6 kB, most of it for
the headers of many small objects; as JSON it takes less than half of that, and is decoded again when it is needed.
"""

from collections.abc import Callable

import msgspec
from mirrorstream.imagestream.model import ImageStream, StatusTag, decode_imagestream
from mirrorstream.kube.client import Client
from mirrorstream.kube.informer import Change, Informer
from mirrorstream.kube.objects import Key

STREAMS = "/apis/image.openshift.io/v1/imagestreams"
_encode = msgspec.json.Encoder().encode


class Streams:
    """An informer of all streams; `on_change` is told of each difference, from its thread."""

    def __init__(self, client: Client, on_change: Callable[[Change[ImageStream]], None]) -> None:
        self.informer = Informer(client, STREAMS, pack, self._changed, name="imagestreams.image.openshift.io")
        self._on_change = on_change

    def get(self, key: Key) -> ImageStream | None:
        """The stream, or None; of each tag's history it has the newest item only."""
        return _unpack(self.informer.get(key))

    def all_keys(self) -> list[Key]:
        """The keys of all streams as they are now."""
        return self.informer.all_keys()

    def _changed(self, change: Change[bytes]) -> None:
        self._on_change(Change(change.key, _unpack(change.old), _unpack(change.new)))


def pack(raw: bytes) -> bytes:
    """What is kept of a stream's JSON. Raises msgspec.MsgspecError if it is no stream."""
    stream = decode_imagestream(raw)
    tags = stream.status.tags
    if tags and any(tag.items and len(tag.items) > 1 for tag in tags):
        status = msgspec.structs.replace(stream.status, tags=[_without_history(tag) for tag in tags])
        stream = msgspec.structs.replace(stream, status=status)
    # A copy: msgspec's own buffer is up to half as large again.
    return bytes(memoryview(_encode(stream)))


def _without_history(tag: StatusTag) -> StatusTag:
    return msgspec.structs.replace(tag, items=tag.items and tag.items[:1])


def _unpack(kept: bytes | None) -> ImageStream | None:
    return None if kept is None else decode_imagestream(kept)
