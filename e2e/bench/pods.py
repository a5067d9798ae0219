"""How long a pod takes to run on a node whose upstream is dead."""

import json
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from e2e.bench.figures import Figure, not_measured, percentile
from e2e.testbed.backends import NODE, Choice
from e2e.testbed.cluster import Namespace
from e2e.testbed.node import build, product
from e2e.testbed.programs.installed import new_bed
from e2e.testbed.programs.issuers import ServiceCA
from e2e.testbed.streams import tag
from e2e.testbed.support.waiting import wait_for
from e2e.testbed.workloads import deployment_body, pods

ROUNDS = 30
READY_SECONDS = 60
STEP = 0.01
OVERLAY = "single-node"


def on_a_node(folder: Path) -> list[Figure]:
    """Both in turns, each pod with an image that the node does not have."""
    if reason := build.missing() or product.missing():
        return not_measured("pods", reason)
    with ExitStack() as stack:
        bed = stack.enter_context(new_bed(Choice(NODE), folder / "pods"))
        assert bed.node
        digest = product.push(bed.node.registry, Path(bed.node.authority), folder / "push")
        overlay = product.overlay_of(folder / "overlay", OVERLAY, bed.node, digest)
        program = product.Product(bed.kubectl, bed.plane.kubeconfig, overlay, folder)
        stack.enter_context(program).install(ServiceCA(bed.client, folder).issue)
        user = stack.enter_context(bed.cluster.namespace())
        user.allow_pulls()
        user.digest_mirrors()
        user.wait_pull_secret()
        dead, healthy = [], []
        for number in range(ROUNDS):
            user.put("good", f"dead{number}:1")
            bed.cluster.put("other", f"{user.name}/healthy{number}", "1")
            dead.append(_ready(program, user, f"dead{number}", user.source(f"dead{number}:1"), folder))
            healthy.append(_ready(program, user, f"healthy{number}", user.source(f"healthy{number}:1", "other"), folder))
    how = (
        f"`kubectl apply` of an ImageStream and a Deployment of its image in one file, {ROUNDS} times in turns with one from a "
        "healthy upstream; mirrorstream has its shipped configuration. Until the API server says that the pod is ready."
    )
    beside = f"healthy upstream p50 {percentile(healthy, 50):.2f} s, p99 {percentile(healthy, 99):.2f} s"
    told = f"p99 {percentile(dead, 99):.2f} s; {beside}"
    more = percentile(dead, 50) - percentile(healthy, 50)
    name = "from apply of a stream and its Deployment to Ready, upstream dead, p50"
    return [
        Figure(name, percentile(dead, 50), "s", None, told, how),
        Figure("the same beyond that with a healthy upstream, p50", more, "s", 1.0, told, how),
    ]


def _ready(program: product.Product, user: Namespace, name: str, source: str, folder: Path) -> float:
    """Seconds until the pod is ready. It is deleted afterwards."""
    meta = {"name": name, "namespace": user.name}
    stream = {"apiVersion": "image.openshift.io/v1", "kind": "ImageStream", "metadata": meta, "spec": {"tags": [tag("1", source)]}}
    deployment: dict[str, Any] = {**deployment_body(name, source), "metadata": meta}
    file = folder / "objects.json"
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": [stream, deployment]}), encoding="utf-8")
    began = time.monotonic()
    program.kubectl("apply", "-f", file)
    selector = f"app={name}"
    wait_for(f"{name} is ready", lambda: any(pod.ready for pod in pods(user, selector)), seconds=READY_SECONDS, step=STEP)
    seconds = time.monotonic() - began
    user.client.request("DELETE", f"/apis/apps/v1/namespaces/{user.name}/deployments/{name}")
    wait_for(
        f"{name} is gone", lambda: not user.client.get(f"/api/v1/namespaces/{user.name}/pods", {"labelSelector": selector})["items"]
    )
    return seconds
