"""The loop of the pending pods with an API, Events and clocks that tests decide about."""

import json
import threading
from collections.abc import Callable
from typing import Any

import msgspec
from mirrorstream.kube.client import ApiError
from mirrorstream.kube.events import Involved
from mirrorstream.kube.informer import Change
from mirrorstream.runtime.metrics import Metrics
from mirrorstream_webhook.metrics import PENDING_RESULTS, PendingPodMetrics
from mirrorstream_webhook.pending_pods.hangs import read_pending
from mirrorstream_webhook.pending_pods.loop import PendingPods
from mirrorstream_webhook.pending_pods.patch_policy import NAMES

from tests.webhook.builders import HEALED, Bed, Object, settings

POLICIES = "/apis/admissionregistration.k8s.io/v1/"


KEY = ("team", "pod")


NOT_FOUND = ApiError(404, "NotFound", "the server could not find the requested resource")


class Api:
    """An API server: leases that are won at once, namespaces, the policies, and pods that are patched as `on_patch` says."""

    def __init__(self) -> None:
        self.patches: list[tuple[str, list[Object]]] = []
        self.on_patch: Callable[[str], None] = lambda path: None
        self.labels: dict[str, str] = {}
        self.problems: dict[str, Exception] = {}
        """Of requests whose path contains the key or, where the key ends with `$`, ends with it."""
        self.policies: dict[str, Object] = {name: {"failurePolicy": "Fail"} for name in NAMES}
        self.bindings: dict[str, Object] = {name: {"policyName": name, "validationActions": ["Deny"]} for name in NAMES}
        self.asked: list[str] = []
        self.lock = threading.Lock()

    def unlimited(self) -> "Api":
        """Another client."""
        return self

    def request(self, method: str, path: str, *, body: Any = None, decode: Any = None, **more: Any) -> Any:
        """One request."""
        with self.lock:
            self.asked.append(path)
        for part, problem in self.problems.items():
            if part in f"{path}$":
                raise problem
        if method == "PATCH":
            self.on_patch(path)
            with self.lock:
                self.patches.append((path, body))
            return None
        if "leases" in path:
            if method == "GET":
                raise ApiError(404, "NotFound", "")
            return {**body, "metadata": {"resourceVersion": "1"}}
        if "bindings" in path:
            return {"spec": self.bindings[path.rpartition("/")[2]]}
        if path.startswith(POLICIES):
            return {"spec": self.policies[path.rpartition("/")[2]]}
        return decode(msgspec.json.encode({"metadata": {"labels": self.labels}}))


class Recorder:
    """Events, as they are asked for."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, str]] = []

    def event(self, involved: Involved, event_type: str, reason: str, message: str) -> None:
        """Keep one."""
        assert (involved.kind, involved.uid) == ("Pod", "u")
        self.events.append((involved.name, reason, message))

    def start(self) -> None:
        """Nothing to start."""

    def stop(self) -> None:
        """Nor to stop."""


class Loop:
    """The loop over a decider with one healed tag, driven by hand, on a clock of its own."""

    def __init__(
        self,
        bed: Bed | None = None,
        *,
        lead: bool = True,
        rate: float = 1e6,
        clock: Callable[[], float] | None = None,
        **webhook: Any,
    ) -> None:
        self.bed = bed or Bed(HEALED)
        self.now = 1000.0
        self.api, self.recorder, self.metrics = Api(), Recorder(), Metrics("webhook")
        chosen = settings(**webhook)
        self.loop = PendingPods(
            self.api,  # type: ignore[arg-type]
            self.bed.decider,
            self.recorder,  # type: ignore[arg-type]
            PendingPodMetrics(self.metrics),
            namespace="mirrorstream",
            identity="one",
            settings=chosen,
            rate=rate,
            clock=clock or (lambda: self.now),
        )
        if lead:
            self.loop.election.attempt()
            self.loop.tick()

    def pass_time(self, seconds: float | None = None) -> bool:
        """In place of a wait for the end: time passes, and the end does not come."""
        self.now += seconds or 0.0
        return False

    def see(self, document: Object | None, name: str = "pod") -> None:
        """What the watch brings of a pod."""
        key = ("team", name)
        informer = self.loop.pods
        old = informer.get(key)
        if document is None:
            informer._objects.pop(key, None)
            self.loop.on_pod(Change(key, old, None))
            return
        found = read_pending(json.dumps(document).encode())
        informer._objects[key] = (found.version, found)
        self.loop.on_pod(Change(key, old, found))

    def evaluate(self, name: str = "pod") -> float:
        """One turn of a pod."""
        return self.loop.evaluate(("team", name))

    def counted(self) -> dict[str, float]:
        """What was counted."""
        name = "mirrorstream_webhook_pending_pods_total"
        found = {result: self.metrics.registry.get_sample_value(name, {"result": result}) or 0.0 for result in PENDING_RESULTS}
        return {result: count for result, count in found.items() if count}


def images(operations: list[Object]) -> list[str]:
    """What a patch puts into a pod."""
    return [operation["value"] for operation in operations if operation["op"] == "replace"]
