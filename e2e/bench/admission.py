"""What admission adds to a pod's creation, on a real control plane with streams that our webhook knows."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from mirrorstream.kube.client import ApiError, load_client

from e2e.bench.bed import MIRROR_SETS, REGISTRY, SOURCE, TAGS
from e2e.bench.figures import Figure, needs_go, percentile
from e2e.bench.histograms import Histogram, read_histogram
from e2e.bench.reviews import MIRROR_SET, streams
from e2e.testbed.backends import CONTROLPLANE, installed
from e2e.testbed.controlplane.build import components
from e2e.testbed.controlplane.plane import MASTERS, ControlPlane
from e2e.testbed.load import Load, Outcome
from e2e.testbed.programs.hooks import registered
from e2e.testbed.programs.program import Webhook
from e2e.testbed.roles import PULL, grant, group
from e2e.testbed.simulator.settings import Settings
from e2e.testbed.support.waiting import wait_for

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
DIFFERENT = 50
"""So many different pods are created in turn."""
POST_SECONDS = 60


@needs_go
def admission(folder: Path) -> list[Figure]:
    """The latency that kube-apiserver's metrics tell, and a pod's creation with and without the webhook."""
    with ExitStack() as stack:
        bed = Bed(stack, folder / "admission", [ASKED, NOT_ASKED], REFERENCES)
        bed.register(bed.webhook(), ASKED)
        bed.wait_made(NOT_ASKED, rewritten=False)
        before = bed.histogram()
        created = _create_pods(bed)
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


def _create_pods(bed: "Bed") -> list[tuple[str, float]]:
    """Each pod's namespace, and how many seconds its creation took; several clients, each in either namespace in turns."""
    with ThreadPoolExecutor(CLIENTS) as pool:
        found = pool.map(lambda client: list(_created(bed, client)), range(CLIENTS))
        return [pod for several in found for pod in several]


def _created(bed: "Bed", client: int) -> Iterator[tuple[str, float]]:
    due = time.perf_counter()
    for number in range(client, 2 * PODS, CLIENTS):
        time.sleep(max(0.0, due - time.perf_counter()))
        due = max(due + EVERY, time.perf_counter())
        # Neither always comes first: clients begin with one or the other.
        namespace = (ASKED, NOT_ASKED)[(number // CLIENTS + client) % 2]
        began = time.perf_counter()
        made = bed.post(namespace, pod_body(number))
        took = time.perf_counter() - began
        assert image_of(made).startswith(REGISTRY if namespace == ASKED else SOURCE), image_of(made)
        yield namespace, took


def reference(number: int) -> str:
    """One of the references that the first streams claim by a tag."""
    return f"{SOURCE}/team/application-{number % DIFFERENT}:v{number % TAGS}"


def pod_body(number: int, **labels: str) -> Object:
    """A pod as a controller creates it, of one of the images that the webhook rewrites."""
    metadata = {"generateName": "web-", "labels": {"app": "web", **labels}}
    return {"metadata": metadata, "spec": {"containers": [{"name": "app", "image": reference(number)}]}}


def image_of(pod: Object) -> str:
    """The image of a pod's first container."""
    return str(pod["spec"]["containers"][0]["image"])


class Bed:
    """A control plane with healed streams in a shared namespace and with `namespaces`; it ends with `stack`."""

    def __init__(self, stack: ExitStack, folder: Path, namespaces: Sequence[str], references: int) -> None:
        self._stack, self.folder, self._references = stack, folder, references
        self.plane = stack.enter_context(ControlPlane(folder, components(), Settings(internal_registry=REGISTRY)))
        self._shared = installed(self.plane, CONTROLPLANE)
        self.client = load_client(self._shared.kubeconfig, in_cluster=False, user_agent="bench")
        # The platform's importer must not meet the streams before they have what they are healed with.
        assert self._shared.controls, "the simulator serves the image API"
        load_client(self._shared.controls, in_cluster=False, user_agent="bench").request(
            "POST", "/simulator/import-controller", body={"paused": True}
        )
        for namespace in namespaces:
            self.client.request("POST", "/api/v1/namespaces", body={"metadata": {"name": namespace}})
        grant(self.client, SHARED, "image-puller", [PULL], group("system:authenticated"))
        self.client.request("POST", MIRROR_SETS, body={"apiVersion": "config.openshift.io/v1", **MIRROR_SET})
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(self._create_stream, streams(references)))
        pair = self.plane.authority.issue("system:creator", group=MASTERS)
        self._certificate = (pair.certificate, pair.key)

    def webhook(self) -> Webhook:
        """Another replica of the webhook, which knows all streams."""
        webhook = Webhook(Path(self._shared.webhook), self.folder, {}, log_level="info")
        self._stack.callback(webhook.process.kill)
        webhook.wait_ready()
        metric = "mirrorstream_webhook_references"
        wait_for("the index is complete", lambda: webhook.metric(metric) == self._references, seconds=60)
        return webhook

    def register(
        self, webhook: Webhook, namespace: str, change: Callable[[Object], Any] = lambda entry: None, **labels: str
    ) -> None:
        """Have kube-apiserver ask a webhook about the pods of a namespace; wait until it does about one with `labels`."""
        self._stack.enter_context(registered(webhook, self.client, [namespace], change))
        self.wait_made(namespace, rewritten=True, **labels)

    def wait_made(self, namespace: str, *, rewritten: bool, **labels: str) -> None:
        """Wait until pods of a namespace are rewritten, or until they are made and are not."""
        wait = partial(self._is_made, namespace, pod_body(0, **labels), rewritten=rewritten)
        wait_for(f"pods are made in {namespace}, rewritten or not", wait)

    def _is_made(self, namespace: str, body: Object, *, rewritten: bool) -> bool:
        """False while the namespace has no service account yet."""
        try:
            return image_of(self.post(namespace, body, dryRun="All")).startswith(REGISTRY) is rewritten
        except ApiError as error:
            if error.status != 403:
                raise
            return False

    def _create_stream(self, document: Object) -> None:
        """A stream as a user makes it, then its status, as if its tags had been healed."""
        name = document["metadata"]["name"]
        metadata = {"name": name, "namespace": SHARED, "annotations": document["metadata"]["annotations"]}
        path = f"{IMAGE_API}/namespaces/{SHARED}/imagestreams"
        body = {"apiVersion": "image.openshift.io/v1", "kind": "ImageStream", "metadata": metadata, "spec": document["spec"]}
        made = self.client.request("POST", path, body=body)
        status = {"dockerImageRepository": f"{REGISTRY}/{SHARED}/{name}", "tags": document["status"]["tags"]}
        self.client.request("PUT", f"{path}/{name}/status", body={**made, "status": status})

    def post(self, namespace: str, body: Object, **params: str) -> Object:
        """The pod as it is created."""
        made: Object = self.client.request("POST", f"/api/v1/namespaces/{namespace}/pods", params=params, body=body)
        return made

    def create(self, namespace: str, bodies: list[Object], *, clients: int, count: int, every: float = 0) -> Outcome:
        """Have a Go client create so many pods, with a connection for each of its `clients`."""
        path = f"/api/v1/namespaces/{namespace}/pods"
        load = Load(
            self.plane.server + path,
            bodies,
            self.folder,
            ca=self.plane.authority.certificate,
            certificate=self._certificate,
            connections=clients,
            count=count,
            every=every,
            timeout=POST_SECONDS,
            pods=True,
        )
        return load.outcome(stop=False)

    def delete_pods(self, namespace: str) -> None:
        """Delete all pods of a namespace: later ones are not created beside them."""
        path = f"/api/v1/namespaces/{namespace}/pods"
        self.client.request("DELETE", path, params={"gracePeriodSeconds": "0"}, timeout=10 * POST_SECONDS)

    def histogram(self) -> Histogram:
        """How long kube-apiserver waited for our webhook, since it started."""
        return read_histogram(self.metrics(), METRIC, name="pods.mirrorstream.github.io", operation="CREATE")

    def metrics(self) -> str:
        """What kube-apiserver's metrics say now."""
        return self.client.request("GET", "/metrics", decode=bytes).decode()

    def heap(self) -> float:
        """What kube-apiserver's heap holds after a garbage collection, in MB."""
        self.client.request("GET", "/debug/pprof/heap", params={"gc": "1"}, decode=bytes)
        line = next(line for line in self.metrics().splitlines() if line.startswith("go_memstats_heap_alloc_bytes "))
        return float(line.split()[1]) / 1e6
