"""A real node pulls from the test bed's internal registry, as pods on OpenShift do: with the account's secret, over TLS."""

import pytest

from e2e.testbed.backends import Choice
from e2e.testbed.cluster import Namespace
from e2e.testbed.registries.internal import ABSENT
from e2e.testbed.streams import tag
from e2e.testbed.workloads import wait_hanging, wait_running


@pytest.fixture
def stream(ns: Namespace) -> tuple[str, str]:
    """A stream's repository at the internal registry, and the digest of its tag v1, whose source is alive."""
    ns.cluster.put("good", f"{ns.name}/app", "v1")
    # The platform's registry uses HTTP for a source only if the tag is insecure; the Image config applies to the importer only.
    ns.create("app", tag("v1", ns.source("app:v1", "good"), importPolicy={"insecure": True}))
    digest = str(ns.wait_healed("app", "v1")["image"])
    return ns.get("app")["status"]["dockerImageRepository"], digest


@pytest.mark.parametrize("by", ["tag", "digest"])
def test_a_pod_runs_from_it(ns: Namespace, stream: tuple[str, str], by: str) -> None:
    """By its account's own pull secret, which admission gave it."""
    repository, digest = stream
    ns.allow_pulls()
    ns.pod("app", f"{repository}:v1" if by == "tag" else f"{repository}@{digest}")
    assert wait_running(ns, "app").digests == {"c0": digest}


def test_a_pod_that_may_not_pull_hangs(ns: Namespace, stream: tuple[str, str]) -> None:
    """Its account has no right to the stream."""
    repository, digest = stream
    ns.pod("app", f"{repository}@{digest}")
    wait_hanging(ns, "app")


def test_a_pod_that_came_before_its_accounts_secret_hangs(ns: Namespace, chosen: Choice, stream: tuple[str, str]) -> None:
    """It never gets one; a later pod of the same account runs."""
    if chosen.platform:
        pytest.skip("the platform's own controllers take as long as they take")
    repository, digest = stream
    with ns.cluster.namespace(secrets_after=(2, 0)) as other:
        ns.allow_pulls(everybody=True)
        other.pod("early", f"{repository}@{digest}", early=True)
        wait_hanging(other, "early")
        other.pod("late", f"{repository}@{digest}")
        wait_running(other, "late")


def test_a_registry_that_is_down_is_waited_for(ns: Namespace, stream: tuple[str, str]) -> None:
    """The kubelet tries again."""
    repository, digest = stream
    ns.allow_pulls()
    with ns.cluster.registry_state(ABSENT):
        ns.pod("app", f"{repository}@{digest}")
        wait_hanging(ns, "app")
    wait_running(ns, "app", seconds=60)
