"""The pieces of work that are counted: one review, one reconcile, one change, each with everything around it played."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
from mirrorstream.imagestreams import imagestream_from
from mirrorstream.kube.informer import Change
from mirrorstream.metrics import Metrics
from mirrorstream.objects import merged, read_object
from mirrorstream.policy import MirrorPolicy
from mirrorstream.settings import Settings
from mirrorstream_controller.metrics import ControllerMetrics
from mirrorstream_controller.plan import Memory, PlanSettings, plan_stream
from mirrorstream_controller.reconciler import Reconciler
from mirrorstream_controller.workqueue import WorkQueue
from mirrorstream_webhook.decide import Decider
from mirrorstream_webhook.guards import Guards, SignaturePolicies
from mirrorstream_webhook.lookup import Index, read_claims
from mirrorstream_webhook.metrics import ReviewMetrics
from mirrorstream_webhook.review import Reviewer

from e2e.bench.reviews import MIRROR_SET, SOURCE, reviews, streams
from e2e.bench.rules import mirror_sets

Object = dict[str, Any]
REFERENCES = 1_000
RULES = 200
IMAGE = {"metadata": {"name": f"sha256:{7:064x}"}, "dockerImageMetadata": {"Size": 1}}


@dataclass(frozen=True)
class Task:
    """Work to be counted; `make` prepares it, and what that returns does it once, each time for the next number.

    What it counts is divided by `per`.
    """

    name: str
    make: Callable[[], Callable[[int], object]]
    per: int = 1


def tasks() -> Iterator[Task]:
    """All of them."""
    yield Task("review of 1 container, rewritten", lambda: _review(1))
    yield Task("review of 5 containers, rewritten", lambda: _review(5))
    yield Task("review of 1 container, left alone", lambda: _review(1, source="elsewhere.example.com"))
    yield Task("review of 1 container, as one a moment ago", lambda: _review(1, different=1))
    yield Task("index update, a stream of 5 tags", _index_update)
    yield Task("plan of a failing tag", _plan)
    yield Task("reconcile that heals a failing tag", _heal)
    yield Task("event of a stream that is well", _well)
    yield Task("pull_sources at 200 rules", lambda: _look_up("pull_sources"))
    yield Task("import_candidates at 200 rules", lambda: _look_up("import_candidates"))
    yield Task("reading 200 rules, per rule", _read_rules, RULES)
    yield Task("a change of one of 200 rules", _change_rule)


def _review(containers: int, *, source: str = SOURCE, different: int = 50) -> Callable[[int], object]:
    """Reviews of pods that differ, so that no answer is one that was kept, but for `different` of 1."""
    index = Index()
    for document in streams(REFERENCES):
        index.apply(None, read_claims(json.dumps(document).encode()))
    decider = Decider(index, lambda namespace, pod_namespace, account: True, Settings(), own_namespace="mirrorstream")
    decider.guards = Guards(MirrorPolicy.from_objects([MIRROR_SET]), SignaturePolicies(), respect=True)
    reviewer = Reviewer(decider, ReviewMetrics(Metrics("webhook")))
    bodies = [json.dumps(body).replace(SOURCE, source).encode() for body in reviews(containers, different)]
    return lambda number: reviewer.review(bodies[number % different])


def _index_update() -> Callable[[int], object]:
    """A stream comes with another digest of each tag."""
    index = Index()
    first = json.dumps(next(streams(REFERENCES)))
    versions = [first.encode(), first.replace("sha256:0", "sha256:1").encode()]
    known = [None, read_claims(versions[0])]
    index.apply(*known)

    def update(number: int) -> None:
        known[0], known[1] = known[1], read_claims(versions[(number + 1) % 2])
        index.apply(*known)

    return update


def _failing() -> Object:
    """A stream whose one tag fails."""
    source = "registry5.example.com/ns/app:v1"
    message = f"Internal error occurred: {source}: dial tcp 10.0.0.1:443: connect: connection refused"
    failure = {"type": "ImportSuccess", "status": "False", "reason": "InternalError", "message": message, "generation": 2}
    tag = {"name": "v1", "from": {"kind": "DockerImage", "name": source}, "generation": 2}
    return {
        "metadata": {"name": "app", "namespace": "ns", "uid": "u", "generation": 2},
        "spec": {"tags": [tag]},
        "status": {"tags": [{"tag": "v1", "items": None, "conditions": [failure]}]},
    }


def _plan() -> Callable[[int], object]:
    stream, policy = imagestream_from(_failing()), MirrorPolicy.from_objects(mirror_sets(RULES))
    settings, memory = PlanSettings(), Memory()
    return lambda number: plan_stream(stream, policy, settings, memory, 1.8e9)


class _Platform:
    """An API server that has one stream, and whose importer finds an image in every mirror; Images are there already."""

    def __init__(self) -> None:
        self.stream = json.dumps(_failing())
        self.writes = 0

    def request(self, method: str, path: str, *, body: Any = None, **more: Any) -> Any:
        if path.endswith("/imagestreamimports"):
            return {"status": {"images": [{"status": {"status": "Success"}, "image": IMAGE}]}}
        self.writes += path.endswith("/imagestreams/app/status")
        return body

    def get(self, path: str) -> Any:
        return msgspec.json.decode(self.stream)


class _Around:
    """What a reconciler has around it, for one stream and one thread: a pool, Events and an informer."""

    def __init__(self) -> None:
        self.platform = _Platform()
        self.imports: list[Callable[[], None]] = []
        self.known: Any = None
        self.queue = WorkQueue(clock=lambda: 1000.0)
        around: list[Any] = [self.platform, self.queue, self, self, ControllerMetrics(), Settings()]
        self.reconciler = Reconciler(*around, now=lambda: 1.8e9, clock=lambda: 1000.0)
        informer: Any = self
        self.reconciler.informer = informer
        self.reconciler.on_policy(MirrorPolicy.from_objects(mirror_sets(RULES)))

    def submit(self, namespace: str, host: str, work: Callable[[], None], **more: Any) -> None:
        self.imports.append(work)

    def event(self, *anything: object) -> None:
        pass

    def all_keys(self) -> list[tuple[str, str]]:
        return []

    def get(self, key: tuple[str, str]) -> Any:
        return self.known

    def see(self, document: Object) -> None:
        """Have the watch bring the stream."""
        old, self.known = self.known, imagestream_from(document)
        self.reconciler.on_stream(Change(("ns", "app"), old, self.known))

    def settle(self) -> None:
        """Look, import and look again until nothing is left to do now."""
        while (key := self.queue.get(timeout=0)) or self.imports:
            if key:
                self.reconciler.reconcile(key)
                self.queue.done(key)
            else:
                self.imports.pop()()


def _heal() -> Callable[[int], object]:
    """From the event to the status write; each time it is a stream that was just made."""
    around = _Around()

    def heal(number: int) -> None:
        document = _failing()
        document["metadata"]["uid"] = f"u{number}"
        around.platform.stream = json.dumps(document)
        before = around.platform.writes
        around.see(document)
        around.settle()
        assert around.platform.writes == before + 1, "each stream heals with one write"

    return heal


def _well() -> Callable[[int], object]:
    """Nothing is to be done: most events of a cluster are like this."""
    around = _Around()
    document = next(streams(REFERENCES))

    def see(number: int) -> None:
        around.see(document)
        assert around.queue.get(timeout=0) is None, "nothing is queued"

    return see


def _look_up(name: str) -> Callable[[int], object]:
    ask = getattr(MirrorPolicy.from_objects(mirror_sets(RULES)), name)
    return lambda number: ask("registry5.example.com/ns/app:v1")


def _read_rules() -> Callable[[int], object]:
    sets = mirror_sets(RULES)
    return lambda number: MirrorPolicy.from_objects(sets)


def _change_rule() -> Callable[[int], object]:
    """As PolicySource does it: the changed object is read, and what follows from it."""
    sets = mirror_sets(RULES)
    parts = [read_object(item, item["kind"]) for item in sets]
    policies = [MirrorPolicy(merged(parts))]

    def change(number: int) -> None:
        sets[number]["spec"]["imageDigestMirrors"][0]["mirrors"] = [f"c.corp/{number}"]
        parts[number] = read_object(sets[number], sets[number]["kind"])
        policy = MirrorPolicy(merged(parts), previous=policies[-1])
        assert policy != policies.pop()
        policies.append(policy)

    return change
