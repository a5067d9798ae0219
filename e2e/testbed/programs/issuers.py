"""Who issues certificates on a cluster, as far as mirrorstream sees them: OpenShift's service CA, and cert-manager.

Each puts Secrets of its own layout where the installed objects ask for them, and its authority into the webhook configuration.
"""

import base64
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mirrorstream.kube.client import MERGE_PATCH, ApiError, Client

from e2e.testbed.node.product import HOOK, NAMESPACE
from e2e.testbed.support.certificates import Authority

Object = dict[str, Any]
SECRETS = f"/api/v1/namespaces/{NAMESPACE}/secrets"
LOOK_SECONDS = 0.1
SERVICE_CA = "service.beta.openshift.io"


class Issuer:
    """Issues certificates in the namespace; `wanted` has each Secret's name and its server's names."""

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
        hook = self.client.get(HOOK)
        assert self.injected(hook["metadata"].get("annotations") or {}), "nobody asks for the authority"
        for webhook in hook["webhooks"]:
            webhook["clientConfig"]["caBundle"] = _encoded(self.authority.certificate)
        self.client.request("PATCH", HOOK, body={"webhooks": hook["webhooks"]}, content_type=MERGE_PATCH)


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


class ServiceCAOperator(ServiceCA):
    """A context manager: a thread that issues what is missing for the objects applied inside it."""

    def __init__(self, client: Client, folder: Path) -> None:
        super().__init__(client, folder)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="service-ca", daemon=True)
        self._failure: Exception | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stopped.set()
        self._thread.join()

    def check(self) -> None:
        """Raise what went wrong in the thread, if anything did."""
        if self._failure:
            raise self._failure

    def _run(self) -> None:
        while not self._stopped.wait(LOOK_SECONDS):
            try:
                self._look()
            except ApiError as error:
                if error.status not in (403, 404, 409, 422):  # something was deleted or changed since, or its namespace ends
                    self._failure = error
            except Exception as error:  # noqa: BLE001  told by check()
                self._failure = error

    def _look(self) -> None:
        missing = self.wanted().keys() - {secret["metadata"]["name"] for secret in self.client.get(SECRETS)["items"]}
        hook = self.client.get(HOOK)
        asked = self.injected(hook["metadata"].get("annotations") or {})
        if asked and (missing or not hook["webhooks"][0]["clientConfig"].get("caBundle")):
            self.issue()


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
