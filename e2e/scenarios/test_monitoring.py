"""What monitoring asks of others: the API server's own metrics about the webhook are called as alerts and panels call them."""

from e2e.scenarios.conftest import Hook, Start
from e2e.testbed.cluster import Cluster, Namespace
from e2e.testbed.programs.installed import healed, settled
from e2e.testbed.support.waiting import wait_for
from e2e.testbed.workloads import images

NAMED = 'name="pods.mirrorstream.github.io"'
FAILED_OPEN = "apiserver_admission_webhook_fail_open_count"


def _lines(cluster: Cluster, name: str) -> list[str]:
    """The API server's series of a metric that are about our webhook."""
    text: str = cluster.client.request("GET", "/metrics", decode=lambda data: data.decode())
    return [line for line in text.splitlines() if line.startswith(f"{name}{{") and NAMED in line]


def _failed_open(cluster: Cluster) -> float:
    return sum(float(line.rpartition(" ")[2]) for line in _lines(cluster, FAILED_OPEN))


def test_the_api_server_counts_pods_that_it_admits_without_the_webhook(
    ns: Namespace, authorized: Cluster, start: Start, hook: Hook
) -> None:
    """Under the name that MirrorstreamWebhookFailingOpen asks for; and how long it waits for answers, which the dashboard shows."""
    ns.allow_pulls()
    source, wanted = healed(ns, start)
    webhook = hook()
    settled(ns, source, wanted)
    assert _lines(authorized, "apiserver_admission_webhook_admission_duration_seconds_bucket")
    before = _failed_open(authorized)
    webhook.process.kill()
    assert images(ns.pod("app", source)) == [source]
    wait_for("it is counted", lambda: _failed_open(authorized) > before)
