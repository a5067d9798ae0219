"""Both programs with 10,000 streams: memory, the time until they know all, what they use when nothing happens, and reactions.

And with 100,000, which are too many to be measured here: lines through what was measured, and the bound that they reach first.
"""

import base64
import random
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import linear_regression

import urllib3
import yaml
from mirrorstream.kube.informer import PAGE_SIZE

from e2e.bench.bed import (
    NAMESPACES,
    PROJECT,
    TAGS,
    Bed,
    Object,
    cpu_seconds,
    digest_of,
    failed,
    imported,
    name_of,
    namespace_of,
    population,
    resident,
    resident_peak,
)
from e2e.bench.figures import Figure, percentile
from e2e.bench.reviews import review
from e2e.testbed.programs.program import Controller, Program, Webhook
from e2e.testbed.support.waiting import wait_for

COUNTS = (1_000, 5_000, 10_000)
SOURCE = "registry.example.com"
MEMORY_LIMIT, SYNC_LIMIT, IDLE_LIMIT = 100.0, 10.0, 1.0
IDLE_SECONDS = 15.0
SETTLE_SECONDS = 2.0
"""What follows the readiness at once is over by then: looks at what fails, the collection of garbage."""
CHANGES = NAMESPACES
"""One in each namespace: the log of requests tells them apart by that."""
INTERVAL = 0.1
REACTION_LIMIT = 100.0
"""Milliseconds from a change to the decision about it."""
IMAGES = "/apis/image.openshift.io/v1"
LARGE = 100_000
PAGES_SECONDS = 300.0
"""kube-apiserver compacts etcd every five minutes: a list whose pages take longer has to begin again."""
_UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


@dataclass(frozen=True)
class Start:
    """What it took until a program was ready with so many streams; memory in MB, and CPU seconds of its own."""

    streams: int
    seconds: float
    memory: float
    peak: float = 0.0
    cpu: float = 0.0


def measure(folder: Path) -> list[Figure]:
    """One cluster that grows; both programs restart at each size."""
    figures = []
    with ExitStack() as stack:
        bed = Bed(stack, folder / "scale", source=SOURCE)
        bed.namespaces(namespace_of(number) for number in range(NAMESPACES))
        starts: dict[str, list[Start]] = {"controller": [], "webhook": []}
        before = 0
        for count in (0, *COUNTS):
            bed.store(population(before, count, SOURCE))
            before = count
            for name, found in starts.items():
                with ExitStack() as running:
                    program, start = _start(running, bed, folder, name, count)
                    found.append(start)
                    if count == COUNTS[-1]:
                        figures += [_idle(program, count), _reaction(bed, program)]
        for name, found in starts.items():
            figures += [*_sizes(name, found), *on_paper(name, found)]
    return sorted(figures, key=lambda figure: figure.name.startswith("webhook"))


def _start(stack: ExitStack, bed: Bed, folder: Path, name: str, streams: int) -> tuple[Program, Start]:
    began = time.monotonic()
    program: Program
    if name == "controller":
        program = Controller(bed.kubeconfig, folder, {}, "--no-leader-election", log_level="info")
    else:
        program = Webhook(bed.kubeconfig, folder, {}, log_level="info")
    stack.callback(program.process.kill)
    program.wait_ready()
    seconds = time.monotonic() - began
    pid = program.process.pid
    cpu = cpu_seconds(pid)
    known = program.metric("mirrorstream_informer_objects", resource="imagestreams.image.openshift.io")
    assert known == streams, f"the {name} knows {known:.0f} of {streams} streams"
    time.sleep(SETTLE_SECONDS)
    return program, Start(streams, seconds, resident(pid), resident_peak(pid), cpu)


def _sizes(name: str, starts: list[Start]) -> list[Figure]:
    empty, full = starts[0], starts[-1]
    what = f"{name}, {full.streams:,} streams with {full.streams * TAGS:,} tags"
    memory = Figure(
        f"{what}: memory above an empty cluster's",
        full.memory - empty.memory,
        "MB",
        MEMORY_LIMIT,
        f"{full.memory:.0f} MB against {empty.memory:.0f} MB; {full.peak:.0f} MB at most",
        "Resident set two seconds after the readiness, less that of the same program on the same cluster without a stream.",
    )
    sync = Figure(
        f"{what}: from start to readiness",
        full.seconds,
        "s",
        SYNC_LIMIT,
        f"empty cluster {empty.seconds:.2f} s; {full.cpu:.2f} s of its own CPU, {empty.cpu:.2f} s when empty",
        "From the start of the process until `/readyz` says 200, which it does once everything has been listed.",
    )
    return [memory, sync]


def _idle(program: Program, streams: int) -> Figure:
    pid = program.process.pid
    before, began = cpu_seconds(pid), time.monotonic()
    time.sleep(IDLE_SECONDS)
    used, seconds = cpu_seconds(pid) - before, time.monotonic() - began
    return Figure(
        f"{program.name}, {streams:,} streams: CPU while nothing happens",
        used / seconds * 100,
        "% of a core",
        IDLE_LIMIT,
        f"{used * 1e3:.0f} ms in {seconds:.0f} s",
        f"User and kernel time of the process in {IDLE_SECONDS:.0f} s; the cluster sends a bookmark every 5 s.",
    )


def _reaction(bed: Bed, program: Program) -> Figure:
    if isinstance(program, Webhook):
        waits, until = _until_reviewed(bed, program), "until a review is answered with it"
    else:
        waits, until = _until_imported(bed), "until its dry run arrives at the API server"
    name = f"{program.name}, 10,000 streams: from a change to a decision, p99"
    told = f"p50 {percentile(waits, 50) * 1e3:.1f} ms, at most {max(waits) * 1e3:.1f} ms; {len(waits)} changes"
    how = f"{len(waits)} streams changed one after another, each in a namespace of its own: from the write being sent, {until}."
    return Figure(name, percentile(waits, 99) * 1e3, "ms", REACTION_LIMIT, told, how)


def _change(bed: Bed, number: int, changed: dict[int, Object]) -> float:
    """Write the status of a stream with some of its tags `changed`; the moment before the request was sent."""
    source = f"{SOURCE}/team/{name_of(number)}"
    tags = [changed.get(tag) or imported(source, f"v{tag}") for tag in range(TAGS)]
    path = f"{IMAGES}/namespaces/{namespace_of(number)}/imagestreams/{name_of(number)}/status"
    body = {"status": {"tags": tags}}
    began = time.time()
    bed.client.request("PATCH", path, body=body, content_type="application/merge-patch+json")
    return began


def _until_imported(bed: Bed) -> list[float]:
    """A tag of one stream after another fails; the mirror has its image."""
    mark = bed.mark()
    began: dict[str, float] = {}
    for number in random.sample(range(CHANGES), CHANGES):
        source = f"{SOURCE}/team/{name_of(number)}"
        bed.mirror.put(f"m/team/{name_of(number)}", "v1", seed=str(number))
        began[namespace_of(number)] = _change(bed, number, {1: failed(source, "v1")})
        time.sleep(random.uniform(0.5, 1.5) * INTERVAL)
    wait_for("every tag is imported", lambda: len(_dry_runs(bed, mark)) == CHANGES, step=0.5)
    arrived = _dry_runs(bed, mark)
    return [arrived[namespace] - at for namespace, at in began.items()]


def _dry_runs(bed: Bed, mark: int) -> dict[str, float]:
    """When the first dry run of each namespace arrived."""
    found: dict[str, float] = {}
    for request in bed.requests(mark, "^mirrorstream-controller"):
        if request["path"].endswith("/imagestreamimports"):
            found.setdefault(request["path"].split("/")[5], request["time"] - request["seconds"])
    return found


def _until_reviewed(bed: Bed, program: Webhook) -> list[float]:
    """A tag of one stream after another gets another image; a pod that names it is reviewed again and again until it gets that."""
    context = ssl.create_default_context(cafile=str(program.authority.certificate))
    waits = []
    with urllib3.PoolManager(ssl_context=context) as pool:
        for number in random.sample(range(CHANGES), CHANGES):
            source = f"{SOURCE}/team/{name_of(number)}"
            digest = digest_of(f"another {number}")
            item = {"created": "2026-01-02T00:00:00Z", "dockerImageReference": f"{source}@{digest}", "image": digest}
            pod: Object = {"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "web-"}}
            pod["spec"] = {"containers": [{"name": "app", "image": f"{source}:v2"}], "serviceAccountName": "default"}
            began = _change(bed, number, {2: {"tag": "v2", "items": [{**item, "generation": 2}]}})
            for answer in _answers(pool, program.url, review(pod, namespace_of(number), f"uid-{number}")):
                if digest in answer:
                    break
                assert time.time() < began + 10, f"not within 10 s: {answer}"
            waits.append(time.time() - began)
    return waits


def _answers(pool: urllib3.PoolManager, url: str, body: Object) -> Iterator[str]:
    while True:
        answer = pool.request("POST", url, json=body).json()["response"]
        yield base64.b64decode(answer.get("patch", "")).decode()


def requested(name: str) -> float:
    """The memory that the manifest of a program requests, in MB."""
    document = yaml.safe_load((PROJECT / "config" / "base" / name / "deployment.yaml").read_text(encoding="utf-8"))
    (container,) = document["spec"]["template"]["spec"]["containers"]
    text = container["resources"]["requests"]["memory"]
    return float(text[:-2]) * _UNITS[text[-2:]] / 1e6


def on_paper(name: str, starts: list[Start]) -> list[Figure]:
    """What a stream adds, and what 100,000 of them would need."""
    sizes = [start.streams for start in starts]
    memory = linear_regression(sizes, [start.memory for start in starts])
    seconds = linear_regression(sizes, [start.seconds for start in starts])
    requests = requested(name)
    bounds = {
        f"the {requests:.0f} MB of memory that its manifest requests (no limit: the node has to have more)": (memory, requests),
        f"{SYNC_LIMIT:.0f} s until it is ready": (seconds, SYNC_LIMIT),
        f"{PAGES_SECONDS:.0f} s, for which the pages of a list can be asked for": (seconds, PAGES_SECONDS),
    }
    reached = {bound: _reached(*line, value) for bound, (line, value) in bounds.items()}
    first, *later = (f"{bound} at {_streams(at)}" for bound, at in sorted(reached.items(), key=lambda bound: bound[1]))
    measured = ", ".join(f"{each.streams:,}: {each.memory:.0f} MB, {each.seconds:.1f} s" for each in starts)
    ready = seconds.intercept + seconds.slope * LARGE
    return [
        Figure(
            f"{name}: memory for each stream of {TAGS} tags",
            memory.slope * 1e3,
            "kB",
            None,
            f"measured at {measured}",
            "The slope of the line of least squares through the sizes measured.",
        ),
        Figure(
            f"{name}, {LARGE:,} streams, on paper: memory",
            memory.intercept + memory.slope * LARGE,
            "MB",
            None,
            f"ready after {ready:.0f} s, {LARGE // PAGE_SIZE} pages; first {first}; then {'; then '.join(later)}",
            "Computed from those lines; nobody has run it.",
        ),
    ]


def _reached(slope: float, intercept: float, value: float) -> float:
    """For how many streams a line is at `value`; infinite if it never is."""
    return (value - intercept) / slope if slope > 0 else float("inf")


def _streams(number: float) -> str:
    """A number of streams, as rough as it is."""
    return "no number of streams" if number == float("inf") else f"{float(f'{number:.2g}'):,.0f} streams"
