"""From a change of a stream to what is done about it, seen from outside: in the simulator's log of requests, and in reviews."""

import base64
import random
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any

import urllib3

from e2e.bench.bed import Bed
from e2e.bench.figures import Figure, percentile
from e2e.bench.population import NAMESPACES, TAGS, digest_of, failed, imported, name_of, namespace_of
from e2e.scenarios.program import Webhook
from e2e.waiting import wait_for

Object = dict[str, Any]
CHANGES = NAMESPACES
"""One in each namespace: the log of requests tells them apart by that."""
INTERVAL = 0.1
LIMIT = 100.0
"""Milliseconds from a change to the decision about it."""
IMAGES = "/apis/image.openshift.io/v1"


def _change(bed: Bed, registry: str, number: int, changed: dict[int, Object]) -> float:
    """Write the status of a stream with some of its tags `changed`; the moment before the request was sent."""
    source = f"{registry}/team/{name_of(number)}"
    tags = [changed.get(tag) or imported(source, f"v{tag}") for tag in range(TAGS)]
    path = f"{IMAGES}/namespaces/{namespace_of(number)}/imagestreams/{name_of(number)}/status"
    body = {"status": {"tags": tags}}
    began = time.time()
    bed.client.request("PATCH", path, body=body, content_type="application/merge-patch+json")
    return began


def controller(bed: Bed, registry: str) -> Figure:
    """A tag of one stream after another fails; the mirror has its image."""
    mark = bed.mark()
    began: dict[str, float] = {}
    for number in random.sample(range(CHANGES), CHANGES):
        source = f"{registry}/team/{name_of(number)}"
        bed.mirror.put(f"m/team/{name_of(number)}", "v1", seed=str(number))
        began[namespace_of(number)] = _change(bed, registry, number, {1: failed(source, "v1")})
        time.sleep(random.uniform(0.5, 1.5) * INTERVAL)
    arrived = wait_for("every tag is imported", _all(lambda: _dry_runs(bed, mark), CHANGES), step=0.5)
    waits = [arrived[namespace] - at for namespace, at in began.items()]
    return _figure("controller", waits, "until its dry run arrives at the API server")


def _dry_runs(bed: Bed, mark: int) -> dict[str, float]:
    """When the first dry run of each namespace arrived."""
    found: dict[str, float] = {}
    for request in bed.requests(mark, "^mirrorstream-controller"):
        if request["path"].endswith("/imagestreamimports"):
            found.setdefault(request["path"].split("/")[5], request["time"] - request["seconds"])
    return found


def _all(find: Callable[[], dict[str, float]], count: int) -> Callable[[], dict[str, float] | None]:
    def found() -> dict[str, float] | None:
        answer = find()
        return answer if len(answer) == count else None

    return found


def webhook(bed: Bed, registry: str, program: Webhook) -> Figure:
    """A tag of one stream after another gets another image; a pod that names it is reviewed again and again until it gets that."""
    context = ssl.create_default_context(cafile=str(program.authority.certificate))
    waits = []
    with urllib3.PoolManager(ssl_context=context) as pool:
        for number in random.sample(range(CHANGES), CHANGES):
            source = f"{registry}/team/{name_of(number)}"
            digest = digest_of(f"another {number}")
            item = {"created": "2026-01-02T00:00:00Z", "dockerImageReference": f"{source}@{digest}", "image": digest}
            review = _review(number, f"{source}:v2")
            began = _change(bed, registry, number, {2: {"tag": "v2", "items": [{**item, "generation": 2}]}})
            for answer in _answers(pool, program.url, review):
                if digest in answer:
                    break
                assert time.time() < began + 10, f"not within 10 s: {answer}"
            waits.append(time.time() - began)
    return _figure("webhook", waits, "until a review is answered with it")


def _answers(pool: urllib3.PoolManager, url: str, review: Object) -> Iterator[str]:
    while True:
        answer = pool.request("POST", url, json=review).json()["response"]
        yield base64.b64decode(answer.get("patch", "")).decode()


def _review(number: int, image: str) -> Object:
    container = {"name": "app", "image": image}
    spec = {"containers": [container], "serviceAccountName": "default"}
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": f"uid-{number}",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "operation": "CREATE",
            "namespace": namespace_of(number),
            "userInfo": {"username": "system:serviceaccount:kube-system:x"},
            "object": {"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "web-"}, "spec": spec},
            "oldObject": None,
            "dryRun": False,
        },
    }


def _figure(program: str, waits: list[float], until: str) -> Figure:
    told = f"p50 {percentile(waits, 50) * 1e3:.1f} ms, at most {max(waits) * 1e3:.1f} ms; {len(waits)} changes"
    how = f"{len(waits)} streams changed one after another, each in a namespace of its own: from the write being sent, {until}."
    return Figure(
        f"{program}, 10,000 streams: from a change to a decision, p99", percentile(waits, 99) * 1e3, "ms", LIMIT, told, how
    )
