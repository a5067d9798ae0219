"""What `kubectl apply -k config/overlays/…` installs: its pods run on a node, do their work, and go without a trace."""

import re
from pathlib import Path

import pytest

from e2e.testbed.cluster import Namespace
from e2e.testbed.node.product import NAMESPACE, Product, overlay_of
from e2e.testbed.programs.installed import Bed, image_of, mirrored
from e2e.testbed.programs.issuers import CertManager, Issuer, ServiceCA
from e2e.testbed.streams import tag
from e2e.testbed.support.waiting import wait_for
from e2e.testbed.workloads import state, wait_running

ISSUERS: dict[str, type[Issuer] | None] = {
    "dev": None,
    "openshift": ServiceCA,
    "cert-manager": CertManager,
    "single-node": ServiceCA,
}
COME_AND_GO = ("events", "leases", "endpoints", "endpointslices", "ipaddresses")
IMAGES = "/apis/image.openshift.io/v1"


def everything(bed: Bed) -> set[str]:
    """All objects of the cluster, but for images and for those that come and go by themselves."""
    found = set()
    for group in ["/api/v1", *(f"/apis/{g['preferredVersion']['groupVersion']}" for g in bed.client.get("/apis")["groups"])]:
        for resource in bed.client.get(group).get("resources") or []:
            if "list" not in resource["verbs"] or resource["name"] in COME_AND_GO or group == IMAGES:
                continue
            items = bed.client.get(f"{group}/{resource['name']}").get("items") or []
            found |= {f"{group} {resource['name']} {i['metadata'].get('namespace', '')}/{i['metadata']['name']}" for i in items}
    return found


@pytest.mark.parametrize("overlay", ISSUERS)
def test_an_overlay_runs_and_goes(overlay: str, bed: Bed, digest: str, user: Namespace, tmp_path: Path) -> None:
    """One command installs it, with nothing but the image's name changed, and nothing that it asks for is forbidden.

    Of two replicas one runs: two may not share a node. Removal in the guide's order leaves nothing.
    """
    log, issuer = bed.cluster.log, ISSUERS[overlay]
    assert log
    assert bed.node
    mark, before = log.mark(), everything(bed)
    folder = overlay_of(tmp_path / "overlay", overlay, bed.node, digest)
    with Product(bed.kubectl, bed.plane.kubeconfig, folder, tmp_path) as product:
        product.install(issuer(bed.client, tmp_path).issue if issuer else lambda: None)
        source, target = mirrored(user)
        wait_for("the webhook knows the tag", lambda: image_of(user.pod("seen", source, dry_run=True)) != source)
        user.pod("app", source)
        assert wait_running(user, "app").digests == {"c0": target.partition("@")[2]}
        running = [state(pod) for pod in product.pods() if pod["status"]["phase"] == "Running"]
        assert [(pod.ready, pod.restarts) for pod in running] == [(True, 0)] * 2
        for component in ("controller", "webhook"):
            assert "Traceback" not in product.log(component)
            assert "mirrorstream_" in product.metrics(component)
        requests = [request for request in log.since(mark) if request.user.startswith(f"system:serviceaccount:{NAMESPACE}:")]
        assert requests
        assert not [request for request in requests if request.forbidden]
        product.remove()
    assert {thing for thing in everything(bed) - before if user.name not in thing} == set()


def test_an_observer_runs_and_changes_nothing(bed: Bed, digest: str, user: Namespace, tmp_path: Path) -> None:
    """The overlay `observe`: it tells what it would record, the tag stays failed, and a pod keeps its image."""
    assert bed.node
    folder = overlay_of(tmp_path / "overlay", "observe", bed.node, digest)
    with Product(bed.kubectl, bed.plane.kubeconfig, folder, tmp_path) as product:
        product.install(ServiceCA(bed.client, tmp_path).issue)
        source = user.source("app:v1")
        user.allow_pulls()
        user.put("good", "app:v1")
        user.digest_mirrors()
        user.create("app", tag("v1", source))
        wait_for("the controller tells what it would do", lambda: "would record" in product.log("controller"))
        (status,) = user.get("app")["status"]["tags"]
        assert not status.get("items")
        assert status["conditions"]

        def observed() -> bool:
            assert image_of(user.pod("app", source, dry_run=True)) == source
            return (
                re.search(
                    r'^mirrorstream_webhook_images_total\{result="observed"\} [1-9]', product.metrics("webhook"), re.MULTILINE
                )
                is not None
            )

        wait_for("the webhook tells what it would do", observed)
