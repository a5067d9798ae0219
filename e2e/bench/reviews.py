"""How fast pods are reviewed, against a handler that answers a constant on the same server, and while the mirror rules change.

`python -m e2e.bench.reviews PORT CERTIFICATE KEY FOLDER` is that handler; the files of the folder are its answers.
"""

import ssl
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

import urllib3
from mirrorstream.imagestream.model import REPOSITORY_CHECK_ANNOTATION, imagestream_from
from mirrorstream.kube.client import Client
from mirrorstream.rules.policy import MirrorPolicy
from mirrorstream.runtime.settings import Settings as Configuration
from mirrorstream_webhook.claims import stream_claims
from mirrorstream_webhook.connection import Answer, Application, Request
from mirrorstream_webhook.decider import Decider
from mirrorstream_webhook.guards import Guards, SignaturePolicies
from mirrorstream_webhook.index import Index
from mirrorstream_webhook.pods import pod_from
from mirrorstream_webhook.server import Server

from e2e.bench.bed import MIRROR_SETS, REGISTRY, SOURCE, TAGS, cpu_seconds, resident
from e2e.bench.figures import Figure, needs_go
from e2e.testbed.load import Load, Outcome, program
from e2e.testbed.programs.pod_credentials import PodWebhook, write_credentials
from e2e.testbed.programs.program import Webhook
from e2e.testbed.simulator.images.streams import STREAMS
from e2e.testbed.simulator.settings import Settings
from e2e.testbed.simulator.simulator import Simulator
from e2e.testbed.support.certificates import Authority
from e2e.testbed.support.ports import free_port
from e2e.testbed.support.processes import Process
from e2e.testbed.support.waiting import wait_for

Object = dict[str, Any]
REFERENCES = 100_000
CONTAINERS = (1, 5)
SECONDS = 1.0
ROUNDS = 5
SETS, RULES = 100, 100
PAUSE_CONNECTIONS, EVERY = 4, 0.004
"""A steady stream, not as many as can be: a review that waits has waited for the rules, not for another review."""
PAUSE_ROUNDS, CHANGES, APART = 4, 4, 0.6
"""Rounds of each kind in turns; a change every so many seconds, of which each is a new policy."""
MIRROR_SET = {
    "kind": "ImageDigestMirrorSet",
    "metadata": {"name": "corp"},
    "spec": {"imageDigestMirrors": [{"source": SOURCE, "mirrors": ["mirror.corp:5000/up"]}]},
}

IMAGE_CONFIG = {"kind": "Image", "metadata": {"name": "cluster"}, "status": {"internalRegistryHostname": REGISTRY}}


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


def review(document: Object, namespace: str, uid: str) -> Object:
    """The review of a pod that is being created."""
    request = {
        "uid": uid,
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "operation": "CREATE",
        "namespace": namespace,
        "userInfo": {"username": "system:serviceaccount:kube-system:x"},
        "object": document,
        "oldObject": None,
        "dryRun": False,
    }
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


def reviews(containers: int, different: int = 50) -> list[Object]:
    """So many different reviews; from the fifty-first on the pods differ in the names of their containers."""
    return [review(pod(containers, number), "team-1", f"uid-{number}") for number in range(different)]


def measure(folder: Path) -> list[Figure]:
    """Served reviews with few and with many references, and the decision alone."""
    return [*_decision(), *_served(folder)]


def _decision() -> list[Figure]:
    index = Index()
    for document in streams(10_000):
        index.apply(None, stream_claims(imagestream_from(document)))
    decider = Decider(index, lambda *question: True, Configuration(), own_namespace="mirrorstream")
    decider.guards = Guards(MirrorPolicy.from_objects([MIRROR_SET, IMAGE_CONFIG]), SignaturePolicies(), respect=True)
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
        _, few = _webhook(stack, folder / "few", 1_000, [MIRROR_SET])
        _, many = _webhook(stack, folder / "many", REFERENCES, [MIRROR_SET])
        constant = _constant(stack, folder, few)
        for containers in CONTAINERS:
            for connections in (1, 32):
                figures += _against_constant(folder, containers, connections, few, many, constant)
        figures.append(_all_different(folder, few, constant))
        told = "its whole resident set, with a pod's credentials"
        figures.append(Figure("memory of the webhook with 100,000 references", resident(many.process.pid), "MB", 120, told))
    return figures


def _webhook(stack: ExitStack, folder: Path, references: int, mirror_sets: Iterable[Object]) -> tuple[Client, Webhook]:
    """A cluster with so many references and with these rules, and a webhook with a pod's credentials that has read them."""
    folder.mkdir()
    authority = Authority(folder / "ca", "ca")
    simulator = Simulator(Settings(internal_registry=REGISTRY), authority=authority)
    for document in streams(references):
        simulator.store.create(STREAMS, document["metadata"]["namespace"], document)
    stack.enter_context(simulator)
    client = simulator.client("bench")
    for body in mirror_sets:
        client.request("POST", MIRROR_SETS, body=body)
    pod = write_credentials(folder / "pod", client, authority.certificate)
    webhook = PodWebhook(None, folder, {}, log_level="info", environment=pod)
    stack.callback(webhook.process.kill)
    webhook.wait_ready()
    wait_for("the index is complete", lambda: webhook.metric("mirrorstream_webhook_references") == references, seconds=60)
    return client, webhook


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
    command = [sys.executable, "-m", "e2e.bench.reviews", str(port), str(pair.certificate), str(pair.key), str(answers)]
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
    """In turns, so that a machine that slows down during the run slows all of them; the median of the rounds' ratios counts."""
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


@needs_go
def pauses(folder: Path) -> list[Figure]:
    """The longest wait of a review, above what it is without changes, while one rule changes and while all are rebuilt."""
    program()  # needs Go, which the cluster does not
    folder = folder / "pauses"
    with ExitStack() as stack:
        client, webhook = _webhook(stack, folder, REFERENCES, (_mirror_set(number, 0) for number in range(SETS)))
        changes = {"nothing": _change_nothing, "one rule": _change_rule, "all rules": _change_image_config}
        found: dict[str, list[_Round]] = {what: [] for what in changes}
        for number in range(PAUSE_ROUNDS):
            for what, change in changes.items():
                found[what].append(_round(folder, webhook, partial(change, client, number)))
        policies, wanted = len(webhook.lines("applied mirror rules")), 2 * PAUSE_ROUNDS * CHANGES + 1
        assert policies == wanted, f"{policies} policies, not {wanted}, of all changes and a beginning"
    return [_pause(what, found[what], found["nothing"]) for what in ("one rule", "all rules")]


@dataclass(frozen=True)
class _Round:
    """What the client saw, and the webhook's CPU seconds in that time."""

    outcome: Outcome
    cpu: float


def _pause(what: str, changing: list[_Round], quiet: list[_Round]) -> Figure:
    longest, usual = (max(found.outcome.longest for found in rounds) * 1e3 for rounds in (changing, quiet))
    cpu = (statistics.median(found.cpu for found in changing) - statistics.median(found.cpu for found in quiet)) / CHANGES
    told = (
        f"longest review {longest:.1f} ms, without changes {usual:.1f} ms; p99 {_p99(changing):.1f} and {_p99(quiet):.1f} ms; "
        f"{PAUSE_ROUNDS * CHANGES} changes, {cpu * 1e3:.0f} ms of CPU each"
    )
    return Figure(f"pause of reviews by a change of {what} of {SETS * RULES:,}", max(0.0, longest - usual), "ms", 20.0, told)


def _p99(rounds: list[_Round]) -> float:
    return max(found.outcome.p99 for found in rounds) * 1e3


def _mirror_set(number: int, change: int) -> Object:
    """Rules for a hundred repositories; those of the reviewed pods are in the first set."""
    names = [f"registry{number}.example.com/namespace-{rule}" for rule in range(RULES)]
    if number == 0:
        names[0] = SOURCE
    entries = [{"source": name, "mirrors": [f"a.corp/{name}", f"b.corp/{name}"]} for name in names]
    entries[-1]["mirrors"] = [f"c.corp/change-{change}"]
    return {"metadata": {"name": f"set-{number}"}, "spec": {"imageDigestMirrors": entries}}


def _change_nothing(client: Client, number: int, change: int) -> None:
    """What the others are compared with."""


def _change_rule(client: Client, number: int, change: int) -> None:
    """Change one rule of another set each time."""
    change += number * CHANGES
    path = f"{MIRROR_SETS}/set-{change % SETS}"
    client.request("PUT", path, body={**client.get(path), "spec": _mirror_set(change % SETS, change + 1)["spec"]})


def _change_image_config(client: Client, number: int, change: int) -> None:
    """Change what is insecure, which may concern every rule, so that all of them are rebuilt."""
    path = "/apis/config.openshift.io/v1/images/cluster"
    sources = {"insecureRegistries": [f"insecure-{number * CHANGES + change}.example.com"]}
    client.request("PUT", path, body={**client.get(path), "spec": {"registrySources": sources}})


def _round(folder: Path, webhook: Webhook, change: Callable[[int], None]) -> _Round:
    """Reviews for as long as so many changes take."""
    began = cpu_seconds(webhook.process.pid)
    load = Load(webhook.url, reviews(1), folder, ca=webhook.authority.certificate, connections=PAUSE_CONNECTIONS, every=EVERY)
    for number in range(CHANGES):
        time.sleep(APART)
        change(number)
    time.sleep(APART)
    outcome = load.outcome()
    assert not outcome.failures, outcome.failures
    assert outcome.patched == outcome.reviews, "every pod is rewritten"
    return _Round(outcome, cpu_seconds(webhook.process.pid) - began)


def _constant_application(answers: dict[bytes, bytes]) -> Application:
    """An application that gives the answer of the path."""
    headers = (("Content-Type", "application/json"),)

    def application(request: Request) -> Answer:
        return Answer(HTTPStatus.OK, headers, answers[request.target])

    return application


if __name__ == "__main__":
    port, certificate, key, folder = sys.argv[1:]
    answers = {f"/{path.name}".encode(): path.read_bytes() for path in Path(folder).iterdir()}
    server = Server(_constant_application(answers), int(port), certificate_file=certificate, key_file=key, address="127.0.0.1")
    server.start()
    threading.Event().wait()
