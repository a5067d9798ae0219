"""The controller and the webhook in this process: their own threads, informers and caches, on the day's clock."""

import contextlib
import json
import threading
from pathlib import Path
from typing import Any

import yaml
from mirrorstream.kube.client import Client, load_client
from mirrorstream.kube.informer import Informer
from mirrorstream.rules.source import PolicySource
from mirrorstream.runtime.metrics import Metrics
from mirrorstream.runtime.settings import Settings, SettingsFile
from mirrorstream_controller.manager import Manager
from mirrorstream_controller.streams import STREAMS
from mirrorstream_webhook.access import Access
from mirrorstream_webhook.cache import ReviewCache
from mirrorstream_webhook.claims import read_claims
from mirrorstream_webhook.decider import Decider
from mirrorstream_webhook.guards import Guards, SignaturePolicies
from mirrorstream_webhook.index import Index
from mirrorstream_webhook.metrics import ReviewMetrics
from mirrorstream_webhook.review import Reviewer

from e2e.testbed.simulator.simulator import Simulator
from tests.day.clock import DayClock

IMPORTS = 4
CONFIGURATION = {"controller": {"concurrentImports": IMPORTS, "apiRequestsPerSecond": 10_000}}
Sizes = dict[str, int]


class Controller:
    """The controller's manager."""

    def __init__(self, kubeconfig: Path, folder: Path, clock: DayClock) -> None:
        file = folder / "config.yaml"
        file.write_text(yaml.safe_dump(CONFIGURATION), encoding="utf-8")
        self.manager = manager = Manager(
            SettingsFile(str(file)),
            kubeconfig=str(kubeconfig),
            namespace="mirrorstream",
            metrics_port=0,
            now=clock.now,
            clock=clock.monotonic,
        )
        self.informers: list[Informer[Any]] = manager._informers()
        self.policy = manager._policy
        self._clock = clock
        manager.start()

    def wake(self) -> None:
        """Have the workers look at the clock."""
        with self.manager._queue._condition:
            self.manager._queue._condition.notify_all()

    def idle(self) -> bool:
        """Whether it leads, and there is nothing to do now."""
        manager, queue = self.manager, self.manager._queue
        with queue._condition:
            due = bool(queue._delayed) and queue._delayed[0][0] <= self._clock.monotonic()
            busy = due or queue._dirty or queue._processing
        return manager._leading and not busy and not len(manager._imports) and not manager._events._waiting

    def sizes(self) -> Sizes:
        """How much it keeps."""
        manager, queue, reconciler = self.manager, self.manager._queue, self.manager._reconciler
        states = list(reconciler._states.values())
        return {
            "streams": len(states),
            "tags of streams": sum(len(state._tags) for state in states),
            "failing streams": len(reconciler.failing._streams),
            "delays": len(queue._delayed) + len(queue._due),
            "queue": len(queue._failures) + len(queue._dirty) + len(queue._processing) + len(queue._priority_after),
            "turns": len(queue._turns) + len(queue._priority) + len(manager._imports),
            "mirrors in metrics": len(reconciler._metrics._answered),
            "series": sum(len(metric.samples) for metric in manager.metrics.registry.collect()),
            "objects": sum(informer.count() for informer in self.informers),
        }

    def stop(self) -> None:
        """End it in its usual order; the lease is given up."""
        self.manager.stop()


class Webhook:
    """What the webhook knows and remembers, asked as its server asks."""

    def __init__(self, kubeconfig: Path, clock: DayClock) -> None:
        settings = Settings()
        self._client: Client = load_client(str(kubeconfig), in_cluster=False, user_agent="mirrorstream-webhook")
        self._access = Access(self._client, clock=clock.monotonic)
        self._index = Index()
        self._decider = Decider(self._index, self._access.allowed, settings, own_namespace="mirrorstream")
        self._reviewer = Reviewer(self._decider, ReviewMetrics(Metrics("webhook")))
        self._reviewer._outcomes = ReviewCache(clock.monotonic)
        self._signatures = SignaturePolicies()
        self._streams = Informer(
            self._client, STREAMS, read_claims, lambda change: self._index.apply(change.old, change.new), name="streams"
        )
        self.policy = PolicySource(self._client, self._on_policy, tags_through_digest_mirrors=True)
        self.informers: list[Informer[Any]] = [self._streams, *self.policy.informers.values()]
        self._access.start()
        self._streams.start()
        self.policy.start()

    def _on_policy(self, policy: Any) -> None:
        self._decider.guards = Guards(policy, self._signatures, respect=True)

    def review(self, namespace: str, account: str, image: str) -> bool:
        """Whether a pod that names `image` is pointed elsewhere."""
        pod = {"metadata": {"name": "p"}, "spec": {"serviceAccountName": account, "containers": [{"name": "c", "image": image}]}}
        request = {"uid": "u", "kind": {"kind": "Pod"}, "namespace": namespace, "operation": "CREATE", "object": pod}
        review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
        answer = json.loads(self._reviewer.review(json.dumps(review).encode()))["response"]
        assert answer["allowed"] is True
        return "patch" in answer

    def sizes(self) -> Sizes:
        """How much it keeps."""
        return {
            "rights": len(self._access._entries),
            "outcomes": len(self._reviewer._outcomes._kept),
            "references": self._index.references(),
            "namespaces": len(self._index._namespaces),
            "claimed objects": sum(informer.count() for informer in self.informers),
        }

    def stop(self) -> None:
        """End its threads."""
        self._access.stop()
        self.policy.stop()
        self._streams.stop()
        self._client.close()


def caught_up(informers: list[Informer[Any]], simulator: Simulator) -> bool:
    """Whether the watches have brought everything that is stored."""
    for informer in informers:
        parts = informer._path.strip("/").split("/")
        kind = simulator.api.registry.find(parts[1], parts[2], parts[3])
        assert kind, informer._path
        stored = {
            (item["metadata"].get("namespace", ""), item["metadata"]["name"]): item["metadata"]["resourceVersion"]
            for item in simulator.store.list(kind)[1]
        }
        if not informer.synced.is_set() or {key: version for key, (version, _) in list(informer._objects.items())} != stored:
            return False
    return True


def settled(policy: PolicySource) -> bool:
    """Whether the rules in force are those of the objects."""
    with contextlib.suppress(RuntimeError):  # changed while it was read
        return policy.current is not None and not policy._changed.is_set() and policy.build() == policy.current
    return False


def our_threads() -> int:
    """The threads of mirrorstream in this process: the simulator's connections and workers, and the test's own, are others."""
    return sum(
        1
        for thread in threading.enumerate()
        if not thread.name.startswith(("Thread-", "platform-", "MainThread", "execnet", "pytest"))
    )


MAY_GROW = {"descriptors": 32, "threads": IMPORTS, "KiB": 256}
"""Idle connections and idle threads for imports are kept for the next need, up to a limit; of memory, blocks that CPython reuses
elsewhere are counted where they were made first. Everything else may vary by a tenth, and by two."""
