"""A simulated cluster in which nothing happens by itself: importer, watch, workers and clock move when they are told to.

The API server, its storage and the registries are the simulator's; the controller is the real Reconciler with its real queue, on
injected clocks and without threads.
"""

import datetime
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mirrorstream.imagestream.model import ImageStream, decode_imagestream
from mirrorstream.imagestream.outcomes import OUTCOME_ANNOTATION, read_attempts
from mirrorstream.kube.client import ApiError, Client, load_client
from mirrorstream.kube.informer import Change
from mirrorstream.kube.objects import Key
from mirrorstream.kube.workqueue import WorkQueue
from mirrorstream.rules.policy import MirrorPolicy
from mirrorstream.runtime.settings import Settings
from mirrorstream_controller.metrics import ControllerMetrics
from mirrorstream_controller.plan import Fingerprint
from mirrorstream_controller.reconciler import Reconciler
from mirrorstream_controller.stream_state import Phase, TagState

from e2e.testbed.registries.registry import Failure, Registry
from e2e.testbed.simulator.errors import StatusError
from e2e.testbed.simulator.images import imports
from e2e.testbed.simulator.settings import Settings as ClusterSettings
from e2e.testbed.simulator.simulator import Simulator

Object = dict[str, Any]
IMAGES = "/apis/image.openshift.io/v1"
CONFIG = "/apis/config.openshift.io/v1"
START = 1_800_000_000.0
RULE_KINDS = {"imagedigestmirrorsets": "ImageDigestMirrorSet", "imagetagmirrorsets": "ImageTagMirrorSet", "images": "Image"}


class ManualStreams:
    """The informer: what the last delivery of the watch brought."""

    def __init__(self) -> None:
        self.known: dict[Key, tuple[str, ImageStream]] = {}

    def get(self, key: Key) -> ImageStream | None:
        """The stream as last seen."""
        found = self.known.get(key)
        return found[1] if found else None

    def all_keys(self) -> list[Key]:
        """Every stream's."""
        return list(self.known)


class ManualPool:
    """Imports that run one at a time, when they are told to."""

    def __init__(self) -> None:
        self.jobs: list[Callable[[], None]] = []

    def submit(self, namespace: str, host: str, job: Callable[[], None], **more: Any) -> None:
        """Take one."""
        self.jobs.append(job)

    def raise_priority(self, name: object) -> None:
        """They run in the order that the test wants."""

    def resize(self, concurrency: int) -> None:
        """Nothing to do."""


class CountingClient:
    """The controller's client; it counts what the controller writes."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.writes: Counter[str] = Counter()

    def request(self, method: str, path: str, **more: Any) -> Any:
        """Pass a request on."""
        if method not in ("GET", "POST"):
            self.writes[path] += 1
        return self._client.request(method, path, **more)

    def get(self, path: str, **more: Any) -> Any:
        """Pass a request on."""
        return self._client.get(path, **more)


class Cluster:
    """Everything that examples share: starting it costs more than most of them."""

    def __init__(self, folder: Path) -> None:
        self.source, self.mirror = Registry(), Registry()
        insecure = {"registrySources": {"insecureRegistries": [self.source.host, self.mirror.host]}}
        self.simulator = Simulator(ClusterSettings(image_config=insecure))
        self.client = load_client(str(self.simulator.write_kubeconfig(folder / "kubeconfig")), in_cluster=False, user_agent="test")
        self.examples = 0
        self.told: Counter[str] = Counter()
        """The reasons of all Events."""
        self.transitions: Counter[tuple[Phase, Phase]] = Counter()
        """What tags have gone through."""
        self.patch = pytest.MonkeyPatch()

    def start(self) -> None:
        """Serve; the import controller is not started, `Bed` moves it."""
        self.source.__enter__()
        self.mirror.__enter__()
        self.simulator._serve()
        enter = TagState.enter

        def count(tag: TagState, phase: Phase, fingerprint: Fingerprint) -> None:
            before = tag.phase
            enter(tag, phase, fingerprint)
            self.transitions[before, phase] += 1

        self.patch.setattr(TagState, "enter", count)

    def stop(self) -> None:
        """End everything."""
        self.patch.undo()
        self.client.close()
        self.simulator.stop()
        self.source.__exit__(None, None, None)
        self.mirror.__exit__(None, None, None)


class Bed:
    """One example: a namespace of its own, a controller, and a clock."""

    def __init__(self, cluster: Cluster) -> None:
        cluster.examples += 1
        self.cluster, self.client = cluster, cluster.client
        self.namespace = f"ns{cluster.examples}"
        self.time = 0.0
        cluster.patch.setattr(imports, "timestamp", self.stamp)
        cluster.source.failures.clear()
        cluster.mirror.failures.clear()
        self.set_rules(frozenset())
        self.set_blocked(blocked=False)
        self.events: list[tuple[str, str, Any, Any]] = []
        self.start_controller()

    def stamp(self) -> str:
        """The time, as the platform writes it down."""
        return datetime.datetime.fromtimestamp(START + self.time, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    # The controller.

    def start_controller(self) -> None:
        """Start the controller; one that ran before is gone with all that it knew."""
        self.queue = WorkQueue(clock=lambda: self.time, uniform=lambda low, high: 1.0)
        self.streams, self.pool = ManualStreams(), ManualPool()
        self.counting = CountingClient(self.client)
        fakes: list[Any] = [self.counting, self.queue, self.pool, self, ControllerMetrics(), Settings()]
        self.reconciler = Reconciler(*fakes, now=lambda: START + self.time, clock=lambda: self.time)
        streams: Any = self.streams
        self.reconciler.streams = streams
        self.policy: MirrorPolicy | None = None
        self.deliver()
        self.deliver_rules()

    def event(self, involved: Any, event_type: str, reason: str, message: str, annotations: Any) -> None:
        """Take an Event as the recorder does."""
        self.cluster.told[reason] += 1
        attempts = read_attempts(dict(annotations)[OUTCOME_ANNOTATION])
        self.events += [(reason, message, involved, attempt) for attempt in attempts]

    def deliver(self) -> None:
        """Have the watch bring every stream as it is now."""
        fresh: dict[Key, tuple[str, ImageStream]] = {}
        for item in self.client.get(f"{IMAGES}/namespaces/{self.namespace}/imagestreams")["items"]:
            metadata = item["metadata"]
            stream = decode_imagestream(json.dumps(item).encode())
            fresh[metadata["namespace"], metadata["name"]] = (metadata["resourceVersion"], stream)
        before = dict(self.streams.known)
        self.streams.known = fresh
        for key in sorted(before.keys() | fresh.keys()):
            old, new = before.get(key), fresh.get(key)
            if (old and old[0]) != (new and new[0]):
                self.reconciler.on_stream(Change(key, old and old[1], new and new[1]))

    def deliver_rules(self) -> None:
        """Have the watches bring the mirror rules as they are now."""
        objects = [
            {**o, "kind": kind} for plural, kind in RULE_KINDS.items() for o in self.client.get(f"{CONFIG}/{plural}")["items"]
        ]
        policy = MirrorPolicy.from_objects(objects)
        if policy != self.policy:
            self.policy = policy
            self.reconciler.on_policy(policy)

    def work(self) -> Counter[Key]:
        """Have a worker look at what is due now; how often each stream was looked at."""
        looks: Counter[Key] = Counter()
        while key := self.queue.get(timeout=0):
            looks[key] += 1
            assert looks[key] < 20, f"{key} is looked at over and over, and time stands still"
            self.reconciler.reconcile(key)
            self.queue.done(key)
        return looks

    def run_import(self) -> None:
        """Have the oldest import that waits run."""
        if self.pool.jobs:
            self.pool.jobs.pop(0)()

    # The platform.

    def platform_imports(self, name: str, *, scheduled: bool = False) -> None:
        """Have the platform's import controller look at a stream."""
        try:
            self.cluster.simulator.controller._sync((self.namespace, name), scheduled=scheduled)
        except StatusError as error:
            if error.code not in (404, 409):
                raise

    # Users.

    def path(self, name: str) -> str:
        """A stream's."""
        return f"{IMAGES}/namespaces/{self.namespace}/imagestreams/{name}"

    def stream(self, name: str) -> Object | None:
        """A stream as it is stored."""
        try:
            found: Object = self.client.get(self.path(name))
        except ApiError as error:
            if error.status != 404:
                raise
            return None
        return found

    def edit(self, name: str, change: Callable[[Object], None]) -> None:
        """Change a stream as a user does."""
        stream = self.stream(name)
        assert stream
        change(stream)
        self.client.request("PUT", self.path(name), body=stream)

    def repository(self, name: str) -> str:
        """A stream's repository, at the source and, below another path, at the mirror."""
        return f"{self.namespace}/{name}"

    def reference(self, name: str, tag: str) -> str:
        """What a stream's tag imports."""
        return f"{self.cluster.source.host}/{self.repository(name)}:{tag}"

    # Rules and registries.

    def set_rules(self, kinds: frozenset[str]) -> None:
        """Have mirror sets of these kinds, `digest` and `tag`, and no others."""
        host = self.cluster.source.host
        for kind, plural, field in (
            ("digest", "imagedigestmirrorsets", "imageDigestMirrors"),
            ("tag", "imagetagmirrorsets", "imageTagMirrors"),
        ):
            there = bool(self.client.get(f"{CONFIG}/{plural}")["items"])
            if kind in kinds and not there:
                mirrors = [{"source": host, "mirrors": [f"{self.cluster.mirror.host}/{kind}"]}]
                self.client.request("POST", f"{CONFIG}/{plural}", body={"metadata": {"name": "m"}, "spec": {field: mirrors}})
            elif there and kind not in kinds:
                self.client.request("DELETE", f"{CONFIG}/{plural}/m")

    def set_blocked(self, *, blocked: bool) -> None:
        """Block the source, or not."""
        image = self.client.get(f"{CONFIG}/images/cluster")
        image["spec"]["registrySources"]["blockedRegistries"] = [self.cluster.source.host] if blocked else []
        self.client.request("PUT", f"{CONFIG}/images/cluster", body=image)

    def put_source(self, name: str, state: str) -> None:
        """What the source is like: `down`, `missing`, or the name of an image."""
        self._put(self.cluster.source, self.repository(name), state)

    def put_mirror(self, kind: str, name: str, state: str) -> None:
        """What one of the mirrors is like, by the kind of its rule."""
        self._put(self.cluster.mirror, f"{kind}/{self.repository(name)}", state)

    def _put(self, registry: Registry, repository: str, state: str) -> None:
        registry.failures.pop(repository, None)
        if state == "down":
            registry.failures[repository] = Failure(status=503)
        for tag in ("v1", "v2"):
            if state in ("down", "missing"):
                registry.store.remove(repository, tag)
            else:
                # The same image has the same digest everywhere, and Images outlive an example.
                registry.put(repository, tag, seed=f"{self.namespace}-{state}-{tag}")


def main_tag(stream: Object) -> Object:
    """The spec tag that the histories change."""
    return next(tag for tag in stream["spec"]["tags"] if tag["name"] == "main")


def source_of(stream: Object) -> str:
    """The pull spec of that tag."""
    return str(main_tag(stream)["from"]["name"])


def entries(stream: Object | None) -> dict[str, Object]:
    """The stream's status tags by name."""
    return {entry["tag"]: entry for entry in ((stream or {}).get("status") or {}).get("tags") or []}


def has_failed(stream: Object) -> bool:
    """Whether the platform's last import failed."""
    return any(c["status"] == "False" for c in entries(stream).get("main", {}).get("conditions") or [])


def is_pending(stream: Object) -> bool:
    """Whether the platform has yet to import it."""
    entry = entries(stream).get("main", {})
    seen = [found["generation"] for found in (entry.get("items") or [])[:1] + (entry.get("conditions") or [])]
    return bool(main_tag(stream)["generation"] > max(seen, default=0))
