"""What a MutatingAdmissionPolicy in kube-apiserver costs beside our webhook: `docs/design/mutating-admission-policy.md` judges it.

POLICY_PODS sets how many pods are created in each namespace.
"""

import os
import re
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from mirrorstream.kube.client import MERGE_PATCH, ApiError

from e2e.bench.admission import IMAGE_API, SHARED, Bed, image_of, pod_body, reference
from e2e.bench.bed import REGISTRY, SOURCE, TAGS, cpu_seconds, digest_of, resident
from e2e.bench.figures import Figure, needs_go, percentile
from e2e.testbed import references_policy
from e2e.testbed.roles import PULL, grant, group
from e2e.testbed.support.waiting import wait_for

Object = dict[str, Any]
PODS = int(os.environ.get("POLICY_PODS", "2000"))
"""In each namespace."""
ROUNDS, CLIENTS, EVERY = 10, 4, 0.04
"""Pods are created in so many rounds, in each namespace in turns, by clients that create 100 a second together."""
NAMED = 10
"""So many references are named by pods."""
REFERENCES = 7_000
NONE, WEBHOOK, COSTS = "nothing", "webhook", "costs"
SHARDS = {"policy-10": (10, 1), "policy-1000": (1_000, 1), "policy-7000": (REFERENCES, 1), "policy-7x1000": (REFERENCES, 7)}
"""How many references a namespace has as parameters, in how many objects; pods name what the first object has."""
CHANGES = 20
STEP = 0.001
POLICY = "bench-references"
AT_ONCE = 200
LOOK_UPS = " && ".join(["object.spec.containers[0].image in params.references"] * AT_ONCE)
"""Several in each turn of a loop: CEL's account of a loop takes longer than the loop, with the square of its turns."""


@needs_go
def measure(folder: Path) -> list[Figure]:
    """Pods' creation without anything, with the policy, and with our webhook; what a change costs; how far CEL's limits are."""
    with ExitStack() as stack:
        bed = Bed(stack, folder / "policy", [NONE, WEBHOOK, COSTS, *SHARDS], REFERENCES)
        webhook = bed.webhook()
        bed.register(webhook, WEBHOOK)
        bed.wait_made(NONE, rewritten=False)
        references_policy.define(bed.client)
        heap = bed.heap()
        for namespace, (count, shards) in SHARDS.items():
            _store(bed, namespace, count, shards)
        references_policy.apply(bed.client, POLICY, list(SHARDS))
        for namespace in SHARDS:
            bed.wait_made(namespace, rewritten=True)
        heap = bed.heap() - heap
        created = _create(bed, webhook.process.pid)
        return [*_creation(created), _evaluations(bed), _memory(bed, heap), *_changes(bed), _largest(bed), *_costs(bed)]


def _references(count: int) -> list[tuple[str, str]]:
    """What pods name first, then what other tags import, each with its stream and digest."""
    names = [f"{SOURCE}/team/application-{number // TAGS}:v{number % TAGS}" for number in range(count)]
    sources = list(dict.fromkeys([*(reference(number) for number in range(NAMED)), *names]))[:count]
    return [(source, f"{_stream(source)}@{digest_of(source)}") for source in sources]


def _stream(source: str) -> str:
    return source.rpartition("/")[2].partition(":")[0]


def _store(bed: Bed, namespace: str, count: int, shards: int) -> None:
    """The parameters of a namespace, and for its pods the right to pull what they point to."""
    grant(bed.client, namespace, "image-puller", [PULL], group(f"system:serviceaccounts:{namespace}"))
    references, size = _references(count), count // shards
    for number in range(shards):
        shard = references[number * size : (number + 1) * size]
        body = references_policy.parameters(f"shard-{number}", REGISTRY, dict(shard))
        bed.client.request("POST", references_policy.path(namespace), body=body)


@dataclass
class _Created:
    """What was seen of the pods of one namespace, in seconds; CPU is kube-apiserver's and the webhook's."""

    waits: list[float] = field(default_factory=list)
    server: float = 0.0
    webhook: float = 0.0

    @property
    def mean(self) -> float:
        """In ms."""
        return self.each(sum(self.waits))

    @property
    def p99(self) -> float:
        """In ms."""
        return percentile(self.waits, 99) * 1e3

    def each(self, seconds: float) -> float:
        """For each pod, in ms."""
        return seconds / len(self.waits) * 1e3


def _create(bed: Bed, webhook: int) -> dict[str, _Created]:
    """Rounds in turns, so that a machine that slows down during the run slows all of them."""
    found = {namespace: _Created() for namespace in (NONE, WEBHOOK, *SHARDS)}
    server = bed.plane.processes["kube-apiserver"].pid
    bodies = [pod_body(number) for number in range(NAMED)]
    for _ in range(ROUNDS):
        for namespace, created in found.items():
            began = cpu_seconds(server), cpu_seconds(webhook)
            outcome = bed.create(namespace, bodies, clients=CLIENTS, count=PODS // ROUNDS, every=EVERY)
            created.server += cpu_seconds(server) - began[0]
            created.webhook += cpu_seconds(webhook) - began[1]
            created.waits += outcome.waits
            bed.delete_pods(namespace)
            assert not outcome.failures, outcome.failures
            assert outcome.patched == (0 if namespace == NONE else outcome.reviews), f"{namespace}: {outcome.patched} rewritten"
    return found


def _creation(created: dict[str, _Created]) -> list[Figure]:
    without = created.pop(NONE)
    cpu = without.each(without.server)
    told = f"p99 {without.p99:.1f} ms; {cpu:.2f} ms of kube-apiserver's CPU; {len(without.waits):,} pods each, 100 a second"
    figures = [Figure("creating a pod without webhook or policy, mean", without.mean, "ms", None, told)]
    for namespace, found in created.items():
        more = found.each(found.server) - cpu
        told = f"p99 {found.p99:.1f} ms; {more:.2f} ms more of kube-apiserver's CPU"
        if namespace == WEBHOOK:
            told += f", and {found.each(found.webhook):.2f} ms of its own"
        figures.append(Figure(f"more with the {_name(namespace)}, mean", found.mean - without.mean, "ms", None, told))
    return figures


def _name(namespace: str) -> str:
    if namespace == WEBHOOK:
        return f"webhook, {REFERENCES:,} references"
    count, shards = SHARDS[namespace]
    return f"policy, {count:,} references" + (f" in {shards} objects" if shards > 1 else "")


def _evaluations(bed: Bed) -> Figure:
    """Those that failed, of all."""
    counted = re.compile(
        r'^apiserver_mutating_admission_policy_check_total\{error_type="(\w+)",policy="' + POLICY + r'",.*\} (\d+)$', re.MULTILINE
    )
    found = [(kind, int(number)) for kind, number in counted.findall(bed.metrics())]
    failed = sum(number for kind, number in found if kind != "no_error")
    return Figure("evaluations of the policy that failed", failed, "", 0, f"of {sum(number for _, number in found):,}")


def _memory(bed: Bed, heap: float) -> Figure:
    stored = sum(count for count, _ in SHARDS.values())
    told = (
        f"{heap:.1f} MB for {stored:,}, policy included; resident set {resident(bed.plane.processes['kube-apiserver'].pid):.0f} MB"
    )
    return Figure(f"kube-apiserver's memory for {REFERENCES:,} references", heap / stored * REFERENCES, "MB", None, told)


def _changes(bed: Bed) -> list[Figure]:
    """One reference changes: what kube-apiserver does for it, and when the next pod gets the new digest."""
    source = reference(0)
    server = bed.plane.processes["kube-apiserver"].pid
    figures = []
    for namespace in (WEBHOOK, *SHARDS):
        change = _change_stream if namespace == WEBHOOK else partial(_change_parameters, namespace)
        written, counts = [], []
        for number in range(CHANGES):
            digest = digest_of(f"{namespace} {number}")
            began = time.perf_counter()
            change(bed, source, digest)
            written.append(time.perf_counter() - began)
            wait_for("the change counts", partial(_gets, bed, namespace, digest), step=STEP)
            counts.append(time.perf_counter() - began)
        before = cpu_seconds(server)
        for number in range(CHANGES):
            change(bed, source, digest_of(f"{namespace} again {number}"))
        cpu = (cpu_seconds(server) - before) / CHANGES * 1e3
        told = (
            f"p50 {percentile(counts, 50) * 1e3:.0f} ms; written after {percentile(written, 50) * 1e3:.0f} ms; "
            f"{cpu:.0f} ms of kube-apiserver's CPU"
        )
        name = f"{_name(namespace)}: until a change of one counts, longest of {CHANGES}"
        figures.append(Figure(name, max(counts) * 1e3, "ms", None, told))
    return figures


def _change_parameters(namespace: str, bed: Bed, source: str, digest: str) -> None:
    body = {"references": {source: f"{_stream(source)}@{digest}"}}
    bed.client.request("PATCH", references_policy.path(namespace, "shard-0"), body=body, content_type=MERGE_PATCH)


def _change_stream(bed: Bed, source: str, digest: str) -> None:
    path = f"{IMAGE_API}/namespaces/{SHARED}/imagestreams/{_stream(source)}"
    stream = bed.client.get(path)
    (tag,) = [tag for tag in stream["status"]["tags"] if source.endswith(f":{tag['tag']}")]
    item = {"dockerImageReference": f"{source.rpartition(':')[0]}@{digest}", "image": digest}
    tag["items"] = [{**tag["items"][0], **item}]
    bed.client.request("PUT", f"{path}/status", body=stream)


def _gets(bed: Bed, namespace: str, digest: str) -> bool:
    return image_of(bed.post(namespace, pod_body(0), dryRun="All")).endswith(digest)


def largest(low: int, step: int, possible: Callable[[int], bool]) -> int:
    """The largest number that is possible, to within `step`, where `low` is. Never asks for more than twice that."""
    assert possible(low)
    high = 2 * low
    while possible(high):
        low, high = high, 2 * high
    while high - low > step:
        middle = (low + high) // 2
        low, high = (middle, high) if possible(middle) else (low, middle)
    return low


def _largest(bed: Bed) -> Figure:
    """How many references one object can have before etcd refuses it."""
    refused = set()

    def possible(count: int) -> bool:
        body = references_policy.parameters("large", REGISTRY, dict(_references(count)))
        try:
            bed.client.request("POST", references_policy.path(COSTS), body=body)
        except ApiError as error:
            refused.add(error.message)
            return False
        bed.client.request("DELETE", references_policy.path(COSTS, "large"))
        return True

    most = largest(REFERENCES, 100, possible)
    source, target = _references(REFERENCES)[-1]
    told = f"{len(source) + len(target) + 6} bytes each; one more: {'; '.join(sorted(refused))}"
    return Figure("references that one object can have", most, "", None, told)


def _costs(bed: Bed) -> list[Figure]:
    """How often an expression can look for an image before its limit."""
    for size in (NAMED, REFERENCES):
        body = references_policy.parameters(f"of-{size}", REGISTRY, dict(_references(size)))
        bed.client.request("POST", references_policy.path(COSTS), body=body)
    found = []
    for size in (NAMED, REFERENCES):
        references_policy.apply(bed.client, "costs", [COSTS], partial(_asking, f"of-{size}"))
        wait_for("the policy is in force", partial(_fits, bed, 1))
        found.append(largest(1, 8, partial(_fits, bed)) * AT_ONCE)
        references_policy.remove(bed.client, "costs")
        wait_for("the policy is gone", lambda: not _fits(bed, 1))
    few, many = found
    told = f"in {NAMED}: {few:,}"
    return [Figure(f"look-ups that one expression can make in {REFERENCES:,} references", many, "", None, told)]


def _asking(parameters: str, policy: Object, binding: Object) -> None:
    """A policy that asks so often as the pod's annotation says, and then labels the pod."""
    asked = f"lists.range(int(object.metadata.annotations['times'])).all(i, {LOOK_UPS})"
    patch = f"{asked} ? [JSONPatch{{op: 'add', path: '/metadata/labels/asked', value: 'yes'}}] : []"
    policy.pop("variables")
    policy["matchConditions"] = [{"name": "asks", "expression": "has(object.metadata.annotations)"}]
    policy["mutations"] = [{"patchType": "JSONPatch", "jsonPatch": {"expression": patch}}]
    binding["paramRef"] = {"name": parameters, "parameterNotFoundAction": "Allow"}


def _fits(bed: Bed, times: int) -> bool:
    """Whether the policy labels a pod that has it ask so often; a policy that fails is ignored."""
    body = pod_body(0)
    body["metadata"]["annotations"] = {"times": str(times)}
    return "asked" in bed.post(COSTS, body, dryRun="All")["metadata"]["labels"]
