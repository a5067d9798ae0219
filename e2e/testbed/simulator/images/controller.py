"""The platform's import controller: posts an import for every stream that has something to import, once, and on schedule."""

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from e2e.testbed.simulator.errors import StatusError
from e2e.testbed.simulator.images.imports import CHECK, Imports
from e2e.testbed.simulator.images.streams import INSECURE_ANNOTATION, STREAMS, importable, status_tags
from e2e.testbed.simulator.resources import Context
from e2e.testbed.simulator.settings import Settings
from e2e.testbed.simulator.store import Event, Store

Object = dict[str, Any]
Key = tuple[str, str]
RETRY_SECONDS = (0.05, 10.0)


class ImportController:
    """Watches streams in the store and imports them on a few threads."""

    def __init__(self, store: Store, imports: Imports, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._scheduling = threading.Lock()
        self._store, self._imports, self._settings = store, imports, settings
        self._queue: queue.Queue[Key | None] = queue.Queue()
        self._lock = threading.Lock()
        self._waiting: set[Key] = set()
        self._running: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._scheduled: dict[Key, float] = {}
        self._hanging: set[str] = set()
        self._stopped = threading.Event()
        self._going = threading.Event()
        self._going.set()
        self._threads: list[threading.Thread] = []

    def control(self, body: Any) -> Object:
        """Control imports: `{"paused": bool}`, and `{"hang": {host: bool, …}}` for hosts whose imports never leave a condition."""
        body = body or {}
        if "paused" in body:
            self._going.clear() if body["paused"] else self._going.set()
        if "hang" in body:
            hanging = {**dict.fromkeys(self._hanging, True), **body["hang"]}
            self._hanging = {host for host, hangs in hanging.items() if hangs}
            if not all(body["hang"].values()):
                for item in self._store.list(STREAMS)[1]:
                    self._add(_key(item))
        return {"paused": not self._going.is_set(), "hang": sorted(self._hanging)}

    def start(self) -> None:
        """Run, in threads."""
        targets = [self._watch, self._schedule, *[self._work] * self._settings.importer.workers]
        self._threads = [threading.Thread(target=target, name=f"platform-{n}", daemon=True) for n, target in enumerate(targets)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End all threads."""
        self._stopped.set()
        self._going.set()
        self._store.drop_watches()
        for _ in range(self._settings.importer.workers):
            self._queue.put(None)
        for thread in self._threads:
            thread.join(timeout=2)

    def _watch(self) -> None:
        while not self._stopped.is_set():
            subscription = self._store.subscribe(STREAMS, None)
            while (event := subscription.events.get()) is not None:
                self._note(event)
                if event.type != "DELETED":
                    self._add(_key(event.object))
            self._store.unsubscribe(subscription)

    def _note(self, event: Event) -> None:
        """Remember which streams are imported on schedule: looking through all of them would take a large cluster's time."""
        key = _key(event.object)
        with self._lock:
            if event.type != "DELETED" and _is_scheduled(event.object):
                self._scheduled.setdefault(key, self._clock() + self._settings.scheduled_interval)
            else:
                self._scheduled.pop(key, None)

    def _add(self, key: Key) -> None:
        with self._lock:
            if key not in self._waiting:
                self._waiting.add(key)
                if key not in self._running:
                    self._queue.put(key)

    def _work(self) -> None:
        while (key := self._queue.get()) is not None:
            self._going.wait()
            with self._lock:
                self._waiting.discard(key)
                self._running.add(key)
            try:
                self._sync(key, scheduled=False)
                self._failures.pop(key, None)
            except StatusError as error:
                if error.code != 404:
                    self._later(key)
            finally:
                with self._lock:
                    self._running.discard(key)
                    if key in self._waiting:
                        self._queue.put(key)

    def _later(self, key: Key) -> None:
        """Try again after a back-off: what failed was the request, not an import."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay = min(RETRY_SECONDS[1], RETRY_SECONDS[0] * 2 ** min(failures, 10))
        timer = threading.Timer(delay, self._add, [key])
        timer.daemon = True
        timer.start()

    def _sync(self, key: Key, *, scheduled: bool) -> None:
        """Import what a stream needs, if anything. Raises StatusError."""
        stream = self._store.get(STREAMS, *key)
        request = _request(stream, scheduled=scheduled)
        if request is None or self._hangs(request):
            return
        self._imports.create(Context(self._store, key[0]), "", request)

    def _hangs(self, request: Object) -> bool:
        """Whether the request would be cut off before its end at every attempt."""
        if not self._hanging:
            return False
        names = [image["from"]["name"] for image in request["spec"].get("images") or []]
        if "repository" in request["spec"]:
            names.append(request["spec"]["repository"]["from"]["name"])
        return any(name.partition("/")[0] in self._hanging for name in names)

    def idle(self) -> bool:
        """Whether nothing waits to be looked at, or is being imported."""
        with self._lock:
            return not (self._waiting or self._running)

    def _schedule(self) -> None:
        while not self._stopped.wait(min(0.2, self._settings.scheduled_interval / 10)):
            self.run_schedule()

    def run_schedule(self) -> None:
        """Import the scheduled tags that are due: each stream once in every interval."""
        interval = self._settings.scheduled_interval
        with self._scheduling:
            now = self._clock()
            with self._lock:
                due = [key for key, at in self._scheduled.items() if now >= at]
                self._scheduled.update(dict.fromkeys(due, now + interval))
            for key in due:
                if self._going.is_set():
                    try:
                        self._sync(key, scheduled=True)
                    except StatusError:
                        self._add(key)


def _key(item: Object) -> Key:
    return item["metadata"]["namespace"], item["metadata"]["name"]


def _is_scheduled(stream: Object) -> bool:
    return any(_on_schedule(stream, tag) for tag in stream["spec"].get("tags") or [])


def _on_schedule(stream: Object, tag: Object) -> bool:
    """Whether a turn of the schedule imports the tag: one by digest only until it was imported."""
    if not importable(tag) or not tag["importPolicy"].get("scheduled"):
        return False
    newest = (status_tags(stream).get(tag["name"], {}).get("items") or [{}])[0]
    return "@" not in tag["from"]["name"] or newest.get("generation") != tag.get("generation")


def _observed(stream: Object, tag: str) -> int:
    entry = status_tags(stream).get(tag, {})
    newest = (entry.get("items") or [{}])[0].get("generation") or 0
    condition: Object = next((c for c in entry.get("conditions") or [] if c["type"] == "ImportSuccess"), {})
    return max(newest, condition.get("generation") or 0)


def _request(stream: Object, *, scheduled: bool) -> Object | None:
    """The import that the platform would post for a stream, None if there is nothing to import."""
    metadata, spec = stream["metadata"], stream["spec"]
    annotations = metadata.get("annotations") or {}
    repository = spec.get("dockerImageRepository")
    tags = [tag for tag in spec.get("tags") or [] if importable(tag)]
    whole = bool(repository) and CHECK not in annotations

    def is_wanted(tag: Object) -> bool:
        pending = (tag.get("generation") or 0) > _observed(stream, tag["name"])
        return whole or pending or (scheduled and _on_schedule(stream, tag))

    wanted = [tag for tag in tags if is_wanted(tag)]
    if not wanted and not whole:
        return None
    request: Object = {"import": True}
    if wanted:
        request["images"] = [
            {
                "from": {"kind": "DockerImage", "name": tag["from"]["name"]},
                "to": {"name": tag["name"]},
                "importPolicy": dict(tag["importPolicy"]),
                "referencePolicy": dict(tag["referencePolicy"]),
            }
            for tag in wanted
        ]
    if whole:
        insecure = annotations.get(INSECURE_ANNOTATION) == "true"
        request["repository"] = {"from": {"kind": "DockerImage", "name": repository}, "importPolicy": {"insecure": insecure}}
    identity = {key: metadata[key] for key in ("name", "resourceVersion", "uid")}
    return {"metadata": identity, "spec": request}
