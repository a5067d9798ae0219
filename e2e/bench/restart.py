"""What the lists of a restart cost others: another client of a real kube-apiserver while both programs start."""

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from mirrorstream.kube.client import Client, load_client

from e2e.bench.bed import LARGE, PATIENCE, SOURCE, population, store
from e2e.bench.figures import Figure, needs_go, percentile
from e2e.testbed.backends import CONTROLPLANE, Shared, installed
from e2e.testbed.controlplane.build import components
from e2e.testbed.controlplane.plane import ControlPlane
from e2e.testbed.programs.program import Controller, Program, Webhook
from e2e.testbed.simulator.settings import Settings
from e2e.testbed.support.waiting import wait_for

OTHERS_LIMIT = 1.5
INTERVAL, QUIET_SECONDS = 0.01, 20.0


@needs_go
def others(folder: Path) -> list[Figure]:
    """Both programs start at once beside another client, which happens when a node or an API server restarts."""
    with ExitStack() as stack:
        plane = stack.enter_context(ControlPlane(folder / "restart", components(), Settings()))
        shared = installed(plane, CONTROLPLANE)
        assert shared.controls, "the simulator serves the image API"
        store(load_client(shared.controls, in_cluster=False, user_agent="bench"), population(0, LARGE, SOURCE))
        client = load_client(shared.kubeconfig, in_cluster=False, user_agent="bench")
        end = time.monotonic() + QUIET_SECONDS
        quiet = _asked(client, lambda: time.monotonic() > end)
        waits, seconds = _while_they_start(stack, client, shared, folder)
    before, during = percentile(quiet, 99), percentile(waits, 99)
    told = f"p50 {percentile(quiet, 50) * 1e3:.1f} and {percentile(waits, 50) * 1e3:.1f} ms, p99 {before * 1e3:.1f} and "
    return [
        Figure(
            f"{LARGE:,} streams: another client's requests while both programs start, p99",
            during / before,
            "times that before",
            OTHERS_LIMIT,
            f"{told}{during * 1e3:.1f} ms; {len(quiet)} and {len(waits)} requests; both programs ready after {seconds:.0f} s",
            "One client gets a namespace from a real kube-apiserver a hundred times a second, before and while the streams are "
            "listed through it. The simulator serves them to kube-apiserver.",
        )
    ]


def _while_they_start(stack: ExitStack, client: Client, shared: Shared, folder: Path) -> tuple[list[float], float]:
    """What the other client waited, and the seconds until both programs were ready."""
    began, waits = time.monotonic(), list[float]()
    ready = threading.Event()
    programs: tuple[Program, ...] = (
        Controller(Path(shared.program), folder, {}, "--no-leader-election", log_level="info"),
        Webhook(Path(shared.webhook), folder, {}, log_level="info"),
    )
    for program in programs:
        stack.callback(program.process.kill)
    asking = threading.Thread(target=lambda: waits.extend(_asked(client, ready.is_set)))
    asking.start()
    try:
        for program in programs:
            wait_for(f"the {program.name} is ready", program.ready, seconds=PATIENCE)
        return waits, time.monotonic() - began
    finally:
        ready.set()
        asking.join()


def _asked(client: Client, over: Callable[[], bool]) -> list[float]:
    """How long each request for an object took, until it is over."""
    waits = []
    while not over():
        began = time.monotonic()
        client.get("/api/v1/namespaces/default")
        waits.append(time.monotonic() - began)
        time.sleep(INTERVAL)
    return waits
