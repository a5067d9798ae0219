"""OpenShift's own image API on the same control plane, from a folder with its programs: no package registry has them."""

import base64
import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import urllib3
import yaml
from mirrorstream.kube.client import ApiError, Client, ClientError

from e2e.testbed.controlplane.arguments import Ports
from e2e.testbed.registries.internal import NAMESPACE as REGISTRY_NAMESPACE
from e2e.testbed.simulator.settings import Settings
from e2e.testbed.support.certificates import Pair
from e2e.testbed.support.processes import Process

# Not authorization: its rolebindingrestrictions cannot be deleted by collection, which would keep every namespace Terminating.
GROUPS = ("image", "build", "apps", "project", "template", "route")
PROGRAMS = ("openshift-apiserver", "openshift-controller-manager", "dockerregistry")
NAMESPACES = ("openshift-infra", "openshift-controller-manager")
API_SERVER, CONTROLLER_MANAGER, REGISTRY = PROGRAMS
_CONFIG = "openshiftcontrolplane.config.openshift.io/v1"


def missing_programs(folder: Path) -> list[str]:
    """Which programs the folder lacks."""
    return [name for name in PROGRAMS if not (folder / name).is_file()]


def local_address(internal_registry: str) -> str:
    """Where the internal registry listens, whatever its name is on the cluster."""
    return f"localhost:{internal_registry.rpartition(':')[2]}"


def has_tls(internal_registry: str) -> bool:
    """By the name of its Service the internal registry is always asked over TLS."""
    return not internal_registry.startswith("localhost:")


def write_configuration(folder: Path, ports: Ports, settings: Settings, serving: Pair, authority: Path) -> dict[str, Path]:
    """Write the three programs' configuration files; by program."""
    kubeconfig = folder / "system-admin.kubeconfig"
    certificates = {"certFile": str(serving.certificate), "keyFile": str(serving.key)}

    def serving_info(port: int) -> dict[str, Any]:
        return {"bindAddress": f"127.0.0.1:{port}", "bindNetwork": "tcp4", "clientCA": str(authority), **certificates}

    allowed = settings.image_config.get("allowedRegistriesForImport") or []
    api_server = {
        "apiVersion": _CONFIG,
        "kind": "OpenShiftAPIServerConfig",
        "servingInfo": {**serving_info(ports.image_api), "maxRequestsInFlight": 3000, "requestTimeoutSeconds": 3600},
        "kubeClientConfig": {"kubeConfig": str(kubeconfig)},
        # These files must exist even for an etcd without TLS.
        "storageConfig": {"urls": [f"http://127.0.0.1:{ports.etcd}"], "ca": str(authority), **certificates},
        "imagePolicyConfig": {"internalRegistryHostname": settings.internal_registry, "allowedRegistriesForImport": allowed},
        "projectConfig": {"projectRequestMessage": ""},
        "routingConfig": {"subdomain": "apps.example.com"},
    }
    controller_manager = {
        "apiVersion": _CONFIG,
        "kind": "OpenShiftControllerManagerConfig",
        "servingInfo": serving_info(ports.openshift_controller_manager),
        "leaderElection": {"disable": True},
        "controllers": ["openshift.io/image-import", "openshift.io/serviceaccount-pull-secrets"],
        "imageImport": {"scheduledImageImportMinimumIntervalSeconds": int(max(1, settings.scheduled_interval))},
        "dockerPullSecret": {
            "internalRegistryHostname": settings.internal_registry,
            "registryURLs": [settings.internal_registry],
        },
    }
    certificate = {"certificate": str(serving.certificate), "key": str(serving.key)}
    tls = {"tls": certificate} if has_tls(settings.internal_registry) else {}
    registry = {
        "version": "0.1",
        "log": {"level": "info"},
        "http": {"addr": local_address(settings.internal_registry), **tls},
        "storage": {"filesystem": {"rootdirectory": str(folder / "registry")}, "delete": {"enabled": True}},
        "auth": {"openshift": {"realm": "openshift"}},
        "middleware": {kind: [{"name": "openshift"}] for kind in ("registry", "repository", "storage")},
        "openshift": {
            "version": "1.0",
            "server": {"addr": settings.internal_registry},
            "metrics": {"enabled": False},
            "pullthrough": {"enabled": True, "mirror": False},
        },
    }
    files = {name: folder / f"{name}.yaml" for name in PROGRAMS}
    for name, document in zip(PROGRAMS, (api_server, controller_manager, registry), strict=True):
        text = yaml.safe_dump(document) if name == REGISTRY else json.dumps(document)
        files[name].write_text(text, encoding="utf-8")
    return files


def commands(programs: Path, files: dict[str, Path], kubeconfig: Path, trusted: Path | None) -> dict[str, list[str | Path]]:
    """The command of each program. `trusted` is an authority of registries.

    On a cluster it is mounted at one fixed path that the programs read; here it takes the place of the system's authorities.
    """
    own = [f"--authentication-kubeconfig={kubeconfig}", f"--authorization-kubeconfig={kubeconfig}"]
    namespace = [f"--kubeconfig={kubeconfig}", "--namespace=openshift-controller-manager"]
    trust = [f"SSL_CERT_FILE={trusted}"] if trusted else []
    pod = ["POD_NAME=test", "POD_NAMESPACE=openshift-controller-manager"]
    api_server, controller_manager, registry = (programs / name for name in PROGRAMS)
    return {
        API_SERVER: ["env", *trust, api_server, "start", "--config", files[API_SERVER], *own, "--v=2"],
        CONTROLLER_MANAGER: ["env", *pod, controller_manager, "start", "--config", files[CONTROLLER_MANAGER], *namespace, "--v=2"],
        REGISTRY: ["env", *trust, f"KUBECONFIG={kubeconfig}", registry, files[REGISTRY]],
    }


def prepare(client: Client, internal_registry: str) -> None:
    """Create what the programs need on a cluster: namespaces, and the Service of the internal registry.

    Accounts' pull secrets stay empty as long as there is no such Service. It has no address: the registry is on this machine.
    """
    for name in NAMESPACES:
        client.request("POST", "/api/v1/namespaces", body={"metadata": {"name": name}})
    port = int(internal_registry.rpartition(":")[2])
    service = {"metadata": {"name": "image-registry"}, "spec": {"clusterIP": "None", "ports": [{"port": port}]}}
    client.request("POST", f"/api/v1/namespaces/{REGISTRY_NAMESPACE}/services", body=service)


def register(client: Client, groups: Iterable[str], port: int, namespace: str, authority: Path) -> None:
    """Make kube-apiserver ask a port of localhost for these groups of openshift.io."""
    service = {
        "metadata": {"name": "api"},
        "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]},
    }
    client.request("POST", f"/api/v1/namespaces/{namespace}/services", body=service)
    for group in groups:
        spec = {
            "group": f"{group}.openshift.io",
            "version": "v1",
            "groupPriorityMinimum": 9900,
            "versionPriority": 15,
            "caBundle": base64.b64encode(authority.read_bytes()).decode(),
            "service": {"namespace": namespace, "name": "api", "port": port},
        }
        body = {"metadata": {"name": f"v1.{group}.openshift.io"}, "spec": spec}
        client.request("POST", "/apis/apiregistration.k8s.io/v1/apiservices", body=body)


def served(client: Client, path: str) -> bool:
    """Whether a list at `path` is answered. Raises ApiError when we may not ask."""
    try:
        client.get(path, {"limit": "1"})
    except ApiError as error:
        if error.status in (401, 403):
            raise
        return False
    except ClientError:
        return False
    return True


def start_rest(run: Callable[[str], Process], api_server: Process, authority: Path, client: Client, settings: Settings) -> None:
    """Start, by `run`, what works on a running API: the import controller and the internal registry."""
    controller_manager, registry = run(CONTROLLER_MANAGER), run(REGISTRY)
    for group in GROUPS:
        path = f"/apis/{group}.openshift.io/v1"
        api_server.wait_until(f"{path} is served", partial(_discovered, client, path))
    controller_manager.wait_until("its controllers run", lambda: "Started Origin Controllers" in controller_manager.log())
    pool = urllib3.PoolManager(retries=False, timeout=3, ca_certs=str(authority))
    scheme = "https" if has_tls(settings.internal_registry) else "http"
    url = f"{scheme}://{local_address(settings.internal_registry)}/healthz"
    registry.wait_until("it serves", lambda: _answers(pool, url))


def _discovered(client: Client, path: str) -> bool:
    try:
        return bool(client.get(path))
    except ClientError:
        return False


def _answers(pool: urllib3.PoolManager, url: str) -> bool:
    try:
        return pool.request("GET", url).status == 200
    except urllib3.exceptions.HTTPError:
        return False
