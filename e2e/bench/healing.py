"""How fast tags heal: 271 in 50 streams, as the shipped samples are, simulated and behind a real kube-apiserver."""

import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mirrorstream.kube.client import Client, load_client

from e2e.backends import CONTROLPLANE, installed
from e2e.bench.bed import Bed, mirrored
from e2e.bench.figures import Figure, percentile
from e2e.bench.usage import cpu_seconds
from e2e.bench.watcher import Watcher
from e2e.controlplane.build import components
from e2e.controlplane.plane import ControlPlane
from e2e.gobuild import GoMissingError
from e2e.registry import DeadPort, Registry
from e2e.scenarios.program import Controller
from e2e.simulator.settings import Settings
from e2e.waiting import wait_for

STREAMS, TAGS = 50, 271
NAMESPACE = "openshift"
PATH = f"/apis/image.openshift.io/v1/namespaces/{NAMESPACE}/imagestreams"
SHAPE = f"{TAGS} tags in {STREAMS} streams, as the shipped samples are"


def measure(folder: Path) -> list[Figure]:
    """Each way on a cluster of its own."""
    return [*_running(folder), *_backlog(folder), *_on_a_control_plane(folder)]


def put_images(mirror: Registry) -> None:
    """Put every image into the mirror, under `m`."""
    for number in range(STREAMS):
        for tag in range(TAGS // STREAMS + 1):
            mirror.put(f"m/team/app{number}", f"v{tag}", seed=f"{number}/{tag}")


def create(client: Client, upstream: str) -> None:
    """Create 50 streams with 271 tags between them."""
    for number in range(STREAMS):
        count = TAGS // STREAMS + (1 if number < TAGS % STREAMS else 0)
        tags = [
            {
                "name": f"v{tag}",
                "from": {"kind": "DockerImage", "name": f"{upstream}/team/app{number}:v{tag}"},
                "referencePolicy": {"type": "Local"},
            }
            for tag in range(count)
        ]
        client.request("POST", PATH, body={"metadata": {"name": f"app{number}"}, "spec": {"tags": tags}})


def _bed(stack: ExitStack, folder: Path) -> Bed:
    bed = Bed(stack, folder)
    put_images(bed.mirror)
    bed.namespaces([NAMESPACE])
    return bed


def _controller(stack: ExitStack, kubeconfig: Path, folder: Path) -> Controller:
    controller = Controller(kubeconfig, folder, {}, "--no-leader-election", log_level="info")
    stack.callback(controller.process.kill)
    return controller


def _seen(stack: ExitStack, client: Client, upstream: str) -> Watcher:
    """What a watch sees of streams that are created now, until all their tags are healed."""
    watcher = Watcher(client)
    stack.callback(watcher.stop)
    create(client, upstream)
    wait_for("all heal", lambda: len(watcher.healed) == TAGS, seconds=120)
    return watcher


def _waits(watcher: Watcher) -> list[float]:
    return [at - watcher.failed[name] for name, at in watcher.healed.items() if name in watcher.failed]


def _running(folder: Path) -> list[Figure]:
    with ExitStack() as stack:
        bed = _bed(stack, folder / "running")
        _controller(stack, bed.kubeconfig, folder).wait_ready()
        watcher = _seen(stack, bed.client, bed.upstream)
    waits = _waits(watcher)
    span = max(watcher.healed.values()) - min(watcher.failed.values())
    told = (
        f"p50 {percentile(waits, 50) * 1000:.0f} ms; all within {span:.1f} s of the first failure; {len(waits)} tags seen to fail"
    )
    how = f"{SHAPE}, created on the simulator with the controller running; a watch sees each tag's failure and its heal."
    return [Figure("from a tag's failure to its heal, p99, all failing together", percentile(waits, 99), "s", 1.0, told, how)]


def _backlog(folder: Path) -> list[Figure]:
    with ExitStack() as stack:
        bed = _bed(stack, folder / "backlog")
        create(bed.client, bed.upstream)
        wait_for("all have failed", lambda: _conditions(bed.client) == TAGS, seconds=120, step=0.2)
        watcher = Watcher(bed.client)
        stack.callback(watcher.stop)
        began = time.monotonic()
        controller = _controller(stack, bed.kubeconfig, folder)
        wait_for("all heal", lambda: len(watcher.healed) == TAGS, seconds=120)
        seconds = max(watcher.healed.values()) - began
        cpu = cpu_seconds(controller.process.pid)
    told = f"{TAGS / seconds:.0f} tags a second; {cpu / TAGS * 1000:.1f} ms of its own CPU a tag, its start included"
    how = f"{SHAPE}, all failed on the simulator before the process starts; the last heal that a watch sees."
    return [Figure(f"from the controller's start until a backlog of {TAGS} is healed", seconds, "s", 4.0, told, how)]


def _conditions(client: Client) -> int:
    items: list[Any] = client.get(PATH)["items"]
    return sum(bool(tag.get("conditions")) for stream in items for tag in stream["status"].get("tags") or [])


def _on_a_control_plane(folder: Path) -> list[Figure]:
    try:
        programs = components()
    except GoMissingError as error:
        print(f"NOT MEASURED on the control plane: {error}", file=sys.stderr, flush=True)
        return []
    with ExitStack() as stack:
        upstream = stack.enter_context(DeadPort()).host
        mirror = stack.enter_context(Registry())
        put_images(mirror)
        settings = Settings({"registrySources": {"insecureRegistries": [mirror.host]}})
        plane = stack.enter_context(ControlPlane(folder / "plane", programs, settings))
        shared = installed(plane, CONTROLPLANE)
        client = load_client(shared.kubeconfig, in_cluster=False, user_agent="bench")
        mirrored(client, upstream, f"{mirror.host}/m")
        _controller(stack, Path(shared.program), folder).wait_ready()
        watcher = _seen(stack, client, upstream)
    waits = _waits(watcher)
    first, last, healed = min(watcher.failed.values()), max(watcher.failed.values()), max(watcher.healed.values())
    told = f"from a tag's failure to its heal p50 {percentile(waits, 50):.2f} s, p99 {percentile(waits, 99):.2f} s; "
    told += f"all have failed {last - first:.1f} s after the first; {len(waits)} tags seen to fail"
    how = (
        f"{SHAPE}, created behind a real kube-apiserver with the controller running under its own service account; the importer is "
    )
    how += "the simulator's. From the last failure that a watch sees to the last heal."
    name = f"control plane: {TAGS} tags healed after the last failure"
    return [Figure(name, healed - last, "s", 4.0, told, how)]
