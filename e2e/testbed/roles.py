"""Giving rights on a cluster with RBAC, and becoming one who has them."""

from typing import Any

from mirrorstream.kube.client import Client

from e2e.testbed.installation import RBAC

Object = dict[str, Any]
PULL: Object = {"apiGroups": ["image.openshift.io"], "resources": ["imagestreams/layers"], "verbs": ["get"]}
VIEW = [
    {
        "apiGroups": ["image.openshift.io"],
        "resources": ["imagestreams", "imagestreamtags", "imagestreamimages"],
        "verbs": ["get", "list", "watch"],
    },
    {"apiGroups": [""], "resources": ["events", "configmaps", "pods"], "verbs": ["get", "list", "watch"]},
]
"""What OpenShift's role `view` gives of what matters here."""


def group(name: str) -> Object:
    """A group as a binding's subject."""
    return {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": name}


def grant(client: Client, namespace: str, name: str, rules: list[Object], subject: Object) -> None:
    """A Role and its RoleBinding, both called `name`."""
    path = f"{RBAC}/namespaces/{namespace}"
    client.request("POST", f"{path}/roles", body={"metadata": {"name": name}, "rules": rules})
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    client.request("POST", f"{path}/rolebindings", body={"metadata": {"name": name}, "roleRef": reference, "subjects": [subject]})


def account_with(client: Client, namespace: str, name: str, rules: list[Object]) -> str:
    """Make a service account that has these rights in its namespace, and no others; its token."""
    accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    client.request("POST", accounts, body={"metadata": {"name": name}})
    grant(client, namespace, name, rules, {"kind": "ServiceAccount", "name": name, "namespace": namespace})
    answer = client.request("POST", f"{accounts}/{name}/token", body={"spec": {"expirationSeconds": 3600}})
    return str(answer["status"]["token"])
