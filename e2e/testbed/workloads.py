"""Pods on a node, as their owners see them."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from e2e.testbed.cluster import Namespace
from e2e.testbed.support.waiting import PATIENCE, wait_for

Object = dict[str, Any]
T = TypeVar("T")
HANGS = ("ErrImagePull", "ImagePullBackOff", "RegistryUnavailable")
"""Reasons of a container whose image cannot be pulled; the last one is CRI-O's for a refused connection."""


@dataclass(frozen=True)
class PodState:
    """A pod's status: `digests`, `waiting` reasons and `restarts` by container, those of init containers too."""

    name: str
    phase: str
    ready: bool
    digests: dict[str, str]
    waiting: dict[str, str]
    restarts: int

    @property
    def hangs(self) -> bool:
        """Whether an image cannot be pulled."""
        return any(reason in HANGS for reason in self.waiting.values())


def state(pod: Object) -> PodState:
    """Read a pod's status."""
    status = pod.get("status") or {}
    conditions = {c["type"]: c["status"] for c in status.get("conditions") or []}
    containers = [
        container
        for name in ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")
        for container in status.get(name) or []
    ]
    return PodState(
        pod["metadata"]["name"],
        status.get("phase", ""),
        conditions.get("Ready") == "True",
        # The name before the digest may be another one under which the node pulled it before.
        {c["name"]: c["imageID"].rpartition("@")[2] for c in containers if c.get("imageID")},
        {c["name"]: c["state"]["waiting"].get("reason", "") for c in containers if "waiting" in (c.get("state") or {})},
        sum(c.get("restartCount", 0) for c in containers),
    )


def pods(ns: Namespace, selector: str = "") -> list[PodState]:
    """The namespace's pods, those that are ending left out."""
    params = {"labelSelector": selector} if selector else {}
    items = ns.client.get(f"/api/v1/namespaces/{ns.name}/pods", params).get("items") or []
    return [state(item) for item in items if not item["metadata"].get("deletionTimestamp")]


def pod(ns: Namespace, name: str) -> PodState:
    """One pod."""
    return state(ns.client.get(f"/api/v1/namespaces/{ns.name}/pods/{name}"))


def wait_running(ns: Namespace, name: str, *, seconds: float = PATIENCE) -> PodState:
    """Wait until a pod runs and is ready."""
    return _wait(f"the pod {name} runs", ns, lambda: found if (found := pod(ns, name)).ready else None, seconds)


def wait_hanging(ns: Namespace, name: str) -> PodState:
    """Wait until a pod's image cannot be pulled."""
    return _wait(f"the pod {name} hangs", ns, lambda: found if (found := pod(ns, name)).hangs else None, 20)


def wait_all_running(ns: Namespace, count: int, selector: str = "", *, seconds: float = PATIENCE) -> list[PodState]:
    """Wait until exactly so many pods run and are ready."""

    def running() -> list[PodState] | None:
        found = pods(ns, selector)
        return found if len(found) == count and all(pod.ready for pod in found) else None

    return _wait(f"{count} pods run", ns, running, seconds)


def _wait(what: str, ns: Namespace, condition: Callable[[], T | None], seconds: float) -> T:
    """Wait; an error shows how the pods are, and what the node said about them."""
    try:
        return wait_for(what, condition, seconds=seconds, step=0.05)
    except AssertionError as error:
        events = ns.client.get(f"/api/v1/namespaces/{ns.name}/events").get("items") or []
        told = [f"{e['involvedObject'].get('name')}: {e['reason']}: {e.get('message', '')}"[:300] for e in events[-15:]]
        raise AssertionError("\n".join([str(error), *map(str, pods(ns)), *told])) from None


def deployment(ns: Namespace, name: str, *images: str, replicas: int = 1, **spec: Any) -> Object:
    """Create a Deployment; its pods have the label `app`."""
    return ns.make("apps/v1/deployments", deployment_body(name, *images, replicas=replicas, **spec))


def deployment_body(name: str, *images: str, replicas: int = 1, **spec: Any) -> Object:
    """A Deployment whose pods have the label `app`, and `spec` besides a container for each image."""
    labels = {"app": name}
    containers = [{"name": f"c{number}", "image": image} for number, image in enumerate(images)]
    template = {"metadata": {"labels": labels}, "spec": {"containers": containers, "terminationGracePeriodSeconds": 1, **spec}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
    }


ORIGINALS = "mirrorstream.github.io/original-images"


def images(pod: Object) -> list[str]:
    """The images of a pod's containers."""
    return [container["image"] for container in pod["spec"]["containers"]]


def originals(pod: Object) -> Any:
    """What the annotation says; None without it."""
    text = (pod["metadata"].get("annotations") or {}).get(ORIGINALS)
    return json.loads(text) if text else None
