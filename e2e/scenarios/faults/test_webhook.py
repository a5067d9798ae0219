"""The webhook's faults: it never keeps a pod from being created, and what it cannot help it helps again at once."""

import json
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from e2e.backends import EXISTING
from e2e.interceptor import Action, Interceptor, delay, hang, intercepted, refuse, reset, watch_lines
from e2e.reliability import often
from e2e.scenarios.cluster import IMAGE_API, Cluster, Namespace, tag
from e2e.scenarios.conftest import configuration
from e2e.scenarios.faults.conftest import Saw
from e2e.scenarios.installed import Creating, image_of, mirrored, rewrites
from e2e.scenarios.program import Controller, Webhook, running
from e2e.scenarios.replicas import Replicas
from e2e.waiting import wait_for

pytestmark = pytest.mark.timeout(often(900, 150))
TIMEOUT_SECONDS = 3
"""What the webhook's registration gives it, as users install it."""
WATCHED = 7
"""Kinds: streams, the mirror sets of three kinds, the Image config, signature policies of two."""


@dataclass(frozen=True)
class Served:
    """A namespace with a healed stream: what its pods name, and what they are to get."""

    ns: Namespace
    source: str
    target: str

    def rewrites(self) -> bool:
        """Whether a pod would be rewritten now."""
        return rewrites(self.ns, self.source, self.target)


@pytest.fixture(scope="module")
def served(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One for all of these tests, and nobody heals any more."""
    if cluster.backend == EXISTING:
        pytest.skip("an existing cluster's API server does not reach a webhook of this machine")
    with cluster.namespace() as ns:
        with healing(cluster, ns, tmp_path_factory.mktemp("healed")):
            source, target = mirrored(ns)
        yield Served(ns, source, target)
        ns.check_untouched()


@contextmanager
def healing(cluster: Cluster, ns: Namespace, folder: Path) -> Iterator[None]:
    """A controller for a while."""
    with running(Controller(cluster.program, folder, configuration(ns), "--no-leader-election")):
        yield


@pytest.fixture
def replicas(cluster: Cluster, served: Served, tmp_path: Path) -> Iterator[Replicas]:
    """None to begin with."""
    with ExitStack() as stack:
        yield Replicas(cluster, served.ns, tmp_path, stack)


@pytest.fixture
def pair(replicas: Replicas, served: Served) -> list[Webhook]:
    """Two of them, which are asked."""
    both = [replicas.begin(), replicas.begin()]
    for webhook in both:
        replicas.join(webhook)
    replicas.register(both[0])
    wait_for("pods are rewritten", served.rewrites)
    return both


@contextmanager
def behind(replicas: Replicas, served: Served, cluster: Cluster, folder: Path) -> Iterator[tuple[Webhook, Interceptor]]:
    """One webhook whose requests to the API server pass an interceptor; the API server itself reaches it."""
    with intercepted(cluster.webhook, folder) as between:
        webhook = replicas.start(between.kubeconfig)
        replicas.register(webhook)
        wait_for("pods are rewritten", served.rewrites)
        yield webhook, between


def seconds(value: float) -> str:
    """For the table."""
    return f"{value:.2f} s"


def longest(creating: Creating) -> float:
    """Of all pods that were created."""
    return max(made.seconds for made in creating.made)


def unrewritten(creating: Creating, served: Served, *, since: float = 0) -> int:
    """How many pods whose creation began since then were created as they were."""
    return sum(made.image != served.target for made in creating.made if made.at >= since)


# Replicas that end, hang and come.


@pytest.mark.fault(
    "Webhook",
    "One of two replicas is killed (SIGKILL) again and again while pods are created",
    "Every pod is created; unrewritten are at most those whose request was at the killed one, or went there before its readiness failed",
)
def test_a_replica_is_killed(replicas: Replicas, pair: list[Webhook], served: Served, saw: Saw) -> None:
    """failurePolicy Ignore: what the API server asks of a dead replica counts as allowed."""
    creating = Creating(served.ns, served.source)
    times = often(20, 2)
    missed = 0
    for _ in range(times):
        so_far, victim = len(creating.made), pair.pop(0)
        wait_for("pods are created", lambda before=so_far: len(creating.made) > before + 20)
        began = time.monotonic()
        victim.process.kill()
        replicas.wait_left_out(victim)
        known = time.monotonic()
        pair.append(replicas.start())
        missed += unrewritten(creating, served, since=began - TIMEOUT_SECONDS)
        assert unrewritten(creating, served, since=known) == 0
    creating.stop()
    assert unrewritten(creating, served) == missed
    saw["pods created"] = str(len(creating.made))
    saw["unrewritten, per kill"] = f"{missed / times:.1f}"
    saw["longest creation"] = seconds(longest(creating))


@pytest.mark.fault(
    "Webhook", "One of two replicas is ended (SIGTERM) while pods are created", "Every pod is created, and every one is rewritten"
)
def test_a_replica_is_ended(replicas: Replicas, pair: list[Webhook], served: Served, saw: Saw) -> None:
    """It says that it is not ready, and answers until the API server has gone."""
    creating = Creating(served.ns, served.source)
    for number in range(often(10, 1)):
        if number:
            pair.append(replicas.start())
        going = pair.pop(0)
        going.process.send(signal.SIGTERM)
        replicas.wait_left_out(going)
        assert going.process.wait(20) == 0
    creating.stop()
    assert unrewritten(creating, served) == 0
    saw["pods created"] = str(len(creating.made))
    saw["longest creation"] = seconds(longest(creating))


@pytest.mark.fault(
    "Webhook",
    "One of two replicas is frozen (SIGSTOP) while pods are created",
    "Every pod is created, none later than the registration's timeoutSeconds; once its readiness has failed all are rewritten",
)
def test_a_replica_is_frozen(replicas: Replicas, pair: list[Webhook], served: Served, saw: Saw) -> None:
    """What has connections to it waits for 3 s, once; nobody is led there any more."""
    creating = Creating(served.ns, served.source)
    frozen = pair[0]
    frozen.process.send(signal.SIGSTOP)
    replicas.wait_left_out(frozen)
    # Kept connections end with the request that nobody answers.
    time.sleep(TIMEOUT_SECONDS)
    known = time.monotonic()
    time.sleep(often(60, 2))
    frozen.process.send(signal.SIGCONT)
    wait_for("it is ready again", lambda: not replicas.is_left_out(frozen))
    so_far = len(creating.made)
    wait_for("pods are created", lambda: len(creating.made) > so_far + 20)
    creating.stop()
    assert unrewritten(creating, served, since=known) == 0
    assert longest(creating) < TIMEOUT_SECONDS + 2
    saw["pods created"] = str(len(creating.made))
    saw["unrewritten"] = str(unrewritten(creating, served))
    saw["longest creation"] = seconds(longest(creating))


@pytest.mark.fault(
    "Webhook",
    "Both replicas are killed while pods are created, and one comes back",
    "Every pod is created, at once and as it is; all are rewritten again when one replica is ready",
)
def test_all_replicas_are_killed(replicas: Replicas, pair: list[Webhook], served: Served, saw: Saw) -> None:
    """Nothing depends on the webhook but where images come from."""
    creating = Creating(served.ns, served.source)
    for webhook in pair:
        webhook.process.kill()
    for webhook in pair:
        replicas.wait_left_out(webhook)
    gone = time.monotonic()
    wait_for("pods are created without", lambda: len([made for made in creating.made if made.at > gone]) > 20)
    slowest = max(made.seconds for made in creating.made if made.at > gone)
    replicas.start()
    back = time.monotonic()
    wait_for("pods are created with it", lambda: len([made for made in creating.made if made.at > back]) > 20)
    creating.stop()
    assert unrewritten(creating, served, since=back) == 0
    assert slowest < TIMEOUT_SECONDS
    saw["longest creation meanwhile"] = seconds(slowest)


@pytest.mark.fault(
    "Webhook",
    "Both replicas are replaced, one after the other, while pods are created; the new ones' first lists take a while",
    "Every pod is created, and every one is rewritten: a replica that has not read everything is not ready",
)
def test_replicas_are_replaced(
    replicas: Replicas, pair: list[Webhook], served: Served, cluster: Cluster, tmp_path: Path, saw: Saw
) -> None:
    """Asked all the same, one that knows nothing yet allows everything."""
    with intercepted(cluster.webhook, tmp_path) as between:
        creating = Creating(served.ns, served.source)
        for _ in range(often(10, 1)):
            for old in pair[:2]:
                with between.when("list", "/imagestreams$", hang):
                    new = replicas.begin(between.kubeconfig)
                    wait_for("its readiness is asked for", partial(replicas.is_left_out, new))
                    wait_for("it lists the streams", partial(_says, new, "not synced yet: imagestreams.image.openshift.io"))
                    assert asked_directly(new, served) == {"uid": "u1", "allowed": True}
                    between.drop("list")
                replicas.join(new)
                old.process.send(signal.SIGTERM)
                assert old.process.wait(20) == 0
                pair.remove(old)
                pair.append(new)
        creating.stop()
        assert unrewritten(creating, served) == 0
        saw["pods created"] = str(len(creating.made))
        saw["longest creation"] = seconds(longest(creating))


def _says(webhook: Webhook, problem: str) -> bool:
    try:
        return webhook.get("/readyz") == (503, problem + "\n")
    except OSError:
        return False


def asked_directly(webhook: Webhook, served: Served) -> Any:
    """The response, without what the audit log gets, to a review of a pod that names the source, whoever is ready or not."""
    kind = {"group": "", "version": "v1", "kind": "Pod"}
    pod = {"metadata": {}, "spec": {"containers": [{"name": "app", "image": served.source}]}}
    request = {"uid": "u1", "kind": kind, "operation": "CREATE", "namespace": served.ns.name, "object": pod}
    body = json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}).encode()
    with connected(webhook) as connection:
        connection.sendall(_HEAD % len(body) + body)
        connection.settimeout(10)
        data = b""
        while b"\r\n\r\n" not in data or not data.rstrip().endswith(b"}"):
            data += connection.recv(65536)
    response = json.loads(data.partition(b"\r\n\r\n")[2])["response"]
    response.pop("auditAnnotations", None)
    return response


_HEAD = b"POST /mutate-pods HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


def connected(webhook: Webhook) -> ssl.SSLSocket:
    """A TLS connection to a webhook."""
    context = ssl.create_default_context(cafile=str(webhook.authority.certificate))
    plain = socket.create_connection(("127.0.0.1", webhook.admission_port), timeout=20)
    return context.wrap_socket(plain, server_hostname="localhost")


@pytest.mark.fault(
    "Webhook",
    "The certificates of both replicas change again and again while pods are created",
    "Every pod is created, and every one is rewritten",
)
def test_certificates_change(pair: list[Webhook], served: Served, saw: Saw) -> None:
    """A new certificate takes new connections, and the open ones are led over."""
    creating = Creating(served.ns, served.source)
    times = often(20, 3)
    for count in range(1, times + 1):
        for webhook in pair:
            webhook.renew()
        for webhook in pair:
            wait_for("the certificate is taken over", partial(_taken_over, webhook, count))
    creating.stop()
    assert unrewritten(creating, served) == 0
    saw["certificates"] = str(2 * times)
    saw["pods created"] = str(len(creating.made))
    saw["longest creation"] = seconds(longest(creating))


def _taken_over(webhook: Webhook, count: int) -> bool:
    return webhook.metric("mirrorstream_webhook_certificate_reloads_total", accepted="true") >= count


# The API server, away for the webhook but not for those who create pods.

ACCOUNTS = [f"stranger-{number}" for number in range(20)]
"""Service accounts whose right to pull nobody has asked about before."""


@pytest.fixture(scope="module")
def accounts(served: Served) -> None:
    """They exist: kube-apiserver takes no pod of others."""
    for name in ACCOUNTS:
        served.ns.make("serviceaccounts", {"metadata": {"name": name}})


@pytest.mark.fault(
    "Webhook",
    "Everything that the webhook asks of the API server is cut off, not answered, answered with 503, or slow, for a minute",
    "Pods of accounts that came before are rewritten; of others it decides within a second, and they stay as they are; it is ready "
    "all the time; afterwards it knows the stream and the rule that came meanwhile; no tight loop, no pile of threads",
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
    name = f"late-{Path(tmp_path).name[-40:].strip('_').replace('_', '-')}"
    with behind(replicas, served, cluster, tmp_path) as (webhook, between):
        creating = Creating(served.ns, served.source)
        threads = webhook.threads()
        with between.when("*", "", action):
            between.drop()
            began = time.monotonic()
            with healing(cluster, served.ns, tmp_path):
                late = healed_late(served.ns, name)
            strange = [_by(served, account) for account in ACCOUNTS]
            assert webhook.ready()
            wait_for("its time is over", lambda: time.monotonic() > began + often(60, 8), seconds=90)
            assert webhook.threads() <= threads + 4
            assert webhook.ready()
            away = time.monotonic() - began
            asked = {verb: between.count(verb, since=began) for verb in ("list", "watch", "create")}
        between.drop()
        wait_for("what came meanwhile is known", late.rewrites, seconds=30)
        wait_for("the others' right to pull is known", lambda: all(_by(served, a)[1] == served.target for a in ACCOUNTS))
        creating.stop()
    assert unrewritten(creating, served) == 0
    slowest = max(took for took, _ in strange)
    assert max(longest(creating), slowest) < TIMEOUT_SECONDS
    if "slow" not in tmp_path.name:
        assert {image for _, image in strange} == {served.source}
    # Waits that double up to 10 s, at least the half of each.
    assert asked["list"] + asked["watch"] <= WATCHED * (6 + away / 5), asked
    saw["longest creation"] = seconds(longest(creating))
    saw["longest creation by an unknown account"] = seconds(slowest)
    saw["requests for lists and watches"] = f"{asked['list'] + asked['watch']} in {away:.0f} s"


def _by(served: Served, account: str) -> tuple[float, str]:
    """How long the creation of an account's pod takes, and its image."""
    began = time.monotonic()
    image = image_of(served.ns.pod("strange", served.source, dry_run=True, serviceAccountName=account))
    return time.monotonic() - began, image


def healed_late(ns: Namespace, name: str) -> Served:
    """A stream that only a rule of its own heals, both new."""
    digest = ns.put("good", f"{name}:v1", prefix=name)
    prefix = f"{ns.cluster.host('dead')}/{name}-{ns.name}"
    ns.digest_mirrors(ns.mirror(prefix=name), source=prefix)
    ns.create(name, tag("v1", f"{prefix}/{name}:v1"))
    ns.wait_healed(name, "v1", digest)
    return Served(ns, f"{prefix}/{name}:v1", f"{ns.get(name)['status']['dockerImageRepository']}@{digest}")


# Watches.


def _dropped(between: Interceptor) -> None:
    for _ in range(often(60, 5)):
        between.drop("watch")
        time.sleep(1)  # that it happens every second is what is tested


def _gone(between: Interceptor) -> None:
    with between.when("watch", "", refuse(410, "Expired", "too old resource version")):
        between.drop("watch")
        time.sleep(often(60, 5))


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
        time.sleep(often(60, 5))


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
        took = time.monotonic() - began
        asked = between.count("list", since=began) + between.count("watch", since=began)
        assert webhook.ready()
        creating.stop()
        if disturb is _malformed:
            assert webhook.metric("mirrorstream_informer_malformed_objects_total") >= 4 * WATCHED
    assert unrewritten(creating, served) == 0
    # A watch that went well for a second is had again after half a second at most, and the first list after a 410 at once.
    assert WATCHED <= asked <= WATCHED * (6 + took), asked
    saw["pods created"] = str(len(creating.made))
    saw["longest creation"] = seconds(longest(creating))
    saw["requests for lists and watches"] = f"{asked} in {took:.0f} s"


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
        known = webhook.metric("mirrorstream_informer_objects", resource="imagestreams.image.openshift.io")
        creating = Creating(served.ns, served.source)
        numbers = iter(range(count))

        def create() -> None:
            for number in numbers:
                tags = [tag(f"v{version}", crowded.source(f"app-{number}:v{version}")) for version in range(3)]
                crowded.client.request("POST", f"{IMAGE_API}/namespaces/{crowded.name}/imagestreams", body=_stream(number, tags))

        in_parallel(8, create)

        def all_known() -> bool:
            return webhook.metric("mirrorstream_informer_objects", resource="imagestreams.image.openshift.io") >= known + count

        wait_for("the webhook knows them", all_known, seconds=60)
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
    "Every pod is created, none later than the registration's timeoutSeconds; some go unrewritten until the server has more threads",
)
def test_requests_that_do_not_come_whole(replicas: Replicas, served: Served, saw: Saw) -> None:
    """More than the threads that the server goes up to; it has them back though nobody lets them go."""
    webhook = replicas.start()
    replicas.register(webhook)
    wait_for("pods are rewritten", served.rewrites)
    count = often(1000, 600)
    with ExitStack() as stack:
        creating = Creating(served.ns, served.source)
        for _ in range(count):
            connection = stack.enter_context(connected(webhook))
            connection.sendall(_HEAD % 1000 + b"{")
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
