"""How fast tags heal: 271 in 50 streams, as the shipped samples are, with the controller running and from a cold start."""

import json
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
from mirrorstream.imagestreams import ImageStream
from mirrorstream.kube.client import ApiUnreachable, Client, load_client

from e2e.bench.figures import Figure, percentile
from e2e.kubeconfig import write_kubeconfig
from e2e.ports import free_port
from e2e.registry import DeadPort, Registry
from e2e.scenarios.program import Controller
from e2e.waiting import wait_for

STREAMS, TAGS = 50, 271
NAMESPACE = "openshift"
PATH = f"/apis/image.openshift.io/v1/namespaces/{NAMESPACE}/imagestreams"


class Watcher:
    """Sees each tag's failure and its heal as a watch brings them."""

    def __init__(self, client: Client) -> None:
        self.failed: dict[str, float] = {}
        self.healed: dict[str, float] = {}
        self._decode = msgspec.json.Decoder(msgspec.defstruct("Event", [("type", str), ("object", ImageStream)])).decode
        version = client.get(PATH)["metadata"]["resourceVersion"]
        self._watch = client.watch(PATH, {"watch": "1", "resourceVersion": version}, read_timeout=300)
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


def _create(client: Client, upstream: str) -> None:
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
        client.request("POST", PATH, body={"metadata": {"name": f"app{number}"}, "spec": {"tags": tags}})


def measure(folder: Path) -> list[Figure]:
    """Both ways, each on a cluster of its own."""
    return [*_running(folder), *_backlog(folder)]


class _Bed:
    """A cluster as a process of its own, a mirror with every image, and an upstream that nobody reaches."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self.upstream = stack.enter_context(DeadPort()).host
        mirror = stack.enter_context(Registry())
        for number in range(STREAMS):
            for tag in range(TAGS // STREAMS + 1):
                mirror.put(f"m/team/app{number}", f"v{tag}", seed=f"{number}/{tag}")
        port = free_port()
        settings = folder / "settings.json"
        settings.write_text(json.dumps({"imageConfig": {"registrySources": {"insecureRegistries": [mirror.host]}}}))
        command = [sys.executable, "-m", "e2e.simulator", "--port", str(port), "--settings", str(settings)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        stack.callback(process.wait)
        stack.callback(process.terminate)
        self.kubeconfig = write_kubeconfig(folder / "kubeconfig", f"http://127.0.0.1:{port}")
        self.client = load_client(str(self.kubeconfig), in_cluster=False, user_agent="bench")
        wait_for("the cluster is up", self._up)
        self.client.request("POST", "/api/v1/namespaces", body={"metadata": {"name": NAMESPACE}})
        entry = {"source": self.upstream, "mirrors": [f"{mirror.host}/m"]}
        body = {"metadata": {"name": "m"}, "spec": {"imageDigestMirrors": [entry]}}
        self.client.request("POST", "/apis/config.openshift.io/v1/imagedigestmirrorsets", body=body)

    def _up(self) -> bool:
        try:
            self.client.request("GET", "/version")
        except ApiUnreachable:
            return False
        return True


def _running(folder: Path) -> list[Figure]:
    with ExitStack() as stack:
        bed = _Bed(stack, folder)
        controller = Controller(bed.kubeconfig, folder, {}, "--no-leader-election")
        stack.callback(controller.stop)
        controller.wait_ready()
        watcher = Watcher(bed.client)
        stack.callback(watcher.stop)
        _create(bed.client, bed.upstream)
        wait_for("all heal", lambda: len(watcher.healed) == TAGS, seconds=120)
        waits = [at - watcher.failed[name] for name, at in watcher.healed.items() if name in watcher.failed]
        span = max(watcher.healed.values()) - min(watcher.failed.values())
    told = (
        f"p50 {percentile(waits, 50) * 1000:.0f} ms; all within {span:.1f} s of the first failure; {len(waits)} tags seen to fail"
    )
    return [Figure("from a tag's failure to its heal, p99, all failing together", percentile(waits, 99), "s", 1.0, told)]


def _backlog(folder: Path) -> list[Figure]:
    with ExitStack() as stack:
        bed = _Bed(stack, folder)
        _create(bed.client, bed.upstream)
        wait_for("all have failed", lambda: _conditions(bed.client) == TAGS, seconds=120, step=0.2)
        watcher = Watcher(bed.client)
        stack.callback(watcher.stop)
        began = time.monotonic()
        controller = Controller(bed.kubeconfig, folder, {}, "--no-leader-election")
        stack.callback(controller.stop)
        wait_for("all heal", lambda: len(watcher.healed) == TAGS, seconds=120)
        seconds = max(watcher.healed.values()) - began
        cpu = controller.metric("process_cpu_seconds_total")
    told = f"{TAGS / seconds:.0f} tags a second; {cpu / TAGS * 1000:.1f} ms of its own CPU a tag, its start included" if cpu else ""
    return [Figure(f"from the controller's start until a backlog of {TAGS} is healed", seconds, "s", 4.0, told)]


def _conditions(client: Client) -> int:
    items: list[Any] = client.get(PATH)["items"]
    return sum(bool(tag.get("conditions")) for stream in items for tag in stream["status"].get("tags") or [])
