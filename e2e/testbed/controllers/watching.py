"""Following a collection of a cluster, quietly: what the test bed's own controllers act on."""

import threading
from collections.abc import Callable
from typing import Any

import msgspec
from mirrorstream.kube.client import Client, ClientError, Watch

Object = dict[str, Any]
OnEvent = Callable[[str, Object], None]
"""Called with ADDED, MODIFIED or DELETED and the object; after an interruption with ADDED for every object that there is."""
RETRY_SECONDS = 0.2
WATCH_SECONDS = 600


class Watcher:
    """A thread that lists `path` and watches it, again and again: API servers of the test bed go and come back."""

    def __init__(self, client: Client, path: str, on_event: OnEvent) -> None:
        self._client, self._path, self._on_event = client, path, on_event
        self._stopped = threading.Event()
        self._watch: Watch | None = None
        self._thread = threading.Thread(target=self._run, name=f"watch {path}", daemon=True)
        self.listed = threading.Event()
        """Set once the collection has been read."""

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, also while it waits for an event."""
        self._stopped.set()
        if self._watch:
            self._watch.close()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._follow(self._list())
            except ClientError:
                self._stopped.wait(RETRY_SECONDS)

    def _list(self) -> str:
        found = self._client.get(self._path)
        for item in found.get("items") or []:
            self._on_event("ADDED", item)
        self.listed.set()
        return str(found["metadata"]["resourceVersion"])

    def _follow(self, version: str) -> None:
        """Tell of events until the watch ends."""
        params = {"watch": "1", "resourceVersion": version, "timeoutSeconds": str(WATCH_SECONDS)}
        self._watch = watch = self._client.watch(self._path, params, read_timeout=WATCH_SECONDS + 30)
        if self._stopped.is_set():
            watch.close()
        for line in watch:
            event = msgspec.json.decode(line)
            if event["type"] not in ("ADDED", "MODIFIED", "DELETED"):
                return
            self._on_event(event["type"], event["object"])
