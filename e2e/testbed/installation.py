"""mirrorstream's service account with its own RBAC on a real API server, from the manifests that users install."""

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from mirrorstream.kube.client import ApiError, Client

from e2e.testbed.access import is_allowed
from e2e.testbed.support.waiting import wait_for

Object = dict[str, Any]
CONFIG = Path(__file__).parents[2] / "config"
MANIFESTS = CONFIG / "base" / "rbac"
PENDING_PODS = CONFIG / "components" / "pending-pods"
"""What only a part of the webhook needs."""
CONTROLLER, WEBHOOK = "mirrorstream-controller", "mirrorstream-webhook"
"""Our service accounts; what belongs to one has its component's label."""
RBAC = "/apis/rbac.authorization.k8s.io/v1"
POLICIES = {
    "ValidatingAdmissionPolicy": "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings",
}
TOKEN_SECONDS = 4 * 3600


@dataclass(frozen=True)
class Permission:
    """One verb on one resource, for one name or for all."""

    group: str
    resource: str
    verb: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}{'.' + self.group if self.group else ''}"


def manifests(account: str, *folders: Path) -> list[Object]:
    """What config/base/rbac, and more folders, have for a service account."""
    found = (sorted(folder.glob("*.yaml")) for folder in (MANIFESTS, *folders))
    paths = [path for inside in found for path in inside if path.stem != "kustomization"]
    documents = [document for path in paths for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))]
    component = account.removeprefix("mirrorstream-")
    return [item for item in documents if item["metadata"]["labels"]["app.kubernetes.io/component"] == component]


def permissions(account: str, *folders: Path) -> list[Permission]:
    """Every permission that a service account's roles give."""
    roles = [item for item in manifests(account, *folders) if item["kind"] in ("ClusterRole", "Role")]
    return [permission for role in roles for rule in role["rules"] for permission in _of(rule)]


def _of(rule: Object) -> Iterator[Permission]:
    for group in rule["apiGroups"]:
        for resource in rule["resources"]:
            for verb in rule["verbs"]:
                for name in rule.get("resourceNames") or [""]:
                    yield Permission(group, resource, verb, name)


def something_missing(permission: Permission) -> AbstractContextManager[object]:
    """What needs `permission` does not come about. Without a watch, lists after its refusals bring everything, but late."""
    if permission.verb == "watch":
        return suppress(AssertionError)
    return pytest.raises(AssertionError, match="not within")


def without(rules: list[Object], removed: Permission) -> list[Object]:
    """The same rules, one permission each, but for one."""
    left = [permission for rule in rules for permission in _of(rule) if permission != removed]
    return [
        {"apiGroups": [p.group], "resources": [p.resource], "verbs": [p.verb], **({"resourceNames": [p.name]} if p.name else {})}
        for p in left
    ]


def delete(client: Client, path: str) -> None:
    """Delete an object, unless it is gone already."""
    try:
        client.request("DELETE", path)
    except ApiError as error:
        if error.status != 404:
            raise


def share(client: Client, item: Object) -> None:
    """Make an admission policy or its binding, which are for all namespaces, unless another test has."""
    try:
        client.request("POST", POLICIES[item["kind"]], body=item)
    except ApiError as error:
        if error.status != 409:
            raise


def share_policies(client: Client) -> None:
    """Make what bounds the account that changes pods."""
    for item in manifests(WEBHOOK, PENDING_PODS):
        if item["kind"] in POLICIES:
            share(client, item)


@dataclass
class Installation:
    """An account's part of an installation into a namespace that exists; what is cluster-wide gets the namespace as a suffix.

    Admission policies do not: they are for accounts of this name in every namespace, and stay.
    """

    client: Client
    namespace: str
    without: Permission | None = None
    account: str = CONTROLLER
    folders: tuple[Path, ...] = ()
    _made: list[str] = field(default_factory=list)

    @property
    def user(self) -> str:
        """The service account, as API servers name it."""
        return f"system:serviceaccount:{self.namespace}:{self.account}"

    def __enter__(self) -> "Installation":
        for manifest in manifests(self.account, *self.folders):
            self._create(copy.deepcopy(manifest))
        return self

    def __exit__(self, *_: object) -> None:
        for path in reversed(self._made):
            self.client.request("DELETE", path)

    def _create(self, item: Object) -> None:
        kind, name = item["kind"], item["metadata"]["name"]
        if kind in POLICIES:
            share(self.client, item)
            return
        if kind.startswith("Cluster"):
            name = item["metadata"]["name"] = f"{name}-{self.namespace}"
        else:
            item["metadata"]["namespace"] = self.namespace
        if "rules" in item and self.without:
            item["rules"] = without(item["rules"], self.without)
        for subject in item.get("subjects", []):
            subject["namespace"] = self.namespace
        if item.get("roleRef", {}).get("kind") == "ClusterRole":
            item["roleRef"]["name"] = f"{item['roleRef']['name']}-{self.namespace}"
        within = "" if kind.startswith("Cluster") else f"/namespaces/{self.namespace}"
        root = "/api/v1" if kind == "ServiceAccount" else RBAC
        path = f"{root}{within}/{kind.lower()}s"
        self.client.request("POST", path, body=item)
        self._made.append(f"{path}/{name}")

    def token(self, bound_to: Object | None = None) -> str:
        """A token of the service account; it dies with the Secret or Pod that it is bound to."""
        spec: Object = {"expirationSeconds": TOKEN_SECONDS}
        if bound_to:
            metadata = bound_to["metadata"]
            reference = {"kind": bound_to["kind"], "apiVersion": "v1", "name": metadata["name"], "uid": metadata["uid"]}
            spec["boundObjectRef"] = reference
        path = f"/api/v1/namespaces/{self.namespace}/serviceaccounts/{self.account}/token"
        answer = self.client.request("POST", path, body={"spec": spec})
        return str(answer["status"]["token"])

    def kubeconfig(self, path: Path, like: Path, token: str = "") -> Path:
        """Write a kubeconfig for the service account at the server of another kubeconfig; beside it, a file with its token."""
        return with_token(path, like, token or self.token())

    def wait_effective(self) -> None:
        """Wait until the API server's authorizer has seen all of the roles."""
        given = [permission for permission in permissions(self.account, *self.folders) if permission != self.without]
        wait_for("the roles are in force", lambda: all(self._allowed(permission) for permission in given))

    def _allowed(self, permission: Permission) -> bool:
        """What a SubjectAccessReview answers."""
        resource, _, subresource = permission.resource.partition("/")
        attributes = {
            "group": permission.group,
            "resource": resource,
            "subresource": subresource,
            "verb": permission.verb,
            "name": permission.name,
            "namespace": self.namespace,
        }
        return is_allowed(self.client, {"user": self.user, "resourceAttributes": attributes})


def with_token(path: Path, like: Path, token: str) -> Path:
    """Write a kubeconfig with a token (kept in `PATH.token`) for the server of another kubeconfig."""
    token_file = path.with_suffix(".token")
    token_file.touch(mode=0o600)
    token_file.write_text(token, encoding="utf-8")
    document = yaml.safe_load(like.read_text(encoding="utf-8"))
    document["users"][0]["user"] = {"tokenFile": str(token_file)}
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path
