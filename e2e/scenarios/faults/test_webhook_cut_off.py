"""The webhook without its API server, with odd news from it, and with more than it can take: pods are created all the same."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from e2e.scenarios.faults.conftest import Saw
from e2e.testbed.cluster import Cluster, Namespace
from e2e.testbed.faults.actions import delay, hang, refuse, reset, watch_lines
from e2e.testbed.faults.backoff import busiest, most_requests
from e2e.testbed.faults.pods import HEAD, TIMEOUT_SECONDS, Served, connected, longest, seconds, unrewritten
from e2e.testbed.faults.reliability import often
from e2e.testbed.interceptor import Action, Interceptor, intercepted
from e2e.testbed.programs.installed import Creating, image_of
from e2e.testbed.programs.program import Webhook
from e2e.testbed.programs.replicas import Replicas
from e2e.testbed.streams import IMAGE_API, tag
from e2e.testbed.support.waiting import wait_for

pytestmark = pytest.mark.timeout(often(900, 150))
WATCHED = 7
"""Kinds: streams, the mirror sets of three kinds, the Image config, signature policies of two."""


@contextmanager
def behind(replicas: Replicas, served: Served, cluster: Cluster, folder: Path) -> Iterator[tuple[Webhook, Interceptor]]:
    """One webhook whose requests to the API server pass an interceptor; the API server itself reaches it."""
    with intercepted(cluster.webhook, folder) as between:
        webhook = replicas.start(between.kubeconfig)
        replicas.register(webhook)
        wait_for("pods are rewritten", served.rewrites)
        yield webhook, between


# The API server, away for the webhook but not for those who create pods.

ACCOUNTS = [f"stranger-{number}" for number in range(8)]
"""Service accounts whose right to pull nobody has asked about before."""


@pytest.fixture(scope="module")
def accounts(served: Served) -> None:
    """They exist: kube-apiserver takes no pod of others."""
    for name in ACCOUNTS:
        served.ns.make("serviceaccounts", {"metadata": {"name": name}})


@pytest.mark.fault(
    "Webhook",
    "Everything that the webhook asks of the API server is cut off, not answered, answered with 503, or slow, for a minute",
    "Pods of accounts that came before are rewritten, those of others get the digest that nodes pull from the mirror, decided "
    "within a second; it is ready all the time; afterwards it knows the stream and the rule created in it; no tight loop, no "
    "pile of threads",
)
@pytest.mark.parametrize(
    "action",
    [
        pytest.param(reset, id="cut"),
        pytest.param(hang, id="hangs"),
        pytest.param(refuse(503, "ServiceUnavailable"), id="unavailable"),
        pytest.param(delay(1.2), id="slow"),
    ],
)
def test_the_api_server_is_away(
    action: Action, replicas: Replicas, served: Served, accounts: None, cluster: Cluster, tmp_path: Path, saw: Saw
) -> None:
    """Another API server, or the same for others, still asks: the index is old, and better than none."""
    name = f"late-{uuid4().hex[:8]}"
    with behind(replicas, served, cluster, tmp_path) as (webhook, between):
        creating = Creating(served.ns, served.source)
        threads = webhook.threads()
        with between.when("*", "", action):
            between.drop()
            began = time.monotonic()
            late = imported_late(served.ns, name)
            strange = [_by(served, account) for account in ACCOUNTS]
            assert webhook.ready()
            wait_for("its time is over", lambda: time.monotonic() > began + often(60, 5), seconds=90)
            assert webhook.threads() <= threads + 4
            assert webhook.ready()
            request, times = busiest(between, began)
            away = time.monotonic() - began
        between.drop()
        wait_for("the new stream and rule are known", late.rewrites, seconds=30)
        wait_for("the others' right to pull is known", lambda: all(_by(served, a)[1] == served.target for a in ACCOUNTS))
        creating.stop()
    assert unrewritten(creating, served) == 0
    slowest = max(took for took, _ in strange)
    assert max(longest(creating), slowest) < TIMEOUT_SECONDS
    # Of the pod's own namespace nobody's right is needed for that.
    assert {image for _, image in strange} == {served.by_digest}
    assert times <= most_requests(away), request
    saw["longest creation"] = seconds(longest(creating))
    saw["longest creation by an unknown account"] = seconds(slowest)
    saw["lists or watches of a resource"] = f"{times} in {away:.0f} s"


def _by(served: Served, account: str) -> tuple[float, str]:
    """How long the creation of an account's pod takes, and its image."""
    began = time.monotonic()
    image = image_of(served.ns.pod("strange", served.source, dry_run=True, serviceAccountName=account))
    return time.monotonic() - began, image


def imported_late(ns: Namespace, name: str) -> Served:
    """A stream that the platform itself imports, and a rule without which its image would be left to the node, both new."""
    digest = ns.put("good", f"{name}:v1", prefix=name)
    source = ns.mirror(prefix=name)
    ns.digest_mirrors(ns.mirror("other", prefix=name), source=source)
    ns.create(name, tag("v1", f"{source}/{name}:v1"))
    ns.wait_healed(name, "v1", digest)
    return Served(ns, f"{source}/{name}:v1", f"{ns.get(name)['status']['dockerImageRepository']}@{digest}")


# Watches.

DROPS = often(60, 3)
"""How often watches are dropped, once a second."""


def _dropped(between: Interceptor) -> None:
    for _ in range(DROPS):
        between.drop("watch")
        time.sleep(1)  # that it happens every second is what is tested


def _gone(between: Interceptor) -> None:
    with between.when("watch", "", refuse(410, "Expired", "too old resource version")):
        between.drop("watch")
        time.sleep(often(60, 3))


def _malformed(between: Interceptor) -> None:
    odd = [
        b'{"type":"ADDED","object":[]}\n',
        b'{"type":"MODIFIED","object":{"metadata":{"name":7}}}\n',
        b'{"type":"ADDED","object":{"metadata":{"name":"odd","namespace":"odd"},"spec":{"tags":5}}}\n',
        b'{"type":"MODIFIED","object":{"metadata":{"name":"odd","namespace":"odd"},"status":[]}}\n',
    ]

    def among(lines: Iterator[bytes]) -> Iterator[bytes]:
        yield from odd
        for line in lines:
            yield line
            yield from odd

    with between.when("watch", "", watch_lines(among)):
        between.drop("watch")
        time.sleep(often(60, 3))


@pytest.mark.fault(
    "Webhook",
    "Its watches are dropped every second, get a 410 again and again, or have malformed objects in them, while pods are created",
    "Every pod is created, and every one is rewritten; no tight loop",
)
@pytest.mark.parametrize(
    "disturb", [pytest.param(_dropped, id="dropped"), pytest.param(_gone, id="410"), pytest.param(_malformed, id="malformed")]
)
def test_watches_that_fail(
    disturb: Callable[[Interceptor], None], replicas: Replicas, served: Served, cluster: Cluster, tmp_path: Path, saw: Saw
) -> None:
    """A list replaces what is known by what differs; nothing is forgotten in between."""
    with behind(replicas, served, cluster, tmp_path) as (webhook, between):
        creating = Creating(served.ns, served.source)
        began = time.monotonic()
        disturb(between)
        request, times = busiest(between, began)
        took = time.monotonic() - began
        assert webhook.ready()
        creating.stop()
        if disturb is _malformed:
            assert webhook.metric("mirrorstream_informer_malformed_objects_total") >= 2 * WATCHED
    assert unrewritten(creating, served) == 0
    # A watch that went well for a second is begun again soon, each time that it is dropped.
    assert 1 <= times <= most_requests(took) + DROPS, request
    saw["pods created"] = str(len(creating.made))
    saw["longest creation"] = seconds(longest(creating))
    saw["lists or watches of a resource"] = f"{times} in {took:.0f} s"


@pytest.mark.fault(
    "Webhook",
    "2,000 streams are created at once while pods are created",
    "Every pod is created, and every one is rewritten, within the registration's timeoutSeconds",
)
def test_a_storm_of_streams(replicas: Replicas, served: Served, cluster: Cluster, saw: Saw) -> None:
    """The index takes each change, and reviews take their turns."""
    webhook = replicas.start()
    replicas.register(webhook)
    wait_for("pods are rewritten", served.rewrites)
    count = often(2000, 300)
    with cluster.namespace() as crowded:
        creating = Creating(served.ns, served.source)
        numbers = iter(range(count))

        def create() -> None:
            for number in numbers:
                tags = [tag(f"v{version}", crowded.source(f"app-{number}:v{version}")) for version in range(3)]
                crowded.client.request("POST", f"{IMAGE_API}/namespaces/{crowded.name}/imagestreams", body=_stream(number, tags))

        in_parallel(8, create)

        def all_known() -> bool:
            known = webhook.metric("mirrorstream_informer_objects", resource="imagestreams.image.openshift.io")
            return known == len(cluster.client.get(f"{IMAGE_API}/imagestreams")["items"])

        # Not so many more than before: on a shared cluster others remove theirs.
        wait_for("the webhook knows them", all_known, seconds=60, step=0.5)
        creating.stop()
    assert unrewritten(creating, served) == 0
    assert longest(creating) < TIMEOUT_SECONDS
    saw["streams"] = str(count)
    saw["pods created"] = str(len(creating.made))
    saw["longest creation"] = seconds(longest(creating))


def _stream(number: int, tags: list[Any]) -> Any:
    return {
        "apiVersion": "image.openshift.io/v1",
        "kind": "ImageStream",
        "metadata": {"name": f"app-{number}"},
        "spec": {"tags": tags},
    }


def in_parallel(count: int, work: Callable[[], None]) -> None:
    """Do the same in several threads. Raises the first one's error."""
    failures: list[Exception] = []

    def run() -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001  told below, to the test
            failures.append(error)

    threads = [threading.Thread(target=run, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


# Large ones, and those that do not come whole.


@pytest.mark.fault(
    "Webhook",
    "Pods of nearly 3 MB, the most that an API server takes, are created in parallel",
    "Every pod is created, and every one is rewritten; memory grows by less than 150 MiB",
)
def test_large_pods(replicas: Replicas, served: Served, saw: Saw) -> None:
    """A review has the whole pod."""
    webhook = replicas.start()
    replicas.register(webhook)
    wait_for("pods are rewritten", served.rewrites)
    before = webhook.peak_memory()
    times, made = often(50, 3), list[tuple[float, str]]()
    container = {"name": "app", "image": served.source, "env": [{"name": "LARGE", "value": "x" * 2_900_000}]}

    def create() -> None:
        for _ in range(times):
            began = time.monotonic()
            pod = served.ns.make("pods", {"metadata": {"name": "large"}, "spec": {"containers": [container]}}, dry_run=True)
            made.append((time.monotonic() - began, image_of(pod)))

    in_parallel(4, create)
    grown = webhook.peak_memory() - before
    assert [image for _, image in made] == [served.target] * 4 * times
    assert grown < 150
    saw["pods created"] = str(len(made))
    saw["longest creation"] = seconds(max(took for took, _ in made))
    saw["memory grown by"] = f"{grown} MiB"


@pytest.mark.fault(
    "Webhook",
    "1,000 connections send half a request each and nothing more, while pods are created",
    "Every pod is created, none later than the registration's timeoutSeconds; some go unrewritten at first",
)
def test_requests_that_do_not_come_whole(replicas: Replicas, served: Served, saw: Saw) -> None:
    """None of them holds a thread, and each is cut in its time."""
    webhook = replicas.start()
    replicas.register(webhook)
    wait_for("pods are rewritten", served.rewrites)
    count = often(1000, 600)
    with ExitStack() as stack:
        creating = Creating(served.ns, served.source)
        for _ in range(count):
            connection = stack.enter_context(connected(webhook))
            connection.sendall(HEAD % 1000 + b"{")
        held = time.monotonic()
        time.sleep(2 * TIMEOUT_SECONDS)  # for the last of them
        settled = time.monotonic()
        time.sleep(often(30, 2))
        creating.stop()
    assert unrewritten(creating, served, since=settled) == 0
    assert longest(creating) < TIMEOUT_SECONDS + 2
    saw["connections"] = str(count)
    saw["pods created"] = str(len(creating.made))
    saw["unrewritten"] = str(unrewritten(creating, served))
    saw["longest creation"] = seconds(longest(creating))
    saw["longest creation with all held"] = seconds(max(made.seconds for made in creating.made if made.at > held))
