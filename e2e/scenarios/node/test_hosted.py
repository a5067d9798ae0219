"""Pods on a node whose control plane is hosted elsewhere (HyperShift): all mirror rules are the platform's.

`pytest --backend node --hosted` runs every scenario on a node like this.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from mirrorstream.kube.client import load_client

from e2e.testbed.backends import Choice, platform_of
from e2e.testbed.cluster import Namespace
from e2e.testbed.hosted import hosted
from e2e.testbed.node.product import NAMESPACE, Product, overlay_of
from e2e.testbed.programs.installed import Bed, image_of, mirrored
from e2e.testbed.programs.issuers import ServiceCA
from e2e.testbed.support.waiting import wait_for
from e2e.testbed.workloads import wait_running


@pytest.fixture
def guest(chosen: Choice, bed: Bed) -> Iterator[Namespace]:
    """A user's namespace, while the control plane is a hosted one."""
    if chosen.hosted:
        pytest.skip("every scenario of this run is like this one")
    platform = load_client(str(platform_of(bed.plane)), in_cluster=False, user_agent="platform")
    with hosted(bed.client, platform), replace(bed.cluster, platform=platform).namespace() as namespace:
        yield namespace
        namespace.check_untouched()


def test_pods_run_with_and_without_an_internal_registry(bed: Bed, digest: str, guest: Namespace, tmp_path: Path) -> None:
    """What an administrator installs does its work, and none of its requests is refused."""
    assert bed.node
    assert bed.cluster.log
    mark = bed.cluster.log.mark()
    folder = overlay_of(tmp_path / "overlay", "single-node", bed.node, digest)
    with Product(bed.kubectl, bed.plane.kubeconfig, folder, tmp_path) as product:
        product.install(ServiceCA(bed.client, tmp_path).issue)
        source, target = mirrored(guest)
        wanted = target.partition("@")[2]
        wait_for("the webhook knows the tag", lambda: image_of(guest.pod("seen", source, dry_run=True)) == target)
        guest.pod("app", source)
        assert wait_running(guest, "app").digests == {"c0": wanted}
        with guest.cluster.registry_absent():
            by_digest = f"{guest.source('app')}@{wanted}"
            wait_for("pods get the digest", lambda: image_of(guest.pod("seen", source, dry_run=True)) == by_digest)
            guest.pod("without", source)
            assert wait_running(guest, "without").digests == {"c0": wanted}
        requests = [r for r in bed.cluster.log.since(mark) if r.user.startswith(f"system:serviceaccount:{NAMESPACE}:")]
        assert requests
        assert [request for request in requests if request.forbidden or request.status == 422] == []
