"""A control plane of a module's own to install mirrorstream on, by its overlays, and what a user does on it then."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mirrorstream.kube.client import Client

from e2e.testbed.backends import NODE, Choice, Shared, free_ports, hosted_plane, hosts_at, start_plane
from e2e.testbed.cluster import Cluster, Namespace
from e2e.testbed.controlplane.build import components
from e2e.testbed.controlplane.definitions import definitions
from e2e.testbed.controlplane.plane import ControlPlane, define
from e2e.testbed.node.images import base
from e2e.testbed.node.product import Product
from e2e.testbed.node.view import NodeView
from e2e.testbed.registries.recorded import Registries
from e2e.testbed.streams import following, tag
from e2e.testbed.support.kustomize import CONFIG
from e2e.testbed.support.waiting import wait_for

Object = dict[str, Any]


@dataclass(frozen=True)
class Bed:
    """A control plane without anything of mirrorstream's, with the custom resources that an installation brings objects of.

    `node` tells of its node, where there is one.
    """

    cluster: Cluster
    plane: ControlPlane
    kubectl: Path
    node: NodeView | None = None

    @property
    def client(self) -> Client:
        """An administrator's."""
        return self.cluster.client

    def installation(self, overlay: str | Path, folder: Path) -> Product:
        """An overlay, by its name or folder, that is not applied yet; what was applied is removed at the end of its context."""
        path = CONFIG / "overlays" / overlay if isinstance(overlay, str) else overlay
        return Product(self.kubectl, self.plane.kubeconfig, path, folder)


@contextmanager
def new_bed(chosen: Choice, folder: Path) -> Iterator[Bed]:
    """A control plane for installations, which are cluster-wide; with a node, if that was chosen."""
    ports = free_ports()
    with ExitStack() as stack:
        registries = stack.enter_context(Registries(ports, base=base() if chosen.backend == NODE else None))
        plane, node = start_plane(stack, folder, chosen, [hosts_at(ports)])
        admin, controls = str(plane.kubeconfig), plane.simulator_kubeconfig()
        shared = Shared(chosen.backend, admin, admin, admin, str(controls) if controls else None, str(plane.audit_log), node=node)
        if chosen.hosted:
            shared = replace(shared, platform=hosted_plane(plane))
        found = Bed(Cluster.of(shared, registries), plane, components() / "kubectl", node)
        define(found.client, definitions())
        yield found


# What a user does.


def mirrored(user: Namespace, name: str = "app") -> tuple[str, str]:
    """A stream whose source is dead, and which only a digest mirror has, healed: what users write, and what pods are to get."""
    user.allow_pulls()
    digest = user.put("good", f"{name}:v1")
    user.digest_mirrors()
    user.create(name, tag("v1", user.source(f"{name}:v1")))
    user.wait_healed(name, "v1", digest)
    return user.source(f"{name}:v1"), f"{user.get(name)['status']['dockerImageRepository']}@{digest}"


def image_of(pod: Object) -> str:
    """The first container's image."""
    return str(pod["spec"]["containers"][0]["image"])


def rewrites(user: Namespace, source: str, target: str) -> bool:
    """Whether a pod would get the internal registry's reference now."""
    return image_of(user.pod("seen", source, dry_run=True)) == target


@dataclass(frozen=True)
class Made:
    """A pod that could be created: since when (monotonic), how many seconds it took, and its first container's image."""

    at: float
    seconds: float
    image: str


class Creating:
    """Creates pods (dry runs) without a pause, from several threads, until it is told to stop; `made` is what came of it.

    `spec` is more of the pods' spec.
    """

    def __init__(self, user: Namespace, source: str, **spec: Any) -> None:
        self._stopped = threading.Event()
        self._user, self._source, self._spec = user, source, spec
        self.made: list[Made] = []
        self._failures: list[Exception] = []
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(4)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        while not self._stopped.is_set():
            began = time.monotonic()
            try:
                image = image_of(self._user.pod("load", self._source, dry_run=True, **self._spec))
                self.made.append(Made(began, time.monotonic() - began, image))
            except Exception as error:  # noqa: BLE001  told to the test
                self._failures.append(error)

    @property
    def images(self) -> list[str]:
        """What the pods got."""
        return [made.image for made in self.made]

    def stop(self) -> None:
        """Stop. Raises AssertionError when a pod could not be created."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        assert self._failures == []


def healed(ns: Namespace, start: Callable[[], Any], name: str = "app") -> tuple[str, str]:
    """A stream whose tag v1 was healed through a mirror: the reference that users write, and what a pod is to get."""
    digest = ns.put("good", f"{name}:v1")
    ns.digest_mirrors()
    start()
    ns.create(name, tag("v1", ns.source(f"{name}:v1")), following("latest", "v1"))
    ns.wait_healed(name, "v1", digest)
    repository = ns.get(name)["status"]["dockerImageRepository"]
    return ns.source(f"{name}:v1"), f"{repository}@{digest}"


def settled(ns: Namespace, source: str, wanted: str) -> None:
    """Wait until the webhook knows what the API server knows: it watches, too."""
    wait_for("the webhook has seen the heal", lambda: rewrites(ns, source, wanted))
