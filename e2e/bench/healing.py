"""How fast tags heal: 271 as the shipped samples are, simulated and behind a real kube-apiserver; and 5,000 that fail at once."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
from mirrorstream.imagestream.model import ImageStream
from mirrorstream.kube.client import ApiUnreachable, Client, load_client
from mirrorstream.runtime.settings import Settings as Configuration

from e2e.bench.bed import NAMESPACES, SOURCE, Bed, cpu_seconds, failed, mirrored, name_of, namespace_of, spec_tag, whole
from e2e.bench.figures import Figure, needs_go, percentile
from e2e.testbed.backends import CONTROLPLANE, installed
from e2e.testbed.controlplane.build import components
from e2e.testbed.controlplane.plane import ControlPlane
from e2e.testbed.programs.pod_credentials import PodController
from e2e.testbed.programs.program import Controller
from e2e.testbed.registries.registry import DeadPort, Registry
from e2e.testbed.simulator.settings import Settings
from e2e.testbed.support.waiting import wait_for

Object = dict[str, Any]
ALL = "/apis/image.openshift.io/v1/imagestreams"
STREAMS, TAGS = 50, 271
NAMESPACE = "openshift"
PATH = f"/apis/image.openshift.io/v1/namespaces/{NAMESPACE}/imagestreams"
SHAPE = f"{TAGS} tags in {STREAMS} streams, as the shipped samples are"
AT_ONCE = 16
"""Dry runs, as many as the controller makes by default."""
PLATFORM_SHARE, START_SECONDS = 1.3, 1.5
"""A backlog takes at most so many times the time that the platform needs for the dry runs alone, and so long for the start."""
BULK_STREAMS, BULK_TAGS = 500, 10
UNLIMITED = 10_000
"""The highest limit of requests that the configuration takes; nothing reaches it here."""


class Watcher:
    """Follows every stream from now on; `failed` and `healed` say when each `stream:tag` was first seen so."""

    def __init__(self, client: Client) -> None:
        self.failed: dict[str, float] = {}
        self.healed: dict[str, float] = {}
        self._decode = msgspec.json.Decoder(msgspec.defstruct("Event", [("type", str), ("object", ImageStream)])).decode
        version = client.get(ALL)["metadata"]["resourceVersion"]
        self._watch = client.watch(ALL, {"watch": "1", "resourceVersion": version}, read_timeout=300)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for line in self._watch:
                self._see(self._decode(line).object, time.monotonic())  # type: ignore[attr-defined]
        except ApiUnreachable:
            return

    def _see(self, stream: ImageStream, now: float) -> None:
        for tag in stream.status.tags or ():
            name = f"{stream.metadata.name}:{tag.tag}"
            if tag.failure:
                self.failed.setdefault(name, now)
            elif tag.items:
                self.healed.setdefault(name, now)

    def stop(self) -> None:
        """End the watch."""
        self._watch.close()
        self._thread.join(5)


def measure(folder: Path) -> list[Figure]:
    """Each way on a cluster of its own."""
    return [*_running(folder), *_backlog(folder), *_on_a_control_plane(folder), *_bulk(folder)]


def put_images(mirror: Registry) -> None:
    """Put every image into the mirror, under `m`."""
    for number in range(STREAMS):
        for tag in range(TAGS // STREAMS + 1):
            mirror.put(f"m/team/app{number}", f"v{tag}", seed=f"{number}/{tag}")


def streams(upstream: str) -> Iterator[Object]:
    """50 streams with 271 tags between them."""
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
        yield {"metadata": {"name": f"app{number}"}, "spec": {"tags": tags}}


def create(client: Client, upstream: str) -> None:
    """Create the streams."""
    for stream in streams(upstream):
        client.request("POST", PATH, body=stream)


def _bed(stack: ExitStack, folder: Path, *, tls: bool = False) -> Bed:
    bed = Bed(stack, folder, tls=tls)
    put_images(bed.mirror)
    bed.namespaces([NAMESPACE])
    return bed


def _controller(stack: ExitStack, kubeconfig: Path, folder: Path, configuration: Object | None = None) -> Controller:
    controller = Controller(kubeconfig, folder, configuration or {}, "--no-leader-election", log_level="info")
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


def _dry_runs(upstream: str, mirror: str) -> Iterator[Object]:
    """The tags of all streams through the mirror, three of a stream in a request: what the platform is fastest at."""
    for stream in streams(upstream):
        wanted = [
            {
                "from": {"kind": "DockerImage", "name": tag["from"]["name"].replace(upstream, mirror)},
                "to": {"name": tag["name"]},
                "importPolicy": {"importMode": "Legacy"},
                "includeManifest": False,
            }
            for tag in stream["spec"]["tags"]
        ]
        for first in range(0, len(wanted), 3):
            yield {"metadata": stream["metadata"], "spec": {"import": False, "images": wanted[first : first + 3]}}


def platform_alone(client: Client, upstream: str, mirror: str) -> float:
    """How many seconds the platform needs for dry runs of all tags, 16 requests at once, without mirrorstream."""
    path = f"/apis/image.openshift.io/v1/namespaces/{NAMESPACE}/imagestreamimports"
    requests = list(_dry_runs(upstream, mirror))

    def served(body: Object) -> int:
        answer = client.request("POST", path, body=body, timeout=60)
        return sum("image" in image for image in answer["status"]["images"])

    began = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as threads:
        assert sum(threads.map(served, requests)) == TAGS
    return time.monotonic() - began


def _backlog(folder: Path) -> list[Figure]:
    with ExitStack() as stack:
        bed = _bed(stack, folder / "backlog", tls=True)
        pod = bed.pod_environment()
        create(bed.client, bed.upstream)
        wait_for("all have failed", lambda: _conditions(bed.client) == TAGS, seconds=120, step=0.2)
        alone = platform_alone(bed.client, bed.upstream, f"{bed.mirror.host}/m")
        watcher = Watcher(bed.client)
        stack.callback(watcher.stop)
        began, mark = time.monotonic(), bed.mark()
        controller = PodController(None, folder, {}, "--no-leader-election", log_level="info", environment=pod)
        stack.callback(controller.process.kill)
        wait_for("all heal", lambda: len(watcher.healed) == TAGS, seconds=120)
        seconds = max(watcher.healed.values()) - began
        cpu = cpu_seconds(controller.process.pid)
        requests = len(bed.requests(mark, "^mirrorstream"))
    told = f"the platform alone {alone:.1f} s for {TAGS} dry runs in threes, {AT_ONCE} at once: {seconds / alone:.1f} times that; "
    told += f"{cpu / TAGS * 1000:.1f} ms of its own CPU and {requests / TAGS:.1f} requests a tag; the start included"
    how = f"{SHAPE}, all failed on the simulator before the process starts as in a pod; the last heal that a watch sees. The limit "
    how += f"is {PLATFORM_SHARE:g} times the platform's own time in the same run, and {START_SECONDS:g} s for the start."
    limit = round(PLATFORM_SHARE * alone + START_SECONDS, 1)
    return [Figure(f"from the controller's start until a backlog of {TAGS} is healed", seconds, "s", limit, told, how)]


def _conditions(client: Client) -> int:
    items: list[Any] = client.get(PATH)["items"]
    return sum(bool(tag.get("conditions")) for stream in items for tag in stream["status"].get("tags") or [])


@needs_go
def _on_a_control_plane(folder: Path) -> list[Figure]:
    programs = components()
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


def _bulk(folder: Path) -> list[Figure]:
    """With the configuration as it comes, and with no limit on requests, which shows the next one."""
    rate = Configuration().controller.apiRequestsPerSecond
    return [*_bulk_at(folder / "limited", rate), *_bulk_at(folder / "unlimited", UNLIMITED)]


def _bulk_streams() -> Iterator[Object]:
    for number in range(BULK_STREAMS):
        source = f"{SOURCE}/team/{name_of(number)}"
        tags = [f"v{tag}" for tag in range(BULK_TAGS)]
        yield whole(number, [spec_tag(source, tag) for tag in tags], [failed(source, tag) for tag in tags])


def _bulk_at(folder: Path, rate: float) -> list[Figure]:
    total = BULK_STREAMS * BULK_TAGS
    with ExitStack() as stack:
        bed = Bed(stack, folder, source=SOURCE)
        bed.namespaces(namespace_of(number) for number in range(NAMESPACES))
        for number in range(BULK_STREAMS):
            for tag in range(BULK_TAGS):
                bed.mirror.put(f"m/team/{name_of(number)}", f"v{tag}", seed=f"{number}/{tag}")
        controller = _controller(stack, bed.kubeconfig, folder, {"controller": {"apiRequestsPerSecond": rate}})
        controller.wait_ready()
        watcher = Watcher(bed.client)
        stack.callback(watcher.stop)
        pids = controller.process.pid, bed.simulator.pid
        mark, before, began, own = bed.mark(), [cpu_seconds(pid) for pid in pids], time.monotonic(), time.process_time()
        bed.store(_bulk_streams())
        simulated = cpu_seconds(bed.simulator.pid) - before[1]
        wait_for("all heal", lambda: len(watcher.healed) == total, seconds=300, step=0.1)
        seconds = max(watcher.healed.values()) - began
        own = time.process_time() - own
        cpu, simulator = (cpu_seconds(pid) - used for pid, used in zip(pids, before, strict=True))
        requests = len(bed.requests(mark, "^mirrorstream-controller"))
    simulator -= simulated
    unlimited = rate == UNLIMITED
    asked = f"{requests / seconds:.0f} requests a second" + (
        "" if unlimited else f" of {rate:g} (apiRequestsPerSecond) after a burst"
    )
    shares = {"mirrorstream": cpu, "the simulator": simulator, "mirror and watch": own}
    told = f"{asked}; of a core use " + ", ".join(f"{who} {used / seconds:.0%}" for who, used in shares.items())
    name = f"{total:,} tags failing together" + (", with no limit on requests" if unlimited else "")
    how = f"{BULK_STREAMS} streams of {BULK_TAGS} tags appear on the simulator as failed, the controller running; "
    how += "a watch sees the heals."
    figures = [Figure(f"{name}: healed", total / seconds, "tags a second", None, told, how)]
    told = f"the simulator's {simulator / total * 1e3:.1f} ms; {requests / total:.2f} requests"
    how = "User and kernel time of the process from the moment before the streams appeared to the last heal, its start excluded."
    return [*figures, Figure(f"{name}: the controller's CPU for each", cpu / total * 1e3, "ms", 5.0, told, how)]
