"""A reconciler with streams, a platform and imports that tests decide about."""

import copy
from collections.abc import Callable
from typing import Any

from mirrorstream.imagestream.model import ImageStream, imagestream_from
from mirrorstream.imagestream.outcomes import OUTCOME_ANNOTATION, read_attempts
from mirrorstream.kube.client import ApiError
from mirrorstream.kube.informer import Change
from mirrorstream.kube.objects import Key
from mirrorstream.kube.workqueue import WorkQueue
from mirrorstream.rules.policy import MirrorPolicy
from mirrorstream.runtime.settings import Settings
from mirrorstream_controller.failing_tags import FailingState
from mirrorstream_controller.metrics import ControllerMetrics
from mirrorstream_controller.reconciler import Reconciler

from tests.controller.builders import NOW, POLICY, Object, failure, item, stream

KEY = ("ns", "app")


NO_RULES = MirrorPolicy.from_objects([])


WELL = imagestream_from(stream({"items": [item()]}))


EMPTY = imagestream_from(stream())


FAILED = imagestream_from(stream({"conditions": [failure()]}))


class Streams:
    """An informer of streams; `get` answers what there is, then calls `after_get`, once."""

    def __init__(self) -> None:
        self.known: dict[Key, ImageStream] = {}
        self.after_get: Callable[[], None] | None = None

    def get(self, key: Key) -> ImageStream | None:
        """The stream as it is now."""
        found = self.known.get(key)
        if self.after_get:
            after_get, self.after_get = self.after_get, None
            after_get()
        return found

    def all_keys(self) -> list[Key]:
        """Every stream's."""
        return list(self.known)


class Platform:
    """An API server whose importer finds `digest` in every mirror, or nothing if that is empty; Images are the platform's own."""

    def __init__(self) -> None:
        self.digest = ""
        self.asked: list[str] = []
        self.busy: float | None = None
        """What Retry-After says, while it answers 429."""

    def request(self, method: str, path: str, *, body: Any = None, **more: Any) -> Any:
        """A dry run."""
        assert (method, path) == ("POST", "/apis/image.openshift.io/v1/namespaces/ns/imagestreamimports")
        names = [image["from"]["name"] for image in body["spec"]["images"]]
        self.asked.extend(names)
        if self.busy is not None:
            raise ApiError(429, "TooManyRequests", "", retry_after=self.busy)
        more["answered"](0.0)
        if not self.digest:
            return {
                "status": {"images": [{"status": {"status": "Failure", "reason": "NotFound", "message": "not found"}}] * len(names)}
            }
        return {
            "status": {"images": [{"status": {"status": "Success"}, "image": {"metadata": {"name": self.digest}}}] * len(names)}
        }

    def get(self, path: str) -> Any:
        """An Image that mirrorstream did not make."""
        return {"metadata": {"name": path}}


class Pool:
    """Runs imports when it is told to."""

    def __init__(self) -> None:
        self.imports: list[Callable[[], None]] = []
        self.priority: list[bool] = []
        self.raised: list[object] = []

    def submit(self, namespace: str, host: str, work: Callable[[], None], **more: Any) -> None:
        """Take one."""
        self.imports.append(work)
        self.priority.append(more["priority"])

    def raise_priority(self, name: object) -> None:
        """Remember what came before others."""
        self.raised.append(name)

    def resize(self, size: int) -> None:
        """Nothing to do."""

    def run(self) -> int:
        """Run what was asked for; how many that were."""
        done = 0
        while self.imports:
            self.imports.pop(0)()
            done += 1
        return done


class Bed:
    """A reconciler with a queue on a clock that stands still until it is moved."""

    def __init__(self, platform: Any = None, **settings: Any) -> None:
        self.time = 1000.0
        self.set_by = 0.0
        """By how many seconds the machine's clock was put forward since the start."""
        self.platform, self.pool = platform or Platform(), Pool()
        self.told = 0
        """How many Events were written."""
        self.events: list[tuple[str, str, Any]] = []
        """What they tell of each tag."""
        self.queue = WorkQueue(clock=lambda: self.time)
        self.streams = Streams()
        fakes: list[Any] = [self.platform, self.queue, self.pool, self, ControllerMetrics(), Settings.model_validate(settings)]

        def now() -> float:
            return NOW + self.time - 1000

        self.reconciler = Reconciler(*fakes, now=now, clock=lambda: self.time, wall=lambda: now() + self.set_by)
        streams: Any = self.streams
        self.reconciler.streams = streams

    def event(self, involved: Any, event_type: str, reason: str, message: str, annotations: Any) -> None:
        """Take an Event as the recorder does."""
        self.told += 1
        self.events += [(reason, message, attempt) for attempt in read_attempts(dict(annotations)[OUTCOME_ANNOTATION])]

    def see(self, key: Key, new: ImageStream | None) -> None:
        """Have the watch bring a stream."""
        old = self.streams.known.pop(key, None)
        if new:
            self.streams.known[key] = new
        self.reconciler.on_stream(Change(key, old, new))

    def waiting(self) -> list[Key]:
        """Take what waits for a worker now; it is given back at once."""
        found = []
        while key := self.queue.get(timeout=0):
            found.append(key)
            self.queue.done(key)
        return found

    def work(self) -> list[Key]:
        """Look at what waits, as a worker does; what was looked at."""
        found = []
        while key := self.queue.get(timeout=0):
            found.append(key)
            self.reconciler.reconcile(key)
            self.queue.done(key)
        return found

    def settle(self) -> int:
        """Look, import and look again until nothing is left to do now; how many imports that took."""
        imports = 0
        while self.work() or self.pool.imports:
            imports += self.pool.run()
        return imports

    def counts(self) -> dict[FailingState, int]:
        """What fails, as the metric says it."""
        return {state: count for state, count in self.reconciler.failing.counts().items() if count}


EXCLUDING: Object = {"namespaces": {"exclude": ["not-*"]}}


def held(generation: int = 2) -> ImageStream:
    """A tag that the platform imported, and that fails now."""
    failed = failure(generation, f"port {generation}", lastTransitionTime="2027-01-15T08:00:00Z")
    return imagestream_from(stream({"items": [item(1)], "conditions": [failed]}, {"generation": generation}))


def asked(stamp: str, *, was_imported: bool = False) -> ImageStream:
    """A failing tag whose stream has the retry annotation."""
    status: Object = {"conditions": [failure(2)], **({"items": [item(1)]} if was_imported else {})}
    return imagestream_from(stream(status, {"generation": 2}, annotations={"mirrorstream.github.io/retry": stamp}))


class Storing(Platform):
    """An API server that takes Images and has the stream, and keeps what is written into it."""

    def __init__(self, document: Object) -> None:
        super().__init__()
        self.digest, self.document, self.written = "sha256:aa", document, []

    written: list[Object]

    def request(self, method: str, path: str, *, body: Any = None, **more: Any) -> Any:
        """A dry run, an Image, or a write."""
        if method == "PUT":
            self.written.append(body)
            return body
        return body if path.endswith("/images") else super().request(method, path, body=body, **more)

    def get(self, path: str) -> Any:
        """The stream."""
        return copy.deepcopy(self.document)


def storing(bed: Bed, document: Object) -> Storing:
    """Give a bed an API server that has this stream, and look at it by the rules."""
    platform = Storing(document)
    bed.platform = platform
    recorder: Any = platform
    bed.reconciler._writer._client = recorder
    bed.reconciler._worker._importer._client = recorder
    bed.reconciler._worker._images._client = recorder
    bed.reconciler.on_policy(POLICY)
    return platform
