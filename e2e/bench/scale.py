"""Both programs with 100,000 streams: memory, the time until they know all, reactions, a take-over, what a restart costs others."""

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

from e2e.bench import restart
from e2e.bench.bed import (
    LARGE,
    NAMESPACES,
    PATIENCE,
    PROJECT,
    SOURCE,
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

STREAM_LIMIT, IDLE_LIMIT = 5.0, 1.0
"""In kB, and in % of a core."""
IDLE_SECONDS = 15.0
SETTLE_SECONDS = 2.0
"""What follows the readiness at once is over by then: looks at what fails, the collection of garbage."""
CHANGES = NAMESPACES
"""One in each namespace: the log of requests tells them apart by that."""
INTERVAL = 0.1
REACTION_LIMIT = 100.0
"""Milliseconds from a change to the decision about it."""
TAKE_OVER_LIMIT = 20.0
IMAGES = "/apis/image.openshift.io/v1"
_UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


@dataclass(frozen=True)
class Size:
    """A number of streams, and what a program may need with it: MB at most, and seconds until it is ready."""

    streams: int
    memory: float
    seconds: float


SIZES = (Size(10_000, 200.0, 10.0), Size(LARGE, 600.0, 60.0))


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
        for size in (Size(0, 0, 0), *SIZES):
            bed.store(population(before, size.streams, SOURCE))
            before = size.streams
            for name, found in starts.items():
                with ExitStack() as running:
                    program, start = _start(running, bed, folder, name, size.streams)
                    found.append(start)
                    if size.streams:
                        figures += _sizes(name, size, start, found[0])
                    if size is SIZES[-1]:
                        figures += [_idle(program, size.streams), _reaction(bed, program, size.streams)]
        for name, found in starts.items():
            figures += each_stream(name, found)
        figures.append(_take_over(bed, folder, before))
    return figures + restart.others(folder)


def _start(stack: ExitStack, bed: Bed, folder: Path, name: str, streams: int) -> tuple[Program, Start]:
    began = time.monotonic()
    program = _program(stack, bed, folder, name)
    wait_for(f"the {name} is ready", program.ready, seconds=PATIENCE)
    seconds = time.monotonic() - began
    pid = program.process.pid
    cpu = cpu_seconds(pid)
    known = program.metric("mirrorstream_informer_objects", resource="imagestreams.image.openshift.io")
    assert known == streams, f"the {name} knows {known:.0f} of {streams} streams"
    time.sleep(SETTLE_SECONDS)
    return program, Start(streams, seconds, resident(pid), resident_peak(pid), cpu)


def _program(stack: ExitStack, bed: Bed, folder: Path, name: str, *, elected: bool = False) -> Program:
    """Start a program, which ends with `stack`; a controller only looks for a lease if it is to be `elected`."""
    program: Program
    if name == "controller":
        election = ("--namespace", "default") if elected else ("--no-leader-election",)
        program = Controller(bed.kubeconfig, folder, {}, *election, log_level="info")
    else:
        program = Webhook(bed.kubeconfig, folder, {}, log_level="info")
    stack.callback(program.process.kill)
    return program


def _sizes(name: str, size: Size, start: Start, empty: Start) -> list[Figure]:
    what = f"{name}, {size.streams:,} streams with {size.streams * TAGS:,} tags"
    memory = Figure(
        f"{what}: memory",
        start.peak,
        "MB",
        size.memory,
        f"{start.memory:.0f} MB two seconds after the readiness; {empty.memory:.0f} MB on an empty cluster",
        "The largest resident set from the start to two seconds after the readiness.",
    )
    sync = Figure(
        f"{what}: from start to readiness",
        start.seconds,
        "s",
        size.seconds,
        f"empty cluster {empty.seconds:.2f} s; {start.cpu:.2f} s of its own CPU, {empty.cpu:.2f} s when empty",
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


def _reaction(bed: Bed, program: Program, streams: int) -> Figure:
    if isinstance(program, Webhook):
        waits, until = _until_reviewed(bed, program), "until a review is answered with it"
    else:
        waits, until = _until_imported(bed), "until its dry run arrives at the API server"
    name = f"{program.name}, {streams:,} streams: from a change to a decision, p99"
    told = f"p50 {percentile(waits, 50) * 1e3:.1f} ms, at most {max(waits) * 1e3:.1f} ms; {len(waits)} changes"
    how = f"{len(waits)} streams changed one after another, each in a namespace of its own: from the write being sent, {until}."
    return Figure(name, percentile(waits, 99) * 1e3, "ms", REACTION_LIMIT, told, how)


def _take_over(bed: Bed, folder: Path, streams: int) -> Figure:
    """The leader is killed, and a tag fails."""
    with ExitStack() as stack:
        controllers = [_program(stack, bed, folder, "controller", elected=True) for _ in range(2)]
        for program in controllers:
            wait_for("the controller is ready", program.ready, seconds=PATIENCE)
        leads = "mirrorstream_leader"
        leader = wait_for("one leads", lambda: next((each for each in controllers if each.metric(leads)), None))
        number, mark = NAMESPACES, bed.mark()
        bed.mirror.put(f"m/team/{name_of(number)}", "v1", seed=str(number))
        leader.process.kill()
        began = _change(bed, number, {1: failed(f"{SOURCE}/team/{name_of(number)}", "v1")})
        wait_for("the other imports", lambda: namespace_of(number) in _dry_runs(bed, mark), step=0.5)
        seconds = _dry_runs(bed, mark)[namespace_of(number)] - began
    return Figure(
        f"controller, {streams:,} streams: the standby takes over",
        seconds,
        "s",
        TAKE_OVER_LIMIT,
        "the Lease lasts 15 s, and another takes it 12 s after its last renewal",
        "The leader is killed, and a tag fails at once: until its dry run arrives at the API server.",
    )


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


def each_stream(name: str, starts: list[Start]) -> list[Figure]:
    """What a stream adds, and how many fit into what the manifest requests."""
    memory = linear_regression([start.streams for start in starts], [start.peak for start in starts])
    requests = requested(name)
    fit = (requests - memory.intercept) / memory.slope if memory.slope > 0 else float("inf")
    measured = ", ".join(f"{each.streams:,}: {each.peak:.0f} MB" for each in starts)
    fits = "any number of" if fit == float("inf") else f"{float(f'{fit:.2g}'):,.0f}"
    return [
        Figure(
            f"{name}: memory for each stream of {TAGS} tags",
            memory.slope * 1e3,
            "kB",
            STREAM_LIMIT,
            f"measured at {measured}; {fits} streams fit into the {requests:.0f} MB that its manifest requests",
            "The slope of the line of least squares through the sizes measured.",
        ),
    ]
