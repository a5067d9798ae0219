"""Both programs with 10,000 streams: memory, the time until they know all, what they use when nothing happens, and reactions."""

import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from e2e.bench import paper, reaction
from e2e.bench.bed import Bed
from e2e.bench.figures import Figure
from e2e.bench.population import NAMESPACES, TAGS, namespace_of, population
from e2e.bench.usage import cpu_seconds, resident, resident_peak
from e2e.scenarios.program import Controller, Program, Webhook

COUNTS = (1_000, 5_000, 10_000)
SOURCE = "registry.example.com"
MEMORY_LIMIT, SYNC_LIMIT, IDLE_LIMIT = 100.0, 10.0, 1.0
IDLE_SECONDS = 15.0
SETTLE_SECONDS = 2.0
"""What follows the readiness at once is over by then: looks at what fails, the collection of garbage."""


@dataclass(frozen=True)
class Start:
    """A program that has just become ready with so many streams."""

    program: Program
    streams: int
    seconds: float
    memory: float
    peak: float
    cpu: float


def measure(folder: Path) -> list[Figure]:
    """One cluster that grows; both programs start anew at each size."""
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
                    found.append(start := _start(running, bed, folder, name, count))
                    if count == COUNTS[-1]:
                        figures.append(_idle(name, start))
                        figures.append(_reaction(bed, start.program))
        for name, found in starts.items():
            figures += _sizes(name, found)
            figures += paper.figures(name, [paper.Point(each.streams, each.memory, each.seconds) for each in found])
    return sorted(figures, key=lambda figure: figure.name.startswith("webhook"))


def _start(stack: ExitStack, bed: Bed, folder: Path, name: str, streams: int) -> Start:
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
    return Start(program, streams, seconds, resident(pid), resident_peak(pid), cpu)


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


def _idle(name: str, start: Start) -> Figure:
    pid = start.program.process.pid
    before, began = cpu_seconds(pid), time.monotonic()
    time.sleep(IDLE_SECONDS)
    used, seconds = cpu_seconds(pid) - before, time.monotonic() - began
    return Figure(
        f"{name}, {start.streams:,} streams: CPU while nothing happens",
        used / seconds * 100,
        "% of a core",
        IDLE_LIMIT,
        f"{used * 1e3:.0f} ms in {seconds:.0f} s",
        f"User and kernel time of the process in {IDLE_SECONDS:.0f} s; the cluster sends a bookmark every 5 s.",
    )


def _reaction(bed: Bed, program: Program) -> Figure:
    if isinstance(program, Webhook):
        return reaction.webhook(bed, SOURCE, program)
    return reaction.controller(bed, SOURCE)
