"""Who issues certificates on a cluster, as far as mirrorstream sees them: OpenShift's service CA, and cert-manager.

Each puts Secrets of its own layout where the installed objects ask for them, and its authority into the webhook configuration.
"""

import base64
from pathlib import Path
from typing import Any

from mirrorstream.kube.client import MERGE_PATCH, Client

from e2e.certificates import Authority
from e2e.scenarios.deployed import HOOKS, NAMESPACE

Object = dict[str, Any]
SECRETS = f"/api/v1/namespaces/{NAMESPACE}/secrets"
SERVICE_CA = "service.beta.openshift.io"


class Issuer:
    """Issues for whoever asks in the namespace; `wanted` says who does: a Secret's name and the names of its server."""

    def __init__(self, client: Client, folder: Path) -> None:
        self.client = client
        self.authority = Authority(folder / "issuer", "issuer")

    def wanted(self) -> dict[str, tuple[str, ...]]:
        """The Secrets that are asked for."""
        raise NotImplementedError

    def injected(self, annotations: dict[str, str]) -> bool:
        """Whether a webhook configuration asks for the authority."""
        raise NotImplementedError

    def secret(self, certificate: Path, key: Path) -> Object:
        """A Secret's data."""
        return {"tls.crt": _encoded(certificate), "tls.key": _encoded(key)}

    def issue(self) -> None:
        """Issue everything (again), and inject the authority."""
        for name, hosts in self.wanted().items():
            pair = self.authority.issue(name, hosts=hosts)
            body = {"metadata": {"name": name}, "type": "kubernetes.io/tls", "data": self.secret(pair.certificate, pair.key)}
            existing = {item["metadata"]["name"] for item in self.client.get(SECRETS)["items"]}
            method, path = ("PUT", f"{SECRETS}/{name}") if name in existing else ("POST", SECRETS)
            self.client.request(method, path, body=body)
        hook = self.client.get(f"{HOOKS}/mirrorstream")
        assert self.injected(hook["metadata"].get("annotations") or {}), "nobody asks for the authority"
        for webhook in hook["webhooks"]:
            webhook["clientConfig"]["caBundle"] = _encoded(self.authority.certificate)
        self.client.request("PATCH", f"{HOOKS}/mirrorstream", body={"webhooks": hook["webhooks"]}, content_type=MERGE_PATCH)


class ServiceCA(Issuer):
    """OpenShift's: a Service's annotation names the Secret."""

    def wanted(self) -> dict[str, tuple[str, ...]]:
        """By the Services' annotations."""
        services = self.client.get(f"/api/v1/namespaces/{NAMESPACE}/services")["items"]
        asked = {
            s["metadata"]["name"]: s["metadata"].get("annotations", {}).get(f"{SERVICE_CA}/serving-cert-secret-name")
            for s in services
        }
        return {secret: _names(service) for service, secret in asked.items() if secret}

    def injected(self, annotations: dict[str, str]) -> bool:
        """By its annotation."""
        return annotations.get(f"{SERVICE_CA}/inject-cabundle") == "true"


class CertManager(Issuer):
    """cert-manager: Certificates name the Secret and the names; the Secret has the authority, too."""

    def wanted(self) -> dict[str, tuple[str, ...]]:
        """By the Certificates."""
        path = f"/apis/cert-manager.io/v1/namespaces/{NAMESPACE}/certificates"
        specs = [item["spec"] for item in self.client.get(path)["items"]]
        return {spec["secretName"]: tuple(spec["dnsNames"]) for spec in specs if not spec.get("isCA")}

    def injected(self, annotations: dict[str, str]) -> bool:
        """By its annotation, which names the Certificate."""
        return annotations.get("cert-manager.io/inject-ca-from") == f"{NAMESPACE}/mirrorstream-webhook"

    def secret(self, certificate: Path, key: Path) -> Object:
        """With the authority."""
        return {**super().secret(certificate, key), "ca.crt": _encoded(self.authority.certificate)}


def _names(service: str) -> tuple[str, ...]:
    host = f"{service}.{NAMESPACE}.svc"
    return (host, f"{host}.cluster.local")


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
