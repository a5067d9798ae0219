"""How the API server's trust in the webhook lives: Secrets that change, and certificates of the webhook's own."""

import base64
import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from mirrorstream.kube.client import JSON_PATCH, ApiError, Client, load_client
from mirrorstream_webhook.bundle import entries

from e2e.certificates import self_signed
from e2e.kustomize import write_overlay
from e2e.scenarios.cluster import Namespace
from e2e.scenarios.deployed import HOOKS, NAMESPACE, Deployed, syncing
from e2e.scenarios.installation import RBAC, with_token
from e2e.scenarios.installed import Bed, Creating, mirrored, rewrites
from e2e.scenarios.issuers import CertManager, Issuer, ServiceCA
from e2e.scenarios.kubelet import Kubelet
from e2e.waiting import wait_for

Object = dict[str, Any]
REGISTRATION = f"{HOOKS}/mirrorstream"
SHORT = """
from datetime import timedelta
from mirrorstream_webhook import self_signed
self_signed.LIFETIME, self_signed.SETTLE, self_signed.CHECK_SECONDS = timedelta(seconds=12), timedelta(seconds=1), 0.5
"""
"""Certificates that live for seconds, in place of a clock that the API server would not share."""


def serials(installation: Deployed) -> set[int]:
    """Of the certificates that a new connection to each of the webhook's pods is shown."""
    pems = [ssl.get_server_certificate(("127.0.0.1", pod.port("admission"))) for pod in installation.of("webhook")]
    return {x509.load_pem_x509_certificate(pem.encode()).serial_number for pem in pems}


def authorities(bed: Bed) -> list[bytes]:
    """Those in the webhook configuration."""
    (webhook,) = bed.client.get(REGISTRATION)["webhooks"]
    return entries(base64.b64decode(webhook["clientConfig"].get("caBundle", "")))


@pytest.mark.parametrize(
    ("overlay", "issuer"), [("openshift", ServiceCA), ("cert-manager", CertManager)], ids=["openshift", "cert-manager"]
)
def test_certificates_in_secrets_rotate_and_no_pod_goes_unrewritten(
    overlay: str, issuer: type[Issuer], bed: Bed, user: Namespace, tmp_path: Path
) -> None:
    """A Secret's change reaches the mount by the swap of a link, while pods are created through the API server."""
    with bed.installation(overlay, tmp_path) as installation:
        installation.apply()
        issuing = issuer(bed.client, tmp_path)
        issuing.issue()
        installation.run()
        source, target = mirrored(user)
        wait_for("pods are rewritten", lambda: rewrites(user, source, target))
        with syncing(installation):
            creating = Creating(user, source)
            seen = serials(installation)
            for _ in range(3):
                issuing.issue()
                wait_for("a new certificate is served", lambda: serials(installation).isdisjoint(seen), seconds=15)
                seen.update(serials(installation))
            creating.stop()
        assert set(creating.images) == {target}
        assert len(creating.images) > 100
        for pod in installation.of("webhook"):
            assert 'mirrorstream_webhook_certificate_reloads_total{accepted="true"} 3.0' in pod.get("/metrics")[1]


def test_self_signed_certificates_renew_and_no_pod_goes_unrewritten(bed: Bed, user: Namespace, tmp_path: Path) -> None:
    """Through several lives of a certificate, with two replicas that share the bundle; expired authorities go."""
    replicas = [{"name": "mirrorstream-webhook", "count": 2}]
    overlay = write_overlay(tmp_path / "overlay", resources=["overlays/dev"], replicas=replicas)
    with bed.deployed(overlay, tmp_path, prelude=SHORT) as installation:
        source, target = mirrored(user)
        wait_for("pods are rewritten", lambda: rewrites(user, source, target))
        seen: set[int] = set()
        creating = Creating(user, source)

        def renewed() -> bool:
            seen.update(serials(installation))
            return len(seen) >= 8

        wait_for("both replicas have renewed their certificates again and again", renewed, seconds=90, step=0.2)
        creating.stop()
        assert set(creating.images) == {target}
        assert len(creating.images) > 500
        assert len(authorities(bed)) <= 6
        for pod in installation.of("webhook"):
            assert pod.process.stop() == 0
        assert authorities(bed) == []


def settled(bed: Bed) -> bool:
    """Whether every pod of the webhook's Deployment is of its present template, and ready."""
    deployment = bed.client.get(f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/mirrorstream-webhook")
    status, wanted = deployment["status"], deployment["spec"]["replicas"]
    counts = {status.get(name, 0) for name in ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")}
    return status.get("observedGeneration") == deployment["metadata"]["generation"] and counts == {wanted}


@pytest.mark.parametrize("component", ["self-signed", "service-ca"])
def test_a_rollout_lets_no_pod_through_unrewritten(component: str, bed: Bed, user: Namespace, tmp_path: Path) -> None:
    """Both replicas are replaced, one after the other, while pods are created: a new one is asked only once it is trusted."""
    overlay = write_overlay(tmp_path / "overlay", resources=["base"], components=[f"components/{component}"])
    with bed.installation(overlay, tmp_path) as installation:
        installation.apply()
        with Kubelet(bed.client, tmp_path / "pods", bed.plane.server) as kubelet:
            wait_for("both replicas are there", lambda: settled(bed), seconds=60)
            source, target = mirrored(user)
            wait_for("pods are rewritten", lambda: rewrites(user, source, target))
            creating = Creating(user, source)
            installation.kubectl("-n", NAMESPACE, "rollout", "restart", "deployment/mirrorstream-webhook")
            wait_for("it has begun", lambda: not settled(bed))
            wait_for("both replicas are replaced", lambda: settled(bed), seconds=90)
            creating.stop()
            kubelet.check()
        assert set(creating.images) == {target}
        assert len(creating.images) > 300


@pytest.mark.parametrize("verb", ["get", "patch"])
def test_without_one_permission_on_the_registration_it_is_not_ready_and_says_so(verb: str, bed: Bed, tmp_path: Path) -> None:
    """Both are needed; what is missing is named where an administrator looks."""
    (left,) = {"get", "patch"} - {verb}
    role = {"target": {"kind": "ClusterRole", "name": "mirrorstream-webhook-registration"}}
    patch = {**role, "patch": json.dumps([replace("/rules/0/verbs", [left])])}
    overlay = write_overlay(tmp_path / "overlay", resources=["overlays/dev"], patches=[patch])
    with bed.installation(overlay, tmp_path) as installation:
        installation.apply()
        installation.start()
        (webhook,) = installation.of("webhook")
        says = f'cannot {verb} resource "mutatingwebhookconfigurations"'
        webhook.process.wait_until("it says what it may not do", lambda: says in webhook.get("/readyz")[1])
        assert json.dumps(says)[1:-1] in webhook.process.log()


# The policy that comes with self-signed certificates: what the webhook's account may do even if RBAC lets it do everything.

CLIENT, WEBHOOK = "/webhooks/0/clientConfig", "/webhooks/0"
A_WEBHOOK, METADATA = "and this changes a webhook", "and this changes the metadata"


def replace(path: str, value: Any) -> Object:
    """An operation of a JSON patch."""
    return {"op": "replace", "path": path, "value": value}


CHANGES: dict[str, tuple[list[Object], str]] = {
    "caBundle": ([{"op": "add", "path": f"{CLIENT}/caBundle", "value": "@bundle"}], ""),
    "service": ([replace(f"{CLIENT}/service/namespace", "evil")], A_WEBHOOK),
    "url": (
        [
            {"op": "remove", "path": f"{CLIENT}/service"},
            {"op": "add", "path": f"{CLIENT}/url", "value": "https://evil.example.com/"},
        ],
        A_WEBHOOK,
    ),
    "rules": ([replace(f"{WEBHOOK}/rules/0/resources", ["secrets"])], A_WEBHOOK),
    "failurePolicy": ([replace(f"{WEBHOOK}/failurePolicy", "Fail")], A_WEBHOOK),
    "matchPolicy": ([replace(f"{WEBHOOK}/matchPolicy", "Exact")], A_WEBHOOK),
    "namespaceSelector": ([replace(f"{WEBHOOK}/namespaceSelector", {})], A_WEBHOOK),
    "objectSelector": ([replace(f"{WEBHOOK}/objectSelector", {})], A_WEBHOOK),
    "sideEffects": ([replace(f"{WEBHOOK}/sideEffects", "NoneOnDryRun")], A_WEBHOOK),
    "timeoutSeconds": ([replace(f"{WEBHOOK}/timeoutSeconds", 30)], A_WEBHOOK),
    "admissionReviewVersions": ([replace(f"{WEBHOOK}/admissionReviewVersions", ["v1", "v1beta1"])], A_WEBHOOK),
    "reinvocationPolicy": ([replace(f"{WEBHOOK}/reinvocationPolicy", "Never")], A_WEBHOOK),
    "matchConditions": ([{"op": "remove", "path": f"{WEBHOOK}/matchConditions"}], A_WEBHOOK),
    "name": ([replace(f"{WEBHOOK}/name", "other.example.com")], A_WEBHOOK),
    "one more": (
        [{"op": "copy", "from": WEBHOOK, "path": "/webhooks/1"}, replace("/webhooks/1/name", "other.example.com")],
        A_WEBHOOK,
    ),
    "none": ([replace("/webhooks", [])], A_WEBHOOK),
    "labels": ([{"op": "add", "path": "/metadata/labels/a", "value": "b"}], METADATA),
    "annotations": ([{"op": "add", "path": "/metadata/annotations/a", "value": "b"}], METADATA),
    "generateName": ([{"op": "add", "path": "/metadata/generateName", "value": "a-"}], METADATA),
    "managedFields": ([replace("/metadata/managedFields", [{}])], METADATA),
    "finalizers": ([{"op": "add", "path": "/metadata/finalizers", "value": ["example.com/stuck"]}], METADATA),
    "owners": (
        [
            {
                "op": "add",
                "path": "/metadata/ownerReferences",
                "value": [{"apiVersion": "v1", "kind": "Namespace", "name": "default", "uid": "1"}],
            }
        ],
        METADATA,
    ),
}
"""What an attempt changes: its JSON patch, and what the refusal says (empty: it is taken)."""


def refused(client: Client, patch: list[Object]) -> str:
    """Why a dry run of a patch is refused; empty if it is not."""
    bundle = base64.b64encode(self_signed()[0]).decode()
    body = json.loads(json.dumps(patch).replace("@bundle", bundle))
    try:
        client.request("PATCH", REGISTRATION, params={"dryRun": "All"}, body=body, content_type=JSON_PATCH)
    except ApiError as error:
        return error.message
    return ""


@pytest.fixture(scope="module")
def powerful(bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """The webhook's account as if RBAC let it do everything: what is refused then, the policy refuses."""
    folder = tmp_path_factory.mktemp("powerful")
    with bed.installation("dev", folder) as installation:
        installation.apply()
        account = {"kind": "ServiceAccount", "name": "mirrorstream-webhook", "namespace": NAMESPACE}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
        binding = {"metadata": {"name": "powerful"}, "roleRef": role, "subjects": [account]}
        bed.client.request("POST", f"{RBAC}/clusterrolebindings", body=binding)
        path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/mirrorstream-webhook/token"
        token = str(bed.client.request("POST", path, body={"spec": {"expirationSeconds": 3600}})["status"]["token"])
        client = load_client(str(with_token(folder / "kubeconfig", bed.plane.kubeconfig, token)), in_cluster=False)
        try:
            wait_for("the policy is in force", lambda: A_WEBHOOK in refused(client, CHANGES["failurePolicy"][0]))
            yield client
        finally:
            bed.client.request("DELETE", f"{RBAC}/clusterrolebindings/powerful")


@pytest.mark.parametrize("what", CHANGES)
def test_the_webhooks_account_changes_nothing_but_the_bundle(what: str, powerful: Client) -> None:
    """Whatever RBAC says."""
    patch, says = CHANGES[what]
    message = refused(powerful, patch)
    assert says in message if says else message == ""


def test_the_webhooks_account_makes_and_deletes_no_configuration(powerful: Client, bed: Bed) -> None:
    """Nor somebody else's; an administrator is not concerned."""
    evil = {"metadata": {"name": "evil"}, "webhooks": []}
    for method, path, body in (("POST", HOOKS, evil), ("DELETE", REGISTRATION, None)):
        with pytest.raises(ApiError, match="may neither create nor delete"):
            powerful.request(method, path, params={"dryRun": "All"}, body=body)
    bed.client.request("DELETE", REGISTRATION, params={"dryRun": "All"})
    assert refused(bed.client, CHANGES["failurePolicy"][0]) == ""
