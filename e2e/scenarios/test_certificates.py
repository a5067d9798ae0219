"""What the webhook's account may do with its own registration: a policy bounds that, whatever RBAC says."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from mirrorstream.kube.client import JSON_PATCH, ApiError, Client, load_client
from trustme import CA

from e2e.testbed.installation import RBAC, with_token
from e2e.testbed.node.product import HOOK, HOOKS, NAMESPACE
from e2e.testbed.programs.installed import Bed
from e2e.testbed.support.waiting import wait_for

Object = dict[str, Any]
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
    bundle = base64.b64encode(CA().cert_pem.bytes()).decode()
    body = json.loads(json.dumps(patch).replace("@bundle", bundle))
    try:
        client.request("PATCH", HOOK, params={"dryRun": "All"}, body=body, content_type=JSON_PATCH)
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
    for method, path, body in (("POST", HOOKS, evil), ("DELETE", HOOK, None)):
        with pytest.raises(ApiError, match="may neither create nor delete"):
            powerful.request(method, path, params={"dryRun": "All"}, body=body)
    bed.client.request("DELETE", HOOK, params={"dryRun": "All"})
    assert refused(bed.client, CHANGES["failurePolicy"][0]) == ""
