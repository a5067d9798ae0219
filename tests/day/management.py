"""A management cluster: a stream of catalogs in the namespace of every hosted cluster, and applications of its own."""

import sys
from pathlib import Path

import pytest

from e2e.testbed.controllers.hosted_catalogs import CATALOGS, STREAM, HostedCatalogs
from e2e.testbed.support.waiting import wait_for
from tests.day.cluster import IMAGES, Cluster, Object, is_ours
from tests.day.programs import Sizes

VERSION = "v4.20"


class ManagementCluster(Cluster):
    """`hosted` hosted clusters at first; each gets its catalogs by tag from a source that only the mirror stands for."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, hosted: int) -> None:
        super().__init__(folder, patch)
        self.operator = HostedCatalogs(self.client, f"{self.source.host}/redhat")
        self.hosted: list[str] = []
        self._made = self._application = 0
        self._first = hosted

    def __exit__(self, *error: object) -> None:
        self.operator.stop()
        super().__exit__(*error)

    def populate(self) -> None:
        """Create the hosted clusters."""
        self.publish("one")
        self.operator.start()
        for _ in range(self._first):
            self.add()

    def publish(self, content: str) -> None:
        """The catalogs get another content: the mirror has it at once."""
        for name in CATALOGS:
            for registry, prefix in ((self.source, ""), (self.mirror, "m/")):
                registry.put(f"{prefix}redhat/{name}-index", VERSION, kind="list", seed=f"{name} {content}")

    def add(self) -> None:
        """Another hosted cluster is created."""
        self.hosted.append(f"clusters-hosted{self._made}")
        self._made += 1
        self.operator.add(self.hosted[-1])

    def remove(self) -> None:
        """The oldest hosted cluster is deleted."""
        self.operator.remove(self.hosted.pop(0))

    def deploy(self) -> int:
        """Another application of the namespace `team` fails, of which only the mirror has the image; the last request before."""
        if self._application:
            self.client.request("DELETE", self._path("team", f"app{self._application}"))
        self._application += 1
        name = f"app{self._application}"
        self._create("team", name, {"v1": name})
        wait_for("its import fails", lambda: self.client.get(self._path("team", name))["status"].get("tags"), step=0.001)
        return self.simulator.server.request_count

    def wait_for_requests(self, count: int) -> None:
        """Wait until the controller has made so many requests since they were asked for last."""
        log = self.simulator.server.requests
        wait_for(f"{count} requests", lambda: sum(is_ours(request) for request in list(log)) >= count, step=0.05)

    def sizes(self) -> Sizes:
        """Also the blocks of memory of the whole process: tracing each would make a day of so many requests last for hours."""
        found = super().sizes()
        return {**found, "blocks": sys.getallocatedblocks()}

    def catalogs(self) -> dict[tuple[str, str], list[Object]]:
        """The history of every catalog, by namespace and tag."""
        streams = [s for s in self.client.get(f"{IMAGES}/imagestreams")["items"] if s["metadata"]["name"] == STREAM]
        return {
            (stream["metadata"]["namespace"], entry["tag"]): entry.get("items") or []
            for stream in streams
            for entry in stream["status"].get("tags") or []
        }

    def settled(self) -> bool:
        """Whether the operator has reconciled every stream at its present generation."""
        streams = [s["metadata"] for s in self.client.get(f"{IMAGES}/imagestreams")["items"] if s["metadata"]["name"] == STREAM]
        return self.operator.observed == {metadata["namespace"]: metadata["generation"] for metadata in streams}
