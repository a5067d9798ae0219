"""Hosted clusters on a management cluster: their namespaces go while their catalogs heal, and come again."""

import time
from collections.abc import Iterator

import pytest
from mirrorstream.kube.client import ApiError

from e2e.scenarios.conftest import Start
from e2e.scenarios.faults.conftest import Saw
from e2e.testbed.cluster import Namespace
from e2e.testbed.controllers.hosted_catalogs import CATALOGS, POLICY, STREAM
from e2e.testbed.faults.actions import Hold
from e2e.testbed.faults.reliability import SOAK, often
from e2e.testbed.installation import delete
from e2e.testbed.interceptor import Interceptor
from e2e.testbed.streams import IMAGE_API, tag
from e2e.testbed.support.waiting import wait_for

pytestmark = pytest.mark.timeout(often(400, 180))
AFTERWARDS = 8
"""Requests for a stream that is gone: what was under way, and an Event that nobody takes."""
STEPS = {
    "dry-run": ("create", "/imagestreamimports$"),
    "image": ("create", "/image.openshift.io/v1/images$"),
    "status": ("update", f"/imagestreams/{STREAM}/status$"),
}


@pytest.fixture
def hosted(ns: Namespace) -> Iterator[str]:
    """The name of a hosted cluster's namespace, which is gone at the end."""
    name = f"{ns.name}-hosted"
    yield name
    remove(ns, name)


def add(ns: Namespace, name: str) -> None:
    """Create the namespace as soon as one of its name is gone, and its catalogs."""

    def created() -> bool:
        try:
            ns.client.request("POST", "/api/v1/namespaces", body={"metadata": {"name": name}})
        except ApiError as error:
            if error.status != 409:
                raise
            return False
        return True

    wait_for("the namespace is created", created)
    tags = [tag(catalog, ns.source(f"{catalog}:v1"), importPolicy=POLICY) for catalog in CATALOGS]
    body = {"metadata": {"name": STREAM}, "spec": {"lookupPolicy": {"local": True}, "tags": tags}}
    ns.client.request("POST", f"{IMAGE_API}/namespaces/{name}/imagestreams", body=body)


def remove(ns: Namespace, name: str) -> None:
    """Delete the namespace, and wait until its stream is gone."""
    delete(ns.client, f"/api/v1/namespaces/{name}")
    wait_for("the stream is gone", lambda: not catalogs(ns, name))


def catalogs(ns: Namespace, name: str) -> list[str]:
    """The streams of the namespace."""
    found = ns.client.get(f"{IMAGE_API}/namespaces/{name}/imagestreams").get("items") or []
    return [stream["metadata"]["name"] for stream in found]


def healed(ns: Namespace, name: str) -> bool:
    """Whether every catalog has its image."""
    stream = ns.client.get(f"{IMAGE_API}/namespaces/{name}/imagestreams/{STREAM}")
    tags = (stream.get("status") or {}).get("tags") or []
    return len(tags) == len(CATALOGS) and all(entry.get("items") and not entry.get("conditions") for entry in tags)


@pytest.mark.parametrize("step", STEPS if SOAK else ("dry-run", "status"))
@pytest.mark.fault(
    "Streams",
    "A hosted cluster's namespace is deleted in the middle of a heal, and created again",
    "nothing more is asked for the namespace that is gone; others heal; the new one heals",
)
def test_a_namespace_that_is_deleted(ns: Namespace, start: Start, between: Interceptor, saw: Saw, hosted: str, step: str) -> None:
    """While its dry run, its Image or its status write is under way."""
    for catalog in CATALOGS:
        ns.put("good", f"{catalog}:v1", kind="list")
    digest = ns.put("good", "app:v1")
    ns.digest_mirrors()
    program = start(program=between.kubeconfig, namespaces={"include": [ns.name, hosted]})
    hold = Hold()
    with between.when(*STEPS[step], hold, times=1):
        add(ns, hosted)
        wait_for("the step is under way", hold.arrived.is_set)
        remove(ns, hosted)
        gone = time.monotonic()
        hold.let_go.set()
        ns.create("app", tag("v1", ns.source("app:v1")))
        ns.wait_healed("app", "v1", digest)
    wait_for("nothing runs", lambda: program.metric("mirrorstream_running_imports") == 0)
    wait_for("nothing is left of it", lambda: program.metric("mirrorstream_failing_tags") == 0)
    asked = between.count("*", f"/namespaces/{hosted}/", gone)
    saw["requests for the namespace that is gone"] = str(asked)
    assert asked <= AFTERWARDS
    add(ns, hosted)
    wait_for("the new one is healed", lambda: healed(ns, hosted))
