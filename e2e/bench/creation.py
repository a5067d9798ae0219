"""Pods created by many clients at once through kube-apiserver, without a webhook, with ours, and with one that decides nothing.

CREATION_PODS sets how many pods are created at each level and in each way, CREATION_CLIENTS the levels.

`python -m e2e.bench.creation PORT CERTIFICATE KEY` is the webhook that decides nothing.
"""

import base64
import json
import os
import re
import sys
import threading
from collections import Counter, defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

import msgspec
from mirrorstream_webhook.connection import Answer, Request
from mirrorstream_webhook.server import Server

from e2e.bench.admission import DIFFERENT, Bed, pod_body
from e2e.bench.bed import PROJECT, REGISTRY, cpu_seconds, digest_of
from e2e.bench.figures import Figure, needs_go, percentile
from e2e.testbed.programs.program import Webhook
from e2e.testbed.support.ports import free_port
from e2e.testbed.support.processes import Process

Object = dict[str, Any]
PODS = int(os.environ.get("CREATION_PODS", "10000"))
LEVELS = [int(level) for level in os.environ.get("CREATION_CLIENTS", "10 50 200 500").split()]
ROUNDS = 5
"""At each level pods are created in so many rounds, in each way in turns."""
REFERENCES = 5_000
WITHOUT, ONE, TWO, NOTHING = "without", "one", "two", "nothing"
"""The namespaces: no webhook, our webhook with one and with two replicas, and a webhook that decides nothing."""
WAYS = {
    ONE: "webhook with 1 replica",
    TWO: "webhook with 2 replicas",
    NOTHING: "webhook that decides nothing",
}
REPLICA = "replica"
"""A label of pods: which of two replicas reviews them. kube-apiserver asks each about one half, as a Service would have it."""


@needs_go
def measure(folder: Path) -> list[Figure]:
    """Every level in every way."""
    with ExitStack() as stack:
        bed = Bed(stack, folder / "creation", [WITHOUT, *WAYS], REFERENCES)
        first, second = bed.webhook(), bed.webhook()
        nothing = _deciding_nothing(stack, bed, first)
        bed.register(first, ONE)
        bed.register(first, NOTHING, lambda entry: entry["clientConfig"].update(url=nothing[0]))
        for number, webhook in enumerate((first, second)):
            bed.register(webhook, TWO, partial(_only, str(number)), **{REPLICA: str(number)})
        processes = {"kube-apiserver": [bed.plane.processes["kube-apiserver"].pid], "etcd": [bed.plane.processes["etcd"].pid]}
        processes["the webhook"] = [first.process.pid, second.process.pid, nothing[1]]
        return [figure for level in LEVELS for figure in _level(bed, level, processes)]


def _only(number: str, entry: Object) -> None:
    """Register a replica for its half of the pods."""
    entry["objectSelector"]["matchExpressions"].append({"key": REPLICA, "operator": "In", "values": [number]})


@dataclass
class Created:
    """What was seen of the pods of one level and way; seconds, and those of CPU by process."""

    waits: list[float] = field(default_factory=list)
    seconds: float = 0.0
    patched: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    cpu: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @property
    def mean(self) -> float:
        """In ms."""
        return sum(self.waits) / len(self.waits) * 1e3

    @property
    def p99(self) -> float:
        """In ms."""
        return percentile(self.waits, 99) * 1e3

    def each(self, process: str) -> float:
        """CPU for each pod, in ms."""
        return self.cpu[process] / len(self.waits) * 1e3


def _level(bed: Bed, clients: int, processes: dict[str, list[int]]) -> list[Figure]:
    """Rounds in turns, so that a machine that slows down during the run slows all of them; each begins with another way."""
    found = {namespace: Created() for namespace in (WITHOUT, *WAYS)}
    bodies = [pod_body(number, **{REPLICA: str(number % 2)}) for number in range(DIFFERENT)]
    order = list(found)
    for number in range(ROUNDS):
        for namespace in order[number % len(order) :] + order[: number % len(order)]:
            created = found[namespace]
            before = _cpu(processes)
            outcome = bed.create(namespace, bodies, clients=clients, count=PODS // ROUNDS)
            for name, seconds in _cpu(processes).items():
                created.cpu[name] += seconds - before[name]
            created.waits += outcome.waits
            created.seconds += outcome.seconds
            created.patched += outcome.patched
            created.failures += Counter(outcome.failures)
            bed.delete_pods(namespace)
    return figures(clients, found)


def _cpu(processes: dict[str, list[int]]) -> dict[str, float]:
    return {name: sum(map(cpu_seconds, pids)) for name, pids in processes.items()}


def figures(clients: int, found: dict[str, Created]) -> list[Figure]:
    """What is told of a level, from what was seen in each namespace."""
    without = found[WITHOUT]
    failures: Counter[str] = sum((created.failures for created in found.values()), Counter())
    pods = sum(len(created.waits) for created in found.values())
    unchanged = sum(
        len(created.waits) - created.patched for namespace, created in found.items() if namespace in (ONE, TWO, NOTHING)
    )
    cpu = ", ".join(f"{without.each(process):.2f} ms of {process}" for process in ("kube-apiserver", "etcd"))
    told = f"of {pods:,}; CPU for each pod without a webhook: {cpu}"
    told += "".join(f"; {text}: {number}" for text, number in failures.items())
    told_of = [
        Figure(f"{clients} clients: pods that were not created", failures.total(), "", 0, told),
        Figure(f"{clients} clients: pods that a webhook was to change and did not", unchanged, "", 0),
    ]
    for namespace, name in WAYS.items():
        created = found[namespace]
        more = created.each("kube-apiserver") - without.each("kube-apiserver")
        told = (
            f"p99 {created.p99:.1f} ms, without {without.p99:.1f} ms; mean {created.mean:.2f} ms, without {without.mean:.2f} ms, "
            f"{created.mean / without.mean:.3g} times; {len(created.waits) / created.seconds:.0f} pods a second, without "
            f"{len(without.waits) / without.seconds:.0f}; CPU for each pod: {more:.2f} ms more of kube-apiserver, "
            f"{created.each('the webhook'):.2f} ms of the webhook"
        )
        limit = 1.1 if namespace in (ONE, TWO) else None
        told_of.append(Figure(f"{clients} clients: {name}: p99", created.p99 / without.p99, "times that without", limit, told))
    return told_of


def _deciding_nothing(stack: ExitStack, bed: Bed, like: Webhook) -> tuple[str, int]:
    """Its address and its process; its certificate is of the same authority as ours."""
    port = free_port()
    pair = like.authority.issue("nothing", hosts=("localhost",))
    command = [sys.executable, "-m", "e2e.bench.creation", str(port), str(pair.certificate), str(pair.key)]
    process = Process("nothing", command, bed.folder / "nothing.log", folder=PROJECT)
    stack.callback(process.kill)
    return f"https://localhost:{port}/mutate-pods", process.pid


def _constant(request: Request) -> Answer:
    """A patch like ours, whatever the pod is; kube-apiserver wants its review's uid again."""
    found = re.search(rb'"uid":"([^"]+)"', request.body)
    assert found, "a review has a uid"
    image = f"{REGISTRY}/openshift/application-0@{digest_of('nothing')}"
    patch = [
        {"op": "add", "path": "/metadata/annotations", "value": {"original": "registry.example.com/team/application-0:v0"}},
        {"op": "replace", "path": "/spec/containers/0/image", "value": image},
    ]
    response = {"uid": found[1].decode(), "allowed": True, "patchType": "JSONPatch"}
    response["patch"] = base64.b64encode(json.dumps(patch).encode()).decode()
    review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}
    return Answer(HTTPStatus.OK, (("Content-Type", "application/json"),), msgspec.json.encode(review))


if __name__ == "__main__":
    port, certificate, key = sys.argv[1:]
    server = Server(_constant, int(port), certificate_file=certificate, key_file=key, address="127.0.0.1")
    server.start()
    threading.Event().wait()
