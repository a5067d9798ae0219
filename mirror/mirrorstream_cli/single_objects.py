"""Single objects that the commands read, as the few fields that they need; null is unset. Each function raises ClientError."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

import msgspec
from mirrorstream.kube.client import ApiError, Client
from mirrorstream.text.projection import decoder

API = "/apis/image.openshift.io/v1"
USER_AGENT = "kubectl-mirrorstream"
DEPLOYMENT = "mirrorstream-controller"
CONTROLLER = f"/apis/apps/v1/namespaces/mirrorstream/deployments/{DEPLOYMENT}"
CONFIGURATIONS = "/api/v1/namespaces/mirrorstream/configmaps"
VOLUME, CONFIGURATION = "configuration", "mirrorstream-config"
"""The volume with the configuration, and the ConfigMap that config/base puts there; OLM's users put another one."""
INFRASTRUCTURE = "/apis/config.openshift.io/v1/infrastructures/cluster"


class _ConfigMap(msgspec.Struct):
    data: dict[str, str] = {}


class _ConfigMapVolume(msgspec.Struct):
    name: str = ""


class _Volume(msgspec.Struct, rename="camel"):
    name: str = ""
    config_map: _ConfigMapVolume = msgspec.field(default_factory=_ConfigMapVolume)


class _PodSpec(msgspec.Struct):
    volumes: list[_Volume] = []


class _Template(msgspec.Struct):
    spec: _PodSpec = msgspec.field(default_factory=_PodSpec)


class _DeploymentSpec(msgspec.Struct):
    template: _Template = msgspec.field(default_factory=_Template)


class _Deployment(msgspec.Struct):
    spec: _DeploymentSpec = msgspec.field(default_factory=_DeploymentSpec)


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
_decode_deployment = decoder(_Deployment)
_decode_infrastructure = decoder(_Infrastructure)
_decode_namespace = decoder(_Namespace)
_decode_service_account = decoder(_ServiceAccount)
_decode_review = decoder(_Review)


@dataclass(frozen=True, slots=True)
class Configuration:
    """The cluster's own configuration file: where it stands, its text, and what the asking user should know of that."""

    where: str
    text: str
    notes: list[str]


def configuration(client: Client) -> Configuration | None:
    """The configuration file that the controller reads, empty where its ConfigMap has none; None if that cannot be read."""
    name, notes = CONFIGURATION, []
    try:
        volumes = client.request("GET", CONTROLLER, decode=_decode_deployment).spec.template.spec.volumes
        name = next((volume.config_map.name for volume in volumes if volume.name == VOLUME), "") or name
    except ApiError as error:
        if error.status not in (403, 404):
            raise
        if error.status == 403:
            notes.append(f"you may not get Deployment {DEPLOYMENT}: the configuration is taken to be in ConfigMap {name}")
    try:
        data = client.request("GET", f"{CONFIGURATIONS}/{name}", decode=_decode_config_map).data
    except ApiError as error:
        if error.status not in (403, 404):
            raise
        return None
    return Configuration(f"ConfigMap {name}", data.get("config.yaml", ""), notes)


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
