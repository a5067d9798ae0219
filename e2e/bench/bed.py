"""What is measured on: a simulated cluster as a process of its own, a mirror, and an upstream that nobody reaches."""

import json
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
from mirrorstream.kube.client import ApiUnreachable, Client, load_client

from e2e.bench.population import REGISTRY
from e2e.kubeconfig import write_kubeconfig
from e2e.ports import free_port
from e2e.processes import Process
from e2e.registry import DeadPort, Registry
from e2e.waiting import wait_for

PROJECT = Path(__file__).parents[2]
MIRROR_SETS = "/apis/config.openshift.io/v1/imagedigestmirrorsets"
AT_ONCE = 500
"""Streams are stored so many at a time."""


def mirrored(client: Client, source: str, mirror: str) -> None:
    """Have `source` mirrored at `mirror`, a host with a path."""
    body = {"metadata": {"name": "mirrored"}, "spec": {"imageDigestMirrors": [{"source": source, "mirrors": [mirror]}]}}
    kind = {"apiVersion": "config.openshift.io/v1", "kind": "ImageDigestMirrorSet"}
    client.request("POST", MIRROR_SETS, body={**kind, **body})


class Bed:
    """A running cluster with one mirror set; it ends with `stack`."""

    def __init__(self, stack: ExitStack, folder: Path, *, source: str = "") -> None:
        """`source` is the registry that is mirrored, by default the one that nobody reaches."""
        folder.mkdir(exist_ok=True)
        self.upstream = stack.enter_context(DeadPort()).host
        self.mirror = stack.enter_context(Registry())
        port = free_port()
        settings = folder / "settings.json"
        sources = {"insecureRegistries": [self.mirror.host]}
        settings.write_text(json.dumps({"imageConfig": {"registrySources": sources}, "internalRegistryHostname": REGISTRY}))
        command = [sys.executable, "-m", "e2e.simulator", "--port", str(port), "--settings", str(settings)]
        self.simulator = Process("simulator", command, folder / "simulator.log", folder=PROJECT)
        stack.callback(self.simulator.kill)
        self.kubeconfig = write_kubeconfig(folder / "kubeconfig", f"http://127.0.0.1:{port}")
        self.client = load_client(str(self.kubeconfig), in_cluster=False, user_agent="bench")
        wait_for("the cluster is up", self._up)
        mirrored(self.client, source or self.upstream, f"{self.mirror.host}/m")

    def _up(self) -> bool:
        try:
            self.client.request("GET", "/version")
        except ApiUnreachable:
            return False
        return True

    def namespaces(self, names: Iterable[str]) -> None:
        """Create namespaces."""
        for name in names:
            self.client.request("POST", "/api/v1/namespaces", body={"metadata": {"name": name}})

    def store(self, streams: Iterable[dict[str, Any]]) -> None:
        """Store streams with their status."""
        batch: list[dict[str, Any]] = []
        for each in streams:
            batch.append(each)
            if len(batch) == AT_ONCE:
                self._store(batch)
                batch = []
        if batch:
            self._store(batch)

    def _store(self, items: list[dict[str, Any]]) -> None:
        self.client.request("POST", "/simulator/streams", body=msgspec.json.encode({"items": items}), timeout=60)

    def mark(self) -> int:
        """Where the log of requests is now."""
        return int(self.client.request("GET", "/simulator/requests", params={"userAgent": "^nobody$"})["last"])

    def requests(self, mark: int, user_agent: str) -> list[dict[str, Any]]:
        """The requests of a program since a mark."""
        params = {"since": str(mark), "userAgent": user_agent}
        found: list[dict[str, Any]] = self.client.request("GET", "/simulator/requests", params=params, timeout=60)["requests"]
        return found
