"""How fast pods are reviewed, against a handler that answers a constant on the same server, in the same run."""

import ssl
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import urllib3
from mirrorstream.imagestreams import REPOSITORY_CHECK_ANNOTATION, imagestream_from
from mirrorstream.kube.client import load_client
from mirrorstream.policy import MirrorPolicy
from mirrorstream.settings import Settings as Configuration
from mirrorstream_webhook.decide import Decider
from mirrorstream_webhook.guards import Guards, SignaturePolicies
from mirrorstream_webhook.lookup import Index, stream_claims
from mirrorstream_webhook.pods import pod_from

from e2e.bench.figures import Figure
from e2e.bench.needs import needs_go
from e2e.load import Load, Outcome
from e2e.ports import free_port
from e2e.processes import Process
from e2e.scenarios.program import Webhook
from e2e.simulator.images.streams import STREAMS
from e2e.simulator.settings import Settings
from e2e.simulator.simulator import Simulator
from e2e.waiting import wait_for

Object = dict[str, Any]
REFERENCES = 100_000
TAGS = 5
CONTAINERS = (1, 5)
SECONDS = 1.0
ROUNDS = 5
SOURCE = "registry.example.com"
REGISTRY = "image-registry.openshift-image-registry.svc:5000"
MIRROR_SET = {
    "kind": "ImageDigestMirrorSet",
    "metadata": {"name": "corp"},
    "spec": {"imageDigestMirrors": [{"source": SOURCE, "mirrors": ["mirror.corp:5000/up"]}]},
}


def streams(references: int) -> Iterator[Object]:
    """Healed streams that claim so many references, two for each tag; the first ones in `openshift`, the others spread."""
    for number in range(references // 2 // TAGS):
        namespace = "openshift" if number < 50 else f"team-{number % 200}"
        repository = f"{SOURCE}/team/application-{number}"
        spec, status = [], []
        for tag in range(TAGS):
            digest = f"sha256:{number * TAGS + tag:064x}"
            spec.append(
                {
                    "name": f"v{tag}",
                    "from": {"kind": "DockerImage", "name": f"{repository}:v{tag}"},
                    "generation": 1,
                    "importPolicy": {},
                    "referencePolicy": {"type": "Local"},
                }
            )
            event = {"created": "2026-01-01T00:00:00Z", "dockerImageReference": f"{repository}@{digest}"}
            status.append({"tag": f"v{tag}", "items": [{**event, "image": digest, "generation": 1}]})
        name = f"application-{number}"
        yield {
            "metadata": {"name": name, "namespace": namespace, "generation": 1, "annotations": {REPOSITORY_CHECK_ANNOTATION: "x"}},
            "spec": {"lookupPolicy": {"local": False}, "tags": spec},
            "status": {"dockerImageRepository": f"{REGISTRY}/{namespace}/{name}", "tags": status},
        }


def pod(containers: int, number: int = 0) -> Object:
    """A pod as kube-apiserver sends it after its defaulting, each of its containers with an image of another stream."""
    listed = [
        {
            "name": f"container-{n}-{number // 50}",
            "image": f"{SOURCE}/team/application-{(number + n) % 50}:v{n % TAGS}",
            "env": [{"name": "HOME", "value": "/home/app"}, {"name": "PORT", "value": "8080"}],
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
            "volumeMounts": [{"name": "kube-api-access", "readOnly": True, "mountPath": "/var/run/secrets/kubernetes.io/sa"}],
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File",
            "imagePullPolicy": "IfNotPresent",
        }
        for n in range(containers)
    ]
    spec = {
        "containers": listed,
        "restartPolicy": "Always",
        "serviceAccountName": "default",
        "imagePullSecrets": [{"name": "default-dockercfg-x7k2p"}],
        "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}],
        "volumes": [{"name": "kube-api-access", "projected": {"sources": [{"serviceAccountToken": {"expirationSeconds": 3607}}]}}],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "web-", "labels": {"app": "web"}}, "spec": spec}


def reviews(containers: int, different: int = 50) -> list[Object]:
    """So many different reviews; from the fifty-first on the pods differ in the names of their containers."""
    kind = {"group": "", "version": "v1", "kind": "Pod"}
    common = {
        "kind": kind,
        "operation": "CREATE",
        "namespace": "team-1",
        "userInfo": {"username": "system:serviceaccount:kube-system:x"},
    }
    return [
        {
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {**common, "uid": f"uid-{number}", "object": pod(containers, number), "oldObject": None, "dryRun": False},
        }
        for number in range(different)
    ]


def measure(folder: Path) -> list[Figure]:
    """Served reviews with few and with many references, and the decision alone."""
    return [*_decision(), *_served(folder)]


def _decision() -> list[Figure]:
    index = Index()
    for document in streams(10_000):
        index.apply(None, stream_claims(imagestream_from(document)))
    decider = Decider(index, lambda namespace, pod_namespace, account: True, Configuration(), own_namespace="mirrorstream")
    decider.guards = Guards(MirrorPolicy.from_objects([MIRROR_SET]), SignaturePolicies(), respect=True)
    figures = []
    for containers, limit in ((1, 20.0), (5, None)):
        pods = [pod_from(pod(containers, number)) for number in range(50)]
        best = float("inf")
        for _ in range(7):
            began = time.perf_counter()
            for _ in range(20):
                for each in pods:
                    decider.pod(each, None, "team-1")
            best = min(best, (time.perf_counter() - began) / 1000 * 1e6)
        figures.append(Figure(f"patching a pod of {_containers(containers)}", best, "µs", limit))
    return figures


def _containers(number: int) -> str:
    return "1 container" if number == 1 else f"{number} containers"


@needs_go
def _served(folder: Path) -> list[Figure]:
    figures: list[Figure] = []
    with ExitStack() as stack:
        few = _webhook(stack, folder / "few", 1_000)
        many = _webhook(stack, folder / "many", REFERENCES)
        constant = _constant(stack, folder, few)
        for containers in CONTAINERS:
            for connections in (1, 32):
                figures += _against_constant(folder, containers, connections, few, many, constant)
        figures.append(_all_different(folder, few, constant))
        memory = _resident(many.process.pid)
        figures.append(Figure("memory of the webhook with 100,000 references", memory, "MB", 150, "its whole resident set"))
    return figures


def _webhook(stack: ExitStack, folder: Path, references: int) -> Webhook:
    folder.mkdir()
    simulator = Simulator(Settings(internal_registry=REGISTRY))
    for document in streams(references):
        simulator.store.create(STREAMS, document["metadata"]["namespace"], document)
    stack.enter_context(simulator)
    kubeconfig = simulator.write_kubeconfig(folder / "kubeconfig")
    client = load_client(str(kubeconfig), in_cluster=False, user_agent="bench")
    client.request("POST", "/apis/config.openshift.io/v1/imagedigestmirrorsets", body=MIRROR_SET)
    webhook = Webhook(kubeconfig, folder, {}, log_level="info")
    stack.callback(webhook.process.kill)
    webhook.wait_ready()
    wait_for("the index is complete", lambda: webhook.metric("mirrorstream_webhook_references") == references, seconds=60)
    return webhook


def _constant(stack: ExitStack, folder: Path, like: Webhook) -> str:
    """A handler that answers every review with one that the webhook gave: the client reads as much of either."""
    answers = folder / "answers"
    answers.mkdir()
    context = ssl.create_default_context(cafile=str(like.authority.certificate))
    with urllib3.PoolManager(ssl_context=context) as pool:
        for containers in CONTAINERS:
            (answers / str(containers)).write_bytes(pool.request("POST", like.url, json=reviews(containers)[0]).data)
    port = free_port()
    pair = like.authority.issue("constant", hosts=("localhost",))
    command = [sys.executable, "-m", "e2e.bench.constant", str(port), str(pair.certificate), str(pair.key), str(answers)]
    process = Process("constant", command, folder / "constant.log")
    stack.callback(process.kill)
    url = f"https://localhost:{port}/"
    # Any answer will do.
    wait_for("the constant handler answers", lambda: _load(folder, f"{url}1", like, 1, 1, 0.1).reviews > 0, seconds=20)
    return url


def _load(folder: Path, url: str, webhook: Webhook, containers: int, connections: int, seconds: float = SECONDS) -> Outcome:
    load = Load(url, reviews(containers), folder, ca=webhook.authority.certificate, connections=connections, seconds=seconds)
    return load.outcome(stop=False)


def _against_constant(folder: Path, containers: int, connections: int, few: Webhook, many: Webhook, constant: str) -> list[Figure]:
    """In turns, so that a machine that slows down meanwhile slows all of them; the median of the rounds' ratios counts."""
    rounds = []
    for _ in range(ROUNDS):
        base = _load(folder, f"{constant}{containers}", few, containers, connections)
        ours = _load(folder, few.url, few, containers, connections)
        large = _load(folder, many.url, many, containers, connections)
        for outcome in (ours, large):
            assert not outcome.failures, outcome.failures
            assert outcome.patched == outcome.reviews, "every pod is rewritten"
        rounds.append((base, ours, large))
    base, ours, large = rounds[-1]
    name = f"reviews of {_containers(containers)}, {connections} connection{'s' if connections > 1 else ''}"
    figures = []
    for text, position in ((name, 1), (f"{name}, 100,000 references", 2)):
        ratio = statistics.median(found[0].rate / found[position].rate for found in rounds)
        found = rounds[-1][position]
        told = f"{found.rate:,.0f}/s, p50 {found.p50 * 1e3:.2f} ms, p99 {found.p99 * 1e3:.1f} ms; constant {base.rate:,.0f}/s"
        figures.append(Figure(f"{text}: slower than a constant", ratio, "times", 1.25, told))
    return figures


def _all_different(folder: Path, webhook: Webhook, constant: str) -> Figure:
    """No pod is like one before: what is kept for a moment does not help."""
    base = _load(folder, f"{constant}1", webhook, 1, 32)
    load = Load(webhook.url, reviews(1, 30_000), folder, ca=webhook.authority.certificate, connections=32, count=30_000)
    found = load.outcome(stop=False)
    told = f"{found.rate:,.0f}/s, p50 {found.p50 * 1e3:.2f} ms, p99 {found.p99 * 1e3:.1f} ms; constant {base.rate:,.0f}/s"
    return Figure(
        "reviews of 1 container, 32 connections, no two pods alike: slower than a constant",
        base.rate / found.rate,
        "times",
        beside=told,
    )


def _resident(pid: int) -> float:
    """The resident set of a process, in MB."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1000
