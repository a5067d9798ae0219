"""What admission adds to the creation of a pod, as kube-apiserver's own metrics see it, and what a client sees of it."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mirrorstream.kube.client import ApiError, load_client

from e2e.backends import CONTROLPLANE, installed
from e2e.bench.figures import Figure, percentile
from e2e.bench.histograms import Histogram, read_histogram
from e2e.bench.needs import needs_go
from e2e.bench.reviews import MIRROR_SET, REGISTRY, SOURCE, TAGS, streams
from e2e.controlplane.build import components
from e2e.controlplane.plane import ControlPlane
from e2e.scenarios.hooks import registered
from e2e.scenarios.program import Webhook
from e2e.scenarios.roles import PULL, grant, group
from e2e.simulator.settings import Settings
from e2e.waiting import wait_for

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


@needs_go
def measure(folder: Path) -> list[Figure]:
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
        body = {"apiVersion": "config.openshift.io/v1", **MIRROR_SET}
        self.client.request("POST", "/apis/config.openshift.io/v1/imagedigestmirrorsets", body=body)
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
            return [found for several in pool.map(self._create_several, range(CLIENTS)) for found in several]

    def _create_several(self, client: int) -> list[tuple[str, float]]:
        return list(self._created(client))

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
