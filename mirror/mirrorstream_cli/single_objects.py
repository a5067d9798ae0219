"""Single objects that the commands read, as the few fields that they need; null is unset. Each function raises ClientError."""

from collections.abc import Mapping
from urllib.parse import quote

import msgspec
from mirrorstream.kube.client import Client
from mirrorstream.text.projection import decoder

API = "/apis/image.openshift.io/v1"
USER_AGENT = "kubectl-mirrorstream"
CONFIGURATION = "/api/v1/namespaces/mirrorstream/configmaps/mirrorstream-config"
"""Where config/base puts the controller's configuration."""
INFRASTRUCTURE = "/apis/config.openshift.io/v1/infrastructures/cluster"


class _ConfigMap(msgspec.Struct):
    data: dict[str, str] = {}


class _InfrastructureStatus(msgspec.Struct, rename="camel"):
    control_plane_topology: str = ""


class _Infrastructure(msgspec.Struct):
    status: _InfrastructureStatus = msgspec.field(default_factory=_InfrastructureStatus)


class _Metadata(msgspec.Struct):
    labels: dict[str, str] = {}


class _Namespace(msgspec.Struct):
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)


class _Secret(msgspec.Struct):
    name: str = ""


class _ServiceAccount(msgspec.Struct, rename="camel"):
    image_pull_secrets: list[_Secret] = []


class _ReviewStatus(msgspec.Struct):
    allowed: bool = False


class _Review(msgspec.Struct):
    status: _ReviewStatus = msgspec.field(default_factory=_ReviewStatus)


# Made before any thread: see `Client.request`.
_decode_config_map = decoder(_ConfigMap)
_decode_infrastructure = decoder(_Infrastructure)
_decode_namespace = decoder(_Namespace)
_decode_service_account = decoder(_ServiceAccount)
_decode_review = decoder(_Review)


def configuration(client: Client) -> str:
    """The text of the cluster's own configuration file; empty where its ConfigMap has none."""
    return client.request("GET", CONFIGURATION, decode=_decode_config_map).data.get("config.yaml", "")


def is_hosted(client: Client) -> bool:
    """Whether the control plane runs elsewhere, as the cluster's Infrastructure says."""
    return client.request("GET", INFRASTRUCTURE, decode=_decode_infrastructure).status.control_plane_topology == "External"


def namespace_labels(client: Client, namespace: str) -> Mapping[str, str]:
    """The labels of a namespace."""
    path = f"/api/v1/namespaces/{quote(namespace, safe='')}"
    return client.request("GET", path, decode=_decode_namespace).metadata.labels


def pull_secrets(client: Client, namespace: str, account: str) -> list[str]:
    """The names of a service account's pull secrets."""
    path = f"/api/v1/namespaces/{quote(namespace, safe='')}/serviceaccounts/{quote(account, safe='')}"
    return [secret.name for secret in client.request("GET", path, decode=_decode_service_account).image_pull_secrets]


def may_create(client: Client, group: str, resource: str) -> bool:
    """Whether the user may create objects of a cluster-wide kind."""
    spec = {"resourceAttributes": {"group": group, "resource": resource, "verb": "create"}}
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": spec}
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    return client.request("POST", path, body=body, decode=_decode_review).status.allowed
