"""Sees each tag's failure and its heal as a watch brings them."""

import threading
import time

import msgspec
from mirrorstream.imagestreams import ImageStream
from mirrorstream.kube.client import ApiUnreachable, Client

STREAMS = "/apis/image.openshift.io/v1/imagestreams"


class Watcher:
    """Follows every stream from now on; `failed` and `healed` say when each `stream:tag` was first seen so."""

    def __init__(self, client: Client) -> None:
        self.failed: dict[str, float] = {}
        self.healed: dict[str, float] = {}
        self._decode = msgspec.json.Decoder(msgspec.defstruct("Event", [("type", str), ("object", ImageStream)])).decode
        version = client.get(STREAMS)["metadata"]["resourceVersion"]
        self._watch = client.watch(STREAMS, {"watch": "1", "resourceVersion": version}, read_timeout=300)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for line in self._watch:
                self._see(self._decode(line).object, time.monotonic())  # type: ignore[attr-defined]
        except ApiUnreachable:
            return

    def _see(self, stream: ImageStream, now: float) -> None:
        for tag in stream.status.tags or ():
            name = f"{stream.metadata.name}:{tag.tag}"
            if tag.failure:
                self.failed.setdefault(name, now)
            elif tag.items:
                self.healed.setdefault(name, now)

    def stop(self) -> None:
        """End the watch."""
        self._watch.close()
        self._thread.join(5)
