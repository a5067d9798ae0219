"""The webhook's replicas end, hang, come and change certificates: it never keeps a pod from being created."""

import json
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from e2e.scenarios.faults.conftest import Saw
from e2e.testbed.cluster import Cluster
from e2e.testbed.faults.actions import hang
from e2e.testbed.faults.pods import HEAD, TIMEOUT_SECONDS, Served, connected, longest, seconds, unrewritten
from e2e.testbed.faults.reliability import often
from e2e.testbed.interceptor import intercepted
from e2e.testbed.programs.installed import Creating
from e2e.testbed.programs.program import Webhook
from e2e.testbed.programs.replicas import Replicas
from e2e.testbed.support.waiting import wait_for

pytestmark = pytest.mark.timeout(often(900, 150))


@pytest.fixture
def pair(replicas: Replicas, served: Served) -> list[Webhook]:
    """Two of them, which are asked."""
    both = [replicas.begin(), replicas.begin()]
    for webhook in both:
        replicas.join(webhook)
    replicas.register(both[0])
    wait_for("pods are rewritten", served.rewrites)
    return both


def wait_asked(webhook: Webhook) -> None:
    """Wait until a replica gets its share: what is done to it then concerns somebody."""
    before = webhook.metric("mirrorstream_webhook_reviews_total")
    wait_for("the replica is asked", lambda: webhook.metric("mirrorstream_webhook_reviews_total") > before + 5)


@pytest.mark.fault(
    "Webhook",
    "One of two replicas is killed (SIGKILL) again and again while pods are created",
    "Every pod is created; unrewritten are at most those whose request was there, or went there before its readiness failed",
)
def test_a_replica_is_killed(replicas: Replicas, pair: list[Webhook], served: Served, saw: Saw) -> None:
    """By failurePolicy Ignore, what the API server asks of a dead replica counts as allowed."""
    creating = Creating(served.ns, served.source)
    times = often(20, 2)
    missed, known = 0, 0.0
    for _ in range(times):
        victim = pair.pop(0)
        wait_asked(victim)
        wait_for("pods are created", partial(_created, creating, len(creating.made) + 20))
        began = time.monotonic()
        victim.process.kill()
        replicas.wait_left_out(victim)
        # One kill follows another within that time: each counts what came after the one before.
        since, known = max(began - TIMEOUT_SECONDS, known), time.monotonic()
        pair.append(replicas.start())
        missed += unrewritten(creating, served, since=since)
        assert unrewritten(creating, served, since=known) == 0
    creating.stop()
    assert unrewritten(creating, served) == missed
    saw["pods created"] = str(len(creating.made))
    saw["unrewritten, per kill"] = f"{missed / times:.1f}"
    saw["longest creation"] = seconds(longest(creating))


def _created(creating: Creating, count: int) -> bool:
    return len(creating.made) > count


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
        wait_asked(going)
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
    wait_asked(frozen)
    frozen.process.send(signal.SIGSTOP)
    replicas.wait_left_out(frozen)
    # Kept connections end with the request that nobody answers.
    time.sleep(TIMEOUT_SECONDS)
    known = time.monotonic()
    time.sleep(often(60, 2))
    frozen.process.send(signal.SIGCONT)
    wait_for("it is ready again", lambda: not replicas.is_left_out(frozen))
    wait_for("pods are created", partial(_created, creating, len(creating.made) + 20))
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
    saw["longest creation in that time"] = seconds(slowest)


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
    """The response, without what the audit log gets, to a review of a pod that names the source, ready or not."""
    kind = {"group": "", "version": "v1", "kind": "Pod"}
    pod = {"metadata": {}, "spec": {"containers": [{"name": "app", "image": served.source}]}}
    request = {"uid": "u1", "kind": kind, "operation": "CREATE", "namespace": served.ns.name, "object": pod}
    body = json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}).encode()
    with connected(webhook) as connection:
        connection.sendall(HEAD % len(body) + body)
        connection.settimeout(10)
        data = b""
        while b"\r\n\r\n" not in data or not data.rstrip().endswith(b"}"):
            data += connection.recv(65536)
    response = json.loads(data.partition(b"\r\n\r\n")[2])["response"]
    response.pop("auditAnnotations", None)
    return response


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
