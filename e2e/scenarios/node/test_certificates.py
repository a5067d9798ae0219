"""How the API server's trust in the webhook's pods lives: Secrets that change, and certificates of the pods' own."""

import base64
import json
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from mirrorstream.kube.client import MERGE_PATCH
from mirrorstream_webhook.ca_bundle import entries

from e2e.testbed.cluster import Namespace
from e2e.testbed.node.product import DEPLOYMENTS, HOOK, PODS, Product, image_of_bed
from e2e.testbed.programs.installed import Bed, Creating, mirrored, rewrites
from e2e.testbed.programs.issuers import CertManager, Issuer, ServiceCA
from e2e.testbed.support.kustomize import write_overlay
from e2e.testbed.support.waiting import wait_for

Object = dict[str, Any]
SHORT = """
from datetime import timedelta
from mirrorstream_webhook import self_signed
self_signed.LIFETIME, self_signed.SETTLE, self_signed.CHECK_SECONDS = timedelta(seconds=12), timedelta(seconds=1), 0.5
from mirrorstream_cli.main import main
raise SystemExit(main())
"""
"""Certificates that live for seconds, in place of a clock that the API server would not share."""
WEBHOOK = {"kind": "Deployment", "name": "mirrorstream-webhook"}
ONE_NODE = {
    "target": {"kind": "Deployment", "labelSelector": "app.kubernetes.io/name=mirrorstream"},
    "patch": json.dumps([{"op": "remove", "path": "/spec/template/spec/affinity/podAntiAffinity"}]),
}
"""Lets two replicas share the node."""
SHORT_LIVED = {
    "target": WEBHOOK,
    "patch": json.dumps(
        [{"op": "add", "path": "/spec/template/spec/containers/0/command", "value": ["/opt/mirrorstream/bin/python", "-c", SHORT]}]
    ),
}


def overlay(folder: Path, bed: Bed, digest: str, *patches: Object, resource: str = "base", **more: Any) -> Path:
    """Write an overlay on top of one of ours, with the image that is in the bed's registry. The folder."""
    assert bed.node
    return write_overlay(folder, resources=[resource], images=image_of_bed(bed.node, digest), patches=[*patches], **more)


def installation(bed: Bed, overlay: Path, folder: Path) -> Product:
    """An overlay to install."""
    return Product(bed.kubectl, bed.plane.kubeconfig, overlay, folder)


def addresses(product: Product) -> list[str]:
    """Of the webhook's pods that run."""
    return [pod["status"]["podIP"] for pod in product.pods("webhook") if pod["status"].get("podIP")]


def serials(product: Product) -> set[int]:
    """Of the certificates that a new connection to each of the webhook's pods is shown."""
    pems = [ssl.get_server_certificate((address, 8443)) for address in addresses(product)]
    return {x509.load_pem_x509_certificate(pem.encode()).serial_number for pem in pems}


def get(address: str, path: str, scheme: str = "https") -> str:
    """What a pod serves on its metrics port, whatever the status, as a kubelet asks: it checks no certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with urllib.request.urlopen(f"{scheme}://{address}:8080{path}", context=context, timeout=5) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            return error.read().decode()


def authorities(bed: Bed) -> list[bytes]:
    """Those in the webhook configuration."""
    (webhook,) = bed.client.get(HOOK)["webhooks"]
    return entries(base64.b64decode(webhook["clientConfig"].get("caBundle", "")))


def sync(product: Product) -> None:
    """Have the kubelet bring the pods' mounts up to date now: it does with each change of a pod, else once in a minute or more."""
    for pod in product.pods("webhook"):
        body = {"metadata": {"annotations": {"mirrorstream.test/synced": str(time.time_ns())}}}
        product.client.request("PATCH", f"{PODS}/{pod['metadata']['name']}", body=body, content_type=MERGE_PATCH)


@pytest.mark.parametrize(
    ("name", "issuer"), [("openshift", ServiceCA), ("cert-manager", CertManager)], ids=["openshift", "cert-manager"]
)
def test_certificates_in_secrets_rotate_and_no_pod_goes_unrewritten(
    name: str, issuer: type[Issuer], bed: Bed, digest: str, user: Namespace, tmp_path: Path
) -> None:
    """A Secret's change reaches the mounts of both replicas, while pods are created through the API server."""
    folder = overlay(tmp_path / "overlay", bed, digest, ONE_NODE, resource=f"overlays/{name}")
    with installation(bed, folder, tmp_path) as product:
        issuing = issuer(bed.client, tmp_path)
        product.install(issuing.issue)
        wait_for("both replicas are ready", lambda: settled(bed), seconds=60)
        source, target = mirrored(user)
        wait_for("pods are rewritten", lambda: rewrites(user, source, target))
        creating = Creating(user, source)
        seen = serials(product)

        def served() -> bool:
            sync(product)
            return serials(product).isdisjoint(seen)

        for _ in range(3):
            issuing.issue()
            wait_for("serving a new certificate", served, seconds=30, step=0.5)
            seen.update(serials(product))
        creating.stop()
        assert set(creating.images) == {target}
        assert len(creating.images) > 100
        assert len(addresses(product)) == 2
        for address in addresses(product):
            assert 'mirrorstream_webhook_certificate_reloads_total{accepted="true"} 3.0' in get(address, "/metrics")


def test_self_signed_certificates_renew_and_no_pod_goes_unrewritten(bed: Bed, digest: str, user: Namespace, tmp_path: Path) -> None:
    """Through several lives of a certificate, with two replicas that share the bundle; expired authorities go."""
    folder = overlay(tmp_path / "overlay", bed, digest, ONE_NODE, SHORT_LIVED, components=["components/self-signed"])
    with installation(bed, folder, tmp_path) as product:
        product.install()
        wait_for("both replicas are ready", lambda: settled(bed), seconds=60)
        source, target = mirrored(user)
        wait_for("pods are rewritten", lambda: rewrites(user, source, target))
        seen: set[int] = set()
        creating = Creating(user, source)

        def renewed() -> bool:
            seen.update(serials(product))
            return len(seen) >= 8

        wait_for("both replicas have renewed their certificates again and again", renewed, seconds=90, step=0.2)
        creating.stop()
        assert set(creating.images) == {target}
        assert len(creating.images) > 500
        assert len(authorities(bed)) <= 6
        product.kubectl("-n", "mirrorstream", "scale", "deployment/mirrorstream-webhook", "--replicas=0")
        wait_for("both have ended", lambda: not product.pods("webhook", ending=True), seconds=60)
        assert authorities(bed) == []


def settled(bed: Bed) -> bool:
    """Whether every pod of the webhook's Deployment is of its present template, and ready."""
    deployment = bed.client.get(f"{DEPLOYMENTS}/mirrorstream-webhook")
    status, wanted = deployment["status"], deployment["spec"]["replicas"]
    counts = {status.get(name, 0) for name in ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")}
    return status.get("observedGeneration") == deployment["metadata"]["generation"] and counts == {wanted}


@pytest.mark.parametrize("component", ["self-signed", "service-ca"])
def test_a_rollout_lets_no_pod_through_unrewritten(component: str, bed: Bed, digest: str, user: Namespace, tmp_path: Path) -> None:
    """Both replicas are replaced, one after the other, while pods are created: a new one is asked only once it is trusted."""
    folder = overlay(tmp_path / "overlay", bed, digest, ONE_NODE, components=[f"components/{component}"])
    with installation(bed, folder, tmp_path) as product:
        product.install(ServiceCA(bed.client, tmp_path).issue if component == "service-ca" else lambda: None)
        wait_for("both replicas are there", lambda: settled(bed), seconds=60)
        source, target = mirrored(user)
        wait_for("pods are rewritten", lambda: rewrites(user, source, target))
        creating = Creating(user, source)
        product.kubectl("-n", "mirrorstream", "rollout", "restart", "deployment/mirrorstream-webhook")
        wait_for("it has begun", lambda: not settled(bed))
        wait_for("both replicas are replaced", lambda: settled(bed), seconds=120)
        creating.stop()
        assert set(creating.images) == {target}
        assert len(creating.images) > 300


@pytest.mark.parametrize("verb", ["get", "patch"])
def test_without_one_permission_on_the_registration_it_is_not_ready_and_says_so(
    verb: str, bed: Bed, digest: str, tmp_path: Path
) -> None:
    """Both are needed; what is missing is named where an administrator looks."""
    (left,) = {"get", "patch"} - {verb}
    role = {"target": {"kind": "ClusterRole", "name": "mirrorstream-webhook-registration"}}
    patch = {**role, "patch": json.dumps([{"op": "replace", "path": "/rules/0/verbs", "value": [left]}])}
    folder = overlay(tmp_path / "overlay", bed, digest, patch, resource="overlays/dev")
    says = f'cannot {verb} resource "mutatingwebhookconfigurations"'
    with installation(bed, folder, tmp_path) as product:
        product.apply()

        def told() -> bool:
            (address,) = addresses(product)
            return says in get(address, "/readyz", "http")

        wait_for("its pod has an address", lambda: addresses(product), seconds=60)
        wait_for("it says what it may not do", lambda: _serving(told), seconds=60)
        assert json.dumps(says)[1:-1] in product.log("webhook")
        (pod,) = product.pods("webhook")
        assert [c["status"] for c in pod["status"]["conditions"] if c["type"] == "Ready"] == ["False"]


def _serving(condition: Any) -> bool:
    """A condition of something that may not listen yet."""
    try:
        return bool(condition())
    except OSError:
        return False
