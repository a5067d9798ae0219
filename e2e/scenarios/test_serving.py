"""The webhook under load while things happen to it: certificates, its end, an API server that hangs or is gone."""

import shutil
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from mirrorstream.kube.client import ClientError

from e2e.scenarios.conftest import Start
from e2e.testbed.backends import EXISTING, SIMULATOR
from e2e.testbed.cluster import Cluster, Namespace
from e2e.testbed.load import Load
from e2e.testbed.programs.installed import healed
from e2e.testbed.programs.program import Webhook, running
from e2e.testbed.support.forwarder import forwarding
from e2e.testbed.support.waiting import wait_for

Object = dict[str, Any]
pytestmark = pytest.mark.skipif(shutil.which("go") is None, reason="the client is built with Go")


@pytest.fixture
def source(cluster: Cluster, ns: Namespace, start: Start) -> str:
    """The reference of a healed tag."""
    if cluster.backend == EXISTING:
        pytest.skip("what runs on this machine is not that cluster's")
    ns.allow_pulls()
    return healed(ns, start)[0]


def review(ns: Namespace, source: str, account: str = "default") -> Object:
    """A review of a pod's creation."""
    kind = {"group": "", "version": "v1", "kind": "Pod"}
    spec = {"containers": [{"name": "app", "image": source}], "serviceAccountName": account}
    request = {"uid": "u1", "kind": kind, "operation": "CREATE", "namespace": ns.name, "object": {"metadata": {}, "spec": spec}}
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


def load(webhook: Webhook, folder: Path, bodies: list[Object], *, port: int = 0, **more: Any) -> Load:
    """A Go client of a webhook, or of a port that leads to it."""
    url = f"https://localhost:{port}/mutate-pods" if port else webhook.url
    return Load(url, bodies, folder, ca=webhook.authority.certificate, **more)


def wait_patches(webhook: Webhook, ns: Namespace, source: str, folder: Path) -> None:
    """Wait until the webhook knows the tag."""

    def patches() -> bool:
        return load(webhook, folder, [review(ns, source)], seconds=0.05).outcome(stop=False).patched > 0

    wait_for("the webhook knows the tag", patches)


def _taken_over(webhook: Webhook, count: int) -> bool:
    return webhook.metric("mirrorstream_webhook_certificate_reloads_total", accepted="true") >= count


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
def test_a_new_certificate_lets_no_pod_through_unrewritten(
    http2: bool, cluster: Cluster, ns: Namespace, source: str, tmp_path: Path
) -> None:
    """Files change under load: no review fails, and every pod is rewritten."""
    with running(Webhook(cluster.webhook, tmp_path, {}, log_level="info")) as webhook:
        wait_patches(webhook, ns, source, tmp_path)
        busy = load(webhook, tmp_path, [review(ns, source)], connections=8, http2=http2)
        for count in (1, 2, 3):
            webhook.renew()
            wait_for("the certificate is taken over", partial(_taken_over, webhook, count))
        outcome = busy.outcome()
    assert outcome.failures == {}
    assert outcome.patched == outcome.reviews > 10


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
def test_a_replica_that_ends_fails_no_review(http2: bool, cluster: Cluster, ns: Namespace, source: str, tmp_path: Path) -> None:
    """SIGTERM with another replica there: not ready first, then its clients are moved away, then it ends with 0."""
    first = Webhook(cluster.webhook, tmp_path, {}, log_level="info")
    with running(first), running(Webhook(cluster.webhook, tmp_path, {}, log_level="info", authority=first.authority)) as second:
        for webhook in (first, second):
            wait_patches(webhook, ns, source, tmp_path)
        backends = [(webhook.admission_port, webhook.ready) for webhook in (first, second)]
        with forwarding(*backends) as port:
            busy = load(first, tmp_path, [review(ns, source)], port=port, connections=8, http2=http2)
            both = (first, second) if not http2 else ()
            wait_for("both are asked", lambda: all(w.metric("mirrorstream_webhook_reviews_total") > 20 for w in both))
            first.process.send(signal.SIGTERM)
            wait_for("it is not ready", lambda: first.get("/readyz") == (503, "ending\n"))
            assert first.process.wait(60) == 0
            outcome = busy.outcome()
    assert outcome.failures == {}
    assert outcome.patched == outcome.reviews > 10


@pytest.fixture
def simulator(cluster: Cluster) -> Cluster:
    """A cluster whose access reviews are the simulator's to hold up."""
    if cluster.backend != SIMULATOR:
        pytest.skip("only the simulator's own access reviews can be held up")
    return cluster


def test_an_api_server_that_hangs_delays_a_review_for_a_moment_only(
    simulator: Cluster, ns: Namespace, source: str, tmp_path: Path
) -> None:
    """SubjectAccessReviews are not answered: every review is, in time, and threads do not pile up."""
    with running(Webhook(simulator.webhook, tmp_path, {}, log_level="info")) as webhook:
        wait_patches(webhook, ns, source, tmp_path)
        before = webhook.threads()
        simulator.control("faults", {"path": "subjectaccessreviews", "action": {"hang": True}})
        try:
            strangers = [review(ns, source, f"account-{number}") for number in range(200)]
            outcome = load(webhook, tmp_path, strangers, connections=16, seconds=4).outcome(stop=False)
        finally:
            simulator.control("faults", method="DELETE")
        assert outcome.failures == {}
        assert (outcome.denied, outcome.p50 < 3) == (0, True), outcome
        assert webhook.threads() <= before + 4
        known = load(webhook, tmp_path, [review(ns, source)], seconds=0.3).outcome(stop=False)
        assert known.patched == known.reviews


def test_without_an_api_server_known_pods_are_rewritten_as_before(
    simulator: Cluster, ns: Namespace, source: str, tmp_path: Path
) -> None:
    """Other API servers of the cluster may be there and ask: the index and the known rights go on."""
    with running(Webhook(simulator.webhook, tmp_path, {}, log_level="info")) as webhook:
        wait_patches(webhook, ns, source, tmp_path)
        simulator.control("outage", {"seconds": 2})
        wait_for("the API server is away", lambda: not _answers(simulator), step=0.01)
        outcome = load(webhook, tmp_path, [review(ns, source)], connections=4, seconds=1.5).outcome(stop=False)
        assert outcome.failures == {}
        assert outcome.patched == outcome.reviews > 0
        assert webhook.ready()
        wait_for("the API server is back", lambda: _answers(simulator))


def _answers(cluster: Cluster) -> bool:
    try:
        cluster.client.get("/version")
    except ClientError:
        return False
    return True
