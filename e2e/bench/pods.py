"""What a pod waits for: what admission adds to its creation, and how long it takes to run on a node whose upstream is dead."""

import json
import math
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mirrorstream.kube.client import ApiError, load_client

from e2e.bench.bed import MIRROR_SETS, REGISTRY, TAGS
from e2e.bench.figures import Figure, needs_go, not_measured, percentile
from e2e.bench.reviews import MIRROR_SET, SOURCE, streams
from e2e.testbed.backends import CONTROLPLANE, NODE, Choice, installed
from e2e.testbed.cluster import Namespace
from e2e.testbed.controlplane.build import components
from e2e.testbed.controlplane.plane import ControlPlane
from e2e.testbed.node import build, product
from e2e.testbed.programs.hooks import registered
from e2e.testbed.programs.installed import new_bed
from e2e.testbed.programs.issuers import ServiceCA
from e2e.testbed.programs.program import Webhook
from e2e.testbed.roles import PULL, grant, group
from e2e.testbed.simulator.settings import Settings
from e2e.testbed.streams import tag
from e2e.testbed.support.waiting import wait_for
from e2e.testbed.workloads import deployment_body, pods

Object = dict[str, Any]
REFERENCES = 5_000
"""500 streams with five tags each, about ten times what a cluster is shipped with."""
SHARED = "openshift"
ASKED, NOT_ASKED = "bench-asked", "bench-not-asked"
"""The webhook is registered for pods of the first; clients create pods in either, in turns."""
CLIENTS, PODS, EVERY = 4, 400, 0.04
"""Clients at once, each of which creates a pod every so many seconds: 100 a second is a busy cluster, none at its limit."""
IMAGE_API = "/apis/image.openshift.io/v1"
METRIC = "apiserver_admission_webhook_admission_duration_seconds"
ROUNDS = 30
READY_SECONDS = 60
STEP = 0.01
OVERLAY = "single-node"


@dataclass(frozen=True)
class Histogram:
    """`buckets` are (upper bound, how many are at most that), in order, the last bound infinite."""

    buckets: tuple[tuple[float, float], ...]
    total: float

    @property
    def count(self) -> float:
        """How many were observed."""
        return self.buckets[-1][1] if self.buckets else 0.0

    @property
    def mean(self) -> float:
        """Their mean."""
        return self.total / self.count

    def __sub__(self, earlier: "Histogram") -> "Histogram":
        """What was observed since an earlier reading."""
        before = dict(earlier.buckets)
        return Histogram(tuple((le, count - before.get(le, 0.0)) for le, count in self.buckets), self.total - earlier.total)

    def quantile(self, share: float) -> float:
        """As Prometheus' histogram_quantile: interpolated inside the bucket that it falls into; 0 is the first one's lower end."""
        wanted = share * self.count
        low, below = 0.0, 0.0
        for le, count in self.buckets:
            if count >= wanted:
                return low if math.isinf(le) else low + (le - low) * (wanted - below) / (count - below)
            low, below = le, count
        return low

    def share_within(self, bound: float) -> float:
        """The share that is at most `bound`, which is a bucket's."""
        return dict(self.buckets)[bound] / self.count


def read_histogram(text: str, metric: str, **labels: str) -> Histogram:
    """A histogram of an exposition, summed over the labels that are not named; empty if there is none."""
    buckets: dict[float, float] = {}
    total = 0.0
    for line in text.splitlines():
        series, _, value = line.rpartition(" ")
        name, _, rest = series.partition("{")
        if not name.startswith(metric):
            continue
        found = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        if any(found.get(key) != wanted for key, wanted in labels.items()):
            continue
        if name == f"{metric}_bucket":
            le = float(found["le"])
            buckets[le] = buckets.get(le, 0.0) + float(value)
        elif name == f"{metric}_sum":
            total += float(value)
    return Histogram(tuple(sorted(buckets.items())), total)


@needs_go
def admission(folder: Path) -> list[Figure]:
    """The latency that kube-apiserver's metrics tell, and a pod's creation with and without the webhook."""
    folder = folder / "admission"
    with ExitStack() as stack:
        plane = stack.enter_context(ControlPlane(folder, components(), Settings(internal_registry=REGISTRY)))
        bed = _Bed(stack, plane, folder)
        before = bed.histogram()
        created = bed.create_pods()
        seen = bed.histogram() - before
    asked, not_asked = (sorted(took for namespace, took in created if namespace == wanted) for wanted in (ASKED, NOT_ASKED))
    assert seen.count == len(asked), f"{seen.count:.0f} calls for {len(asked)} pods"
    told = (
        f"p50 {seen.quantile(0.5) * 1e3:.1f} ms, mean {seen.mean * 1e3:.2f} ms; {seen.share_within(0.005):.1%} of "
        f"{seen.count:.0f} within 5 ms, the finest bucket"
    )
    told_by_client = (
        f"p50 {_ms(asked, 50):.1f} ms with it, {_ms(not_asked, 50):.1f} ms without; p99 {_ms(asked, 99):.1f} and "
        f"{_ms(not_asked, 99):.1f} ms; {CLIENTS} clients, {len(created)} pods"
    )
    return [
        Figure("admission of a pod, p99, as kube-apiserver's metrics see it", seen.quantile(0.99) * 1e3, "ms", None, told),
        Figure(
            "added to a pod's creation, p50, as its client sees it", _ms(asked, 50) - _ms(not_asked, 50), "ms", None, told_by_client
        ),
    ]


def _ms(values: list[float], percent: float) -> float:
    return percentile(values, percent) * 1e3


@dataclass
class _Bed:
    """A control plane with healed streams, and a webhook that it asks about the pods of one namespace."""

    stack: ExitStack
    plane: ControlPlane
    folder: Path

    def __post_init__(self) -> None:
        shared = installed(self.plane, CONTROLPLANE)
        self.client = load_client(shared.kubeconfig, in_cluster=False, user_agent="bench")
        # The platform's importer must not meet the streams before they have what they are healed with.
        assert shared.controls, "the simulator serves the image API"
        load_client(shared.controls, in_cluster=False, user_agent="bench").request(
            "POST", "/simulator/import-controller", body={"paused": True}
        )
        for namespace in (ASKED, NOT_ASKED):
            self.client.request("POST", "/api/v1/namespaces", body={"metadata": {"name": namespace}})
        grant(self.client, SHARED, "image-puller", [PULL], group("system:authenticated"))
        self.client.request("POST", MIRROR_SETS, body={"apiVersion": "config.openshift.io/v1", **MIRROR_SET})
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(self._create_stream, streams(REFERENCES)))
        self.webhook = Webhook(Path(shared.webhook), self.folder, {}, log_level="info")
        self.stack.callback(self.webhook.process.kill)
        self.webhook.wait_ready()
        metric = "mirrorstream_webhook_references"
        wait_for("the index is complete", lambda: self.webhook.metric(metric) == REFERENCES, seconds=60)
        self.stack.enter_context(registered(self.webhook, self.client, [ASKED]))
        for namespace, wanted in ((NOT_ASKED, False), (ASKED, True)):
            wait_for(f"pods are made in {namespace}, rewritten or not", partial(self._is_rewritten, namespace, wanted=wanted))

    def _create_stream(self, document: Object) -> None:
        """A stream as a user makes it, then its status, as if its tags had been healed."""
        name = document["metadata"]["name"]
        metadata = {"name": name, "namespace": SHARED, "annotations": document["metadata"]["annotations"]}
        path = f"{IMAGE_API}/namespaces/{SHARED}/imagestreams"
        body = {"apiVersion": "image.openshift.io/v1", "kind": "ImageStream", "metadata": metadata, "spec": document["spec"]}
        made = self.client.request("POST", path, body=body)
        status = {"dockerImageRepository": f"{REGISTRY}/{SHARED}/{name}", "tags": document["status"]["tags"]}
        self.client.request("PUT", f"{path}/{name}/status", body={**made, "status": status})

    def _is_rewritten(self, namespace: str, *, wanted: bool) -> bool:
        """Whether pods are rewritten, or are not, as is `wanted`; neither while the namespace has no service account yet."""
        try:
            return _image(self._post(namespace, 0, {"dryRun": "All"})).startswith(REGISTRY) is wanted
        except ApiError as error:
            if error.status != 403:
                raise
            return False

    def _post(self, namespace: str, number: int, params: dict[str, str] | None = None) -> Object:
        containers = [{"name": "app", "image": f"{SOURCE}/team/application-{number % (REFERENCES // 2 // TAGS)}:v{number % TAGS}"}]
        body = {"metadata": {"generateName": "web-", "labels": {"app": "web"}}, "spec": {"containers": containers}}
        made: Object = self.client.request("POST", f"/api/v1/namespaces/{namespace}/pods", params=params, body=body)
        return made

    def create_pods(self) -> list[tuple[str, float]]:
        """Each pod's namespace, and how many seconds its creation took; several clients, each in either namespace in turns."""
        with ThreadPoolExecutor(CLIENTS) as pool:
            return [found for several in pool.map(lambda client: list(self._created(client)), range(CLIENTS)) for found in several]

    def _created(self, client: int) -> Iterator[tuple[str, float]]:
        due = time.perf_counter()
        for number in range(client, 2 * PODS, CLIENTS):
            time.sleep(max(0.0, due - time.perf_counter()))
            due = max(due + EVERY, time.perf_counter())
            # Neither always comes first: clients begin with one or the other.
            namespace = (ASKED, NOT_ASKED)[(number // CLIENTS + client) % 2]
            began = time.perf_counter()
            made = self._post(namespace, number)
            took = time.perf_counter() - began
            assert _image(made).startswith(REGISTRY if namespace == ASKED else SOURCE), _image(made)
            yield namespace, took

    def histogram(self) -> Histogram:
        """How long kube-apiserver waited for our webhook, since it started."""
        text = self.client.request("GET", "/metrics", decode=bytes).decode()
        return read_histogram(text, METRIC, name="pods.mirrorstream.github.io", operation="CREATE")


def _image(pod: Object) -> str:
    return str(pod["spec"]["containers"][0]["image"])


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
