"""A node pulls what its registries.conf says: the ground on which everything else stands."""

import pytest

from e2e.scenarios.conftest import Start
from e2e.testbed.cluster import Namespace
from e2e.testbed.node.view import NodeView
from e2e.testbed.streams import tag
from e2e.testbed.workloads import deployment, pod, wait_all_running, wait_hanging, wait_running

KINDS = ("docker", "oci", "list", "index")


@pytest.mark.parametrize("kind", KINDS)
def test_a_digest_comes_through_a_digest_mirror(ns: Namespace, kind: str) -> None:
    """A pod that names a digest of the dead upstream runs, from the mirror."""
    digest = ns.put("good", "app:1", kind)
    ns.digest_mirrors()
    ns.pod("p", f"{ns.source('app')}@{digest}")
    running = wait_running(ns, "p")
    assert running.restarts == 0
    # A list's digest may be shown as that of this machine's image in it.
    if kind in ("docker", "oci"):
        assert running.digests == {"c0": digest}


def test_a_tag_does_not(ns: Namespace) -> None:
    """A pod that names a tag hangs: digest mirrors are never asked for it."""
    ns.put("good", "app:1")
    ns.digest_mirrors()
    ns.pod("p", ns.source("app:1"))
    wait_hanging(ns, "p")
    assert pod(ns, "p").digests == {}


def test_a_tag_comes_through_a_tag_mirror(ns: Namespace) -> None:
    """As an ImageTagMirrorSet says."""
    digest = ns.put("good", "app:1")
    ns.tag_mirrors()
    ns.pod("p", ns.source("app:1"))
    assert wait_running(ns, "p").digests == {"c0": digest}


def test_a_deployment_runs(ns: Namespace) -> None:
    """Its pods become ready, by a mirror that was there before them."""
    digest = ns.put("good", "app:1")
    ns.digest_mirrors()
    deployment(ns, "app", f"{ns.source('app')}@{digest}", replicas=2)
    running = wait_all_running(ns, 2, "app=app")
    assert [found.digests for found in running] == [{"c0": digest}] * 2


def test_a_hanging_pod_runs_once_its_image_is_changed(ns: Namespace) -> None:
    """Kubernetes lets the image of a pod change; the kubelet pulls the new one at once."""
    digest = ns.put("good", "app:1")
    ns.digest_mirrors()
    ns.pod("p", ns.source("app:1"))
    wait_hanging(ns, "p")
    patch = {"spec": {"containers": [{"name": "c0", "image": f"{ns.source('app')}@{digest}"}]}}
    path = f"/api/v1/namespaces/{ns.name}/pods/p"
    ns.client.request("PATCH", path, body=patch, content_type="application/strategic-merge-patch+json")
    assert wait_running(ns, "p", seconds=10).digests == {"c0": digest}


def test_the_internal_registry_serves_pods_by_their_accounts_own_secret(ns: Namespace, start: Start) -> None:
    """What was healed is pulled by the service's name, over TLS, and only with the right to the stream."""
    digest = ns.put("good", "app:1")
    ns.digest_mirrors()
    start()
    ns.create("app", tag("1", ns.source("app:1")))
    ns.wait_healed("app", "1", digest)
    target = f"{ns.get('app')['status']['dockerImageRepository']}@{digest}"
    ns.pod("refused", target)
    wait_hanging(ns, "refused")
    ns.allow_pulls()
    ns.pod("allowed", target)
    assert wait_running(ns, "allowed").digests == {"c0": digest}


def test_names_of_upstreams_lead_nowhere(ns: Namespace, node: NodeView) -> None:
    """A name that has an address refuses the connection, any other is not found; the test bed's own registry serves over TLS."""
    ns.pod("known", "quay.io/example/app:1")
    ns.pod("unknown", "registry.invalid/example/app:1")
    ns.pod("own", f"{node.registry}/pause:1")
    assert wait_hanging(ns, "known").waiting["c0"] in ("RegistryUnavailable", "ImagePullBackOff")
    assert wait_hanging(ns, "unknown").waiting["c0"] in ("ErrImagePull", "ImagePullBackOff")
    wait_running(ns, "own")
