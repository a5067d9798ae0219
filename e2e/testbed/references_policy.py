"""The MutatingAdmissionPolicy of the design note, which tries what CEL in kube-apiserver can decide about images of pods."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import yaml
from mirrorstream.kube.client import ApiError, Client

from e2e.testbed.controlplane.openshift import served
from e2e.testbed.documents import PROJECT, blocks
from e2e.testbed.support.waiting import wait_for

Object = dict[str, Any]
NOTE = PROJECT / "docs" / "design" / "mutating-admission-policy.md"
"""Its first block of YAML has the objects that are tried."""
KINDS = {
    "CustomResourceDefinition": "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "MutatingAdmissionPolicy": "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicies",
    "MutatingAdmissionPolicyBinding": "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicybindings",
}
GROUP = "/apis/mirrorstream.example.com/v1"


def documents() -> dict[str, Object]:
    """The note's objects by kind."""
    block = next(block for block in blocks(NOTE) if block.language == "yaml")
    return {document["kind"]: document for document in yaml.safe_load_all(block.text)}


def define(client: Client) -> None:
    """Have the custom resource of the parameters served, unless it is."""
    definition = documents()["CustomResourceDefinition"]
    try:
        client.request("POST", KINDS["CustomResourceDefinition"], body=definition)
    except ApiError as error:
        if error.status != 409:
            raise
    wait_for("the custom resource is served", lambda: served(client, f"{GROUP}/referencemaps"))


def apply(
    client: Client, name: str, namespaces: list[str], change: Callable[[Object, Object], Any] = lambda policy, binding: None
) -> None:
    """Have the policy decide about the pods of some namespaces; `change(policy, binding)` may change their specs. Both are new."""
    found = copy.deepcopy(documents())
    policy, binding = found["MutatingAdmissionPolicy"], found["MutatingAdmissionPolicyBinding"]
    policy["metadata"]["name"] = binding["metadata"]["name"] = binding["spec"]["policyName"] = name
    only_these = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": namespaces}
    binding["spec"]["matchResources"] = {"namespaceSelector": {"matchExpressions": [only_these]}}
    change(policy["spec"], binding["spec"])
    for document in (policy, binding):
        client.request("POST", KINDS[document["kind"]], body=document)


def remove(client: Client, name: str) -> None:
    """Take the policy back."""
    for kind in ("MutatingAdmissionPolicyBinding", "MutatingAdmissionPolicy"):
        client.request("DELETE", f"{KINDS[kind]}/{name}")


def parameters(name: str, registry: str, references: Mapping[str, str]) -> Object:
    """An object of parameters: what pods name, and the stream and digest that they get, as `STREAM@DIGEST`."""
    kind = documents()["CustomResourceDefinition"]["spec"]["names"]["kind"]
    body = {"apiVersion": "mirrorstream.example.com/v1", "kind": kind, "metadata": {"name": name}}
    return {**body, "registry": registry, "references": dict(references)}


def path(namespace: str, name: str = "") -> str:
    """Where the parameters of a namespace are, or one object of them."""
    return f"{GROUP}/namespaces/{namespace}/referencemaps" + (f"/{name}" if name else "")
