"""How much work a review, a reconcile and the like are: counted, not timed, so that a busy machine does not disturb it.

    python -m e2e.bench.counts            # compares with the file; 1 if something grew by more than a tenth, or shrank by as much
    python -m e2e.bench.counts --write    # writes what it is now into e2e/bench/counts.json

It counts the interpreter's instructions, in this project's code and in what it calls, and the peak of the memory.
What runs in C is one instruction, however long it takes: msgspec, regular expressions, sorting, json. Of that `make bench` tells.
"""

import argparse
import gc
import json
import os
import platform
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
from mirrorstream.imagestream.model import imagestream_from
from mirrorstream.kube.informer import Change
from mirrorstream.kube.workqueue import WorkQueue
from mirrorstream.rules.objects import merged, read_object
from mirrorstream.rules.policy import MirrorPolicy
from mirrorstream.runtime import logs
from mirrorstream.runtime.metrics import Metrics
from mirrorstream.runtime.settings import Settings
from mirrorstream_controller.history import History
from mirrorstream_controller.metrics import ControllerMetrics
from mirrorstream_controller.plan import PlanSettings, plan_stream
from mirrorstream_controller.reconciler import Reconciler
from mirrorstream_controller.streams import pack
from mirrorstream_webhook.claims import read_claims
from mirrorstream_webhook.decider import Decider
from mirrorstream_webhook.guards import Guards, SignaturePolicies
from mirrorstream_webhook.index import Index
from mirrorstream_webhook.metrics import ReviewMetrics
from mirrorstream_webhook.review import Reviewer

from e2e.bench.bed import SOURCE, population
from e2e.bench.reviews import IMAGE_CONFIG, MIRROR_SET, reviews, streams
from e2e.bench.rules import mirror_sets

FILE = Path(__file__).with_name("counts.json")
TOLERANCE = 0.1
WARM, TIMES = 3, 5
NOT_COUNTED = str(Path(__file__).parent)
"""The played surroundings."""
Measured = dict[str, dict[str, int]]
"""By task: `instructions` and `bytes`."""
Object = dict[str, Any]
REFERENCES = 1_000
RULES = 200
KEPT = 100
IMAGE = {"metadata": {"name": f"sha256:{7:064x}"}, "dockerImageMetadata": {"Size": 1}}


def instructions(work: Callable[[int], object], times: int) -> int:
    """The interpreter's instructions for doing `work` so often, in this thread."""
    count = 0

    def inside(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "opcode"
        return inside

    def enter(frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename.startswith(NOT_COUNTED):
            return None
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        return inside

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        for number in range(times):
            work(WARM + number)
    finally:
        sys.settrace(before)
    return count


def most_memory(work: Callable[[int], object], number: int) -> int:
    """Bytes that doing `work` once takes at most, above what there was before."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        work(number)
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def measure() -> Measured:
    """Every task's counts, the same at every run of one Python minor version with the locked packages."""
    logs.configure("error", "json")
    gc.disable()
    found: Measured = {}
    for task in tasks():
        work = task.make()
        for number in range(WARM):
            work(number)
        counted = instructions(work, TIMES)
        found[task.name] = {
            "instructions": round(counted / TIMES / task.per),
            "bytes": round(most_memory(work, WARM + TIMES) / task.per),
        }
    return found


def differences(known: Measured, found: Measured) -> list[str]:
    """What differs by more than the tolerance, and tasks that only one of them has; better counts are to be written down, too."""
    told = [f"{name}: only in one of both" for name in sorted(known.keys() ^ found.keys())]
    for name in known.keys() & found.keys():
        for what, before in known[name].items():
            now = found[name][what]
            if abs(now - before) > TOLERANCE * before:
                told.append(f"{name}: {now:,} {what}, {before:,} in the file ({(now - before) / max(before, 1):+.0%})")
    return sorted(told)


def minor() -> str:
    """The minor version of the Python that runs: each has instructions of its own."""
    return ".".join(platform.python_version_tuple()[:2])


def known() -> dict[str, Measured]:
    """The file's content, by Python minor version."""
    content: dict[str, Measured] = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    return content


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
    yield Task("a stream of 5 tags, as the controller keeps it", lambda: _kept(pack), KEPT)
    yield Task("a stream of 5 tags, as the webhook keeps it", lambda: _kept(_indexed(Index())), KEPT)


def _kept(read: Callable[[bytes], object]) -> Callable[[int], object]:
    """Streams are read as an API server sends them; all that `read` returns stays in memory."""
    bodies = [msgspec.json.encode(document) for document in population(0, KEPT, SOURCE)]
    return lambda number: [read(body) for body in bodies]


def _indexed(index: Index) -> Callable[[bytes], object]:
    def read(body: bytes) -> object:
        claims = read_claims(body)
        index.apply(None, claims)
        return claims

    return read


def _review(containers: int, *, source: str = SOURCE, different: int = 50) -> Callable[[int], object]:
    """Reviews of pods that differ, so that no answer is one that was kept, but for `different` of 1."""
    index = Index()
    for document in streams(REFERENCES):
        index.apply(None, read_claims(json.dumps(document).encode()))
    decider = Decider(index, lambda *question: True, Settings(), own_namespace="mirrorstream")
    decider.guards = Guards(MirrorPolicy.from_objects([MIRROR_SET, IMAGE_CONFIG]), SignaturePolicies(), respect=True)
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
    settings, history = PlanSettings(), History()
    return lambda number: plan_stream(stream, policy, settings, history, 1.8e9)


class _Platform:
    """An API server that has one stream, and whose importer finds an image in every mirror; Images are there already."""

    def __init__(self) -> None:
        self.stream = json.dumps(_failing())
        self.writes = 0

    def request(self, method: str, path: str, *, body: Any = None, **more: Any) -> Any:
        if path.endswith("/imagestreamimports"):
            more["answered"](0.01)
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
        streams: Any = self
        self.reconciler.streams = streams
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


def main() -> int:
    """Compare, or write."""
    parser = argparse.ArgumentParser(prog="python -m e2e.bench.counts", description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--write", action="store_true", help=f"write {FILE.name} instead of comparing with it")
    args = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":
        # The order of sets decides a few instructions.
        again = [sys.executable, "-m", "e2e.bench.counts", *sys.argv[1:]]
        return subprocess.run(again, env={**os.environ, "PYTHONHASHSEED": "0"}, check=False).returncode
    found, content = measure(), known()
    for name, counts in found.items():
        print(f"{name:48} {counts['instructions']:>9,} instructions {counts['bytes']:>9,} bytes")
    if args.write:
        FILE.write_text(json.dumps({**content, minor(): found}, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        return 0
    if minor() not in content:
        print(f"{FILE.name} has nothing for Python {minor()}", file=sys.stderr)
        return 0
    changed = differences(content[minor()], found)
    print("\n".join(changed), file=sys.stderr)
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
