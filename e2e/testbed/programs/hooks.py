"""Having an API server ask a webhook on this machine, with the configuration that users install."""

import base64
import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml
from mirrorstream.kube.client import Client

from e2e.testbed.cluster import Namespace
from e2e.testbed.programs.program import Webhook
from e2e.testbed.support.waiting import wait_for

Object = dict[str, Any]
MANIFEST = Path(__file__).parents[3] / "config" / "base" / "webhook" / "mutating_webhook_configuration.yaml"
SIGNATURES = "/apis/config.openshift.io/v1"
CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"


@contextmanager
def registered(
    webhook: Webhook, client: Client, namespaces: list[str], change: Callable[[Object], Any] = lambda webhook: None
) -> Iterator[str]:
    """Register a webhook for some namespaces only; `change(webhook)` may change the configuration's entry. Its name."""
    document = copy.deepcopy(yaml.safe_load(MANIFEST.read_text(encoding="utf-8")))
    (entry,) = document["webhooks"]
    bundle = base64.b64encode(webhook.authority.certificate.read_bytes()).decode()
    entry["clientConfig"] = {"url": webhook.url, "caBundle": bundle}
    only_these = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": namespaces}
    entry["namespaceSelector"]["matchExpressions"].append(only_these)
    change(entry)
    with configuration(client, entry) as name:
        yield name


@contextmanager
def configuration(client: Client, entry: Object, name: str = "") -> Iterator[str]:
    """A MutatingWebhookConfiguration with one entry, for as long as the context lasts; configurations are asked by name."""
    name = name or f"mirrorstream-{uuid4().hex[:8]}"
    body = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": [entry],
    }
    client.request("POST", CONFIGURATIONS, body=body)
    try:
        yield name
    finally:
        client.request("DELETE", f"{CONFIGURATIONS}/{name}")


def wait_asked(webhook: Webhook, ns: Namespace) -> None:
    """Wait until the API server asks the webhook about the namespace's pods."""

    def asked() -> bool:
        ns.pod("asked", "example.com/asked", dry_run=True)
        return webhook.metric("mirrorstream_webhook_reviews_total") > 0

    wait_for("the API server asks the webhook", asked)


def signature_policy(kind: str, name: str, scope: str) -> Object:
    """An ImagePolicy or ClusterImagePolicy that wants a signature for everything in a scope."""
    key = base64.b64encode(b"-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----").decode()
    trust = {"policyType": "PublicKey", "publicKey": {"keyData": key}}
    spec = {"scopes": [scope], "policy": {"rootOfTrust": trust}}
    return {"apiVersion": "config.openshift.io/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
