"""A tenant that does what it can to keep mirrorstream busy: others are served in their turn.

The sizes are those that every run can bear; `TENANT_STREAMS=1000 TENANT_TAGS=20` asks for the full ones.
"""

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from mirrorstream.kube.client import ApiError, load_client

from e2e.scenarios.conftest import Start
from e2e.testbed.cluster import Cluster, Namespace
from e2e.testbed.programs.program import Controller
from e2e.testbed.registries.registry import Failure, Registry
from e2e.testbed.streams import IMAGE_API, tag
from e2e.testbed.support.waiting import wait_for

STREAMS = int(os.environ.get("TENANT_STREAMS", "60"))
TAGS = int(os.environ.get("TENANT_TAGS", "10"))
PATIENCE_SECONDS = max(300, STREAMS * TAGS / 5)
"""For the platform's own import of another namespace's tag: the tenant's streams are first, ten at once, two tags a second each."""
OTHERS = 5
LONG = 10_000
HUGE = 1_000_000


@contextlib.contextmanager
def asking_again(ns: Namespace, names: list[str]) -> Iterator[list[int]]:
    """Change the retry annotation of streams, one after the other, without end; how often that was done."""
    stop, done = threading.Event(), [0]
    client = load_client(str(ns.cluster.kubeconfig), in_cluster=False, user_agent="tenant")

    def run() -> None:
        while not stop.is_set():
            for name in names:
                if stop.is_set():
                    return
                done[0] += 1
                body = {"metadata": {"annotations": {"mirrorstream.github.io/retry": str(done[0])}}}
                path = f"{IMAGE_API}/namespaces/{ns.name}/imagestreams/{name}"
                with contextlib.suppress(ApiError):
                    client.request("PATCH", path, body=body, content_type="application/merge-patch+json")

    thread = threading.Thread(target=run, name="tenant", daemon=True)
    thread.start()
    try:
        yield done
    finally:
        stop.set()
        thread.join(60)
        client.close()


def greedy(ns: Namespace, source: str) -> list[str]:
    """Make a tenant's streams: many with many tags, one with an annotation of 1 MB, one with references of 10 kB; their names."""
    names = [f"greedy-{number}" for number in range(STREAMS)]
    for name in names:
        ns.client.request(
            "POST",
            f"{IMAGE_API}/namespaces/{ns.name}/imagestreams",
            body={
                "metadata": {"name": name, "annotations": {"junk": "x" * HUGE} if name == names[0] else {}},
                "spec": {"tags": [tag(f"v{number}", f"{source}/{name}:v{number}") for number in range(TAGS)]},
            },
        )
    long: list[Any] = [tag("path", f"{source}/{'a' * LONG}:v1"), tag("tag", f"{source}/app:{'v' * LONG}"), tag("deep", "a/" * LONG)]
    for number, entry in enumerate(long):
        # Whether the platform takes them is its own business.
        with contextlib.suppress(ApiError):
            body = {"metadata": {"name": f"long-{number}"}, "spec": {"tags": [entry]}}
            ns.client.request("POST", f"{IMAGE_API}/namespaces/{ns.name}/imagestreams", body=body)
    return names


def _busy(running: Controller) -> bool:
    return running.metric("mirrorstream_imports_total", result="failed") > TAGS


@pytest.mark.timeout(3600)
def test_a_tenant_with_masses_of_failing_tags_delays_nobody(ns: Namespace, simulated: Cluster, start: Start) -> None:
    """Masses of tags whose registry redirects in a loop, huge texts, and a retry of every stream again and again."""
    with Registry() as loop, simulated.namespace() as other:
        loop.failure = Failure(redirect=True)
        # The loopback address is allowed by number, with every port.
        host = loop.host.replace("localhost", "127.0.0.1")
        simulated.change_image_config(lambda spec: spec["registrySources"]["insecureRegistries"].append(host))
        ns.mirror_set("ImageDigestMirrorSet", f"{host}/{ns.name}", f"{host}/mirror-{ns.name}")
        digest = other.put("good", "app:v1")
        other.digest_mirrors()
        running = start(namespaces={"include": [ns.name, other.name]})
        names = greedy(ns, f"{host}/{ns.name}")
        wait_for("the tenant's imports run", lambda: _busy(running))
        ahead = []
        with asking_again(ns, names) as asked:
            wait_for("the tenant asks", lambda: asked[0] > 10)
            for number in range(OTHERS):
                other.create(f"app-{number}", tag("v1", other.source("app:v1")))
                other.wait_failed(f"app-{number}", "v1", seconds=PATIENCE_SECONDS)
                before = running.metric("mirrorstream_imports_total", result="failed")
                other.wait_healed(f"app-{number}", "v1", digest)
                ahead.append(running.metric("mirrorstream_imports_total", result="failed") - before)
        assert asked[0] > STREAMS / 2, "the tenant was busy all the while"
        assert running.metric("mirrorstream_imports_total", result="failed") > TAGS
        print(f"{STREAMS} x {TAGS} failing tags, {asked[0]} retries: others waited for {ahead} of them")
        assert max(ahead) < STREAMS * TAGS, "others wait for their turn only, not for all that came before"
        assert running.get("/healthz")[0] == 200
