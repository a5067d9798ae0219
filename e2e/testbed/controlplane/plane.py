"""One control plane: its certificates, its processes in the order in which they need each other, and its users."""

import contextlib
import ipaddress
import json
import shutil
import signal
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import urllib3
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from mirrorstream.kube.client import ApiError, Client, load_client

from e2e.testbed.controllers.pull_secrets import PullSecrets
from e2e.testbed.controlplane import openshift
from e2e.testbed.controlplane.arguments import (
    SERVICES,
    Ports,
    audit_policy,
    etcd,
    kube_apiserver,
    kube_controller_manager,
    simulator,
)
from e2e.testbed.controlplane.definitions import INFRASTRUCTURE, definitions
from e2e.testbed.infrastructure import INFRASTRUCTURES, infrastructure
from e2e.testbed.registries.internal import SERVICE_NAME
from e2e.testbed.simulator.registry_host import image_config
from e2e.testbed.simulator.settings import Settings
from e2e.testbed.support.certificates import Authority
from e2e.testbed.support.kubeconfig import write_kubeconfig
from e2e.testbed.support.processes import Process, ProcessError
from e2e.testbed.support.waiting import wait_for

PROJECT = Path(__file__).parents[3]
MASTERS = "system:masters"
AGGREGATOR = "system:aggregator"
SERVICE_NAMESPACE = "openshift-apiserver"
NAMESPACES = ("openshift", "openshift-config", "openshift-config-managed", "openshift-image-registry", SERVICE_NAMESPACE)
REVISIONS = 500
"""More than kube-apiserver and kube-controller-manager write when they start."""
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


class ControlPlane:
    """A context manager that starts everything and stops it again.

    `folder` takes certificates, kubeconfigs and one log for each process. `without` names custom resources that this cluster does
    not serve, or `image.openshift.io`. With `openshift_programs` that folder's OpenShift components serve image.openshift.io,
    otherwise the simulator does; `trusted` is what they trust registries by besides the system's authorities: on a cluster an
    operator copies it from where the Image config says. `services` is the range of Services' addresses, `feature_gates` are
    kube-apiserver's.
    """

    def __init__(
        self,
        folder: Path,
        components: Path,
        settings: Settings,
        *,
        without: Sequence[str] = (),
        openshift_programs: Path | None = None,
        trusted: Path | None = None,
        services: str = SERVICES,
        feature_gates: Mapping[str, bool] | None = None,
    ) -> None:
        self.folder, self._components, self._settings, self._without = folder, components, settings, without
        self.openshift_programs = openshift_programs
        self._trusted = trusted
        self._services = services
        self._feature_gates = feature_gates
        self._data, self._backup = folder / "etcd", folder / "etcd-backup"
        self._pool = urllib3.PoolManager(retries=False, timeout=10)
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        self.ports = Ports()
        self.authority = Authority(folder / "pki", "cluster")
        front = Authority(folder / "pki", "front-proxy")
        self._front_authority = front.certificate
        self._front_client = front.issue(AGGREGATOR)
        kubernetes = ("kubernetes.default.svc", str(ipaddress.ip_network(services)[1]))
        names = ("localhost", *kubernetes, f"api.{SERVICE_NAMESPACE}.svc", SERVICE_NAME)
        self._serving = self.authority.issue("server", hosts=names)
        self._service_account_key = self._signing_key()
        self.server = f"https://localhost:{self.ports.kube_apiserver}"
        self.kubeconfig = self.user("system:admin", MASTERS)
        self.processes: dict[str, Process] = {}
        self.pull_secrets: PullSecrets | None = None
        self._commands: dict[str, list[str | Path]] = {}
        self._context = ssl.create_default_context(cafile=str(self.authority.certificate))

    # Users.

    def user(self, name: str, group: str) -> Path:
        """A kubeconfig for a user with a client certificate."""
        pair = self.authority.issue(name, group=group)
        path = self.folder / f"{pair.certificate.stem}.kubeconfig"
        return write_kubeconfig(path, self.server, authority=self.authority.certificate, certificate=(pair.certificate, pair.key))

    def simulator_kubeconfig(self) -> Path | None:
        """A kubeconfig that reaches the simulator itself, for what can be asked of it alone; None if there is none."""
        if self.openshift_programs or "image.openshift.io" in self._without:
            return None
        pair = self._front_client
        return write_kubeconfig(
            self.folder / "simulator.kubeconfig",
            f"https://localhost:{self.ports.image_api}",
            authority=self.authority.certificate,
            certificate=(pair.certificate, pair.key),
        )

    # Life.

    def start(self) -> Self:
        """Start everything and wait until it serves. Raises ProcessError with the end of the log of what failed."""
        started = time.monotonic()
        with contextlib.ExitStack() as stack:
            stack.callback(self.stop)
            self._start_core()
            client = load_client(str(self.kubeconfig), in_cluster=False, user_agent="controlplane")
            self._configure(client)
            if "image.openshift.io" not in self._without:
                self._start_images(client)
            if not self.openshift_programs:
                self.pull_secrets = PullSecrets(load_client(str(self.kubeconfig), in_cluster=False, user_agent="pull-secrets"))
                self.pull_secrets.start()
            stack.pop_all()
        print(
            f"control plane: up in {time.monotonic() - started:.1f} s; logs in {self.folder / 'logs'}", file=sys.stderr, flush=True
        )
        return self

    def stop(self) -> None:
        """End all processes, the last started first, and remove the data; certificates and logs stay.

        Nothing has to be saved, and an orderly end of kube-apiserver would wait for every watch.
        """
        if self.pull_secrets:
            self.pull_secrets.stop()
        for name in reversed(list(self.processes)):
            self.processes.pop(name).kill()
        for data in (self._data, self._backup):
            shutil.rmtree(data, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def run(self, name: str, command: Sequence[str | Path] = ()) -> Process:
        """Start (again) one of the processes; `command` adds one."""
        if command:
            self._commands[name] = list(command)
        log = self.folder / "logs" / f"{name}.log"
        process = self.processes[name] = Process(name, self._commands[name], log, folder=self.folder)
        return process

    def wait_api(self) -> None:
        """Wait until kube-apiserver is ready."""
        self.processes["kube-apiserver"].wait_until("it is ready", lambda: self._ready(self.ports.kube_apiserver, "readyz"))

    def wait_image_api(self) -> None:
        """Wait until image.openshift.io/v1 is served through kube-apiserver."""
        client = load_client(str(self.kubeconfig), in_cluster=False, user_agent="controlplane")
        path = "/apis/image.openshift.io/v1/imagestreams"
        process = self.processes[openshift.API_SERVER if self.openshift_programs else "simulator"]
        process.wait_until(f"{path} is served", lambda: openshift.served(client, path))

    def compact(self) -> None:
        """Throw away etcd's history, and with a restart kube-apiserver's: watches can only resume from now on."""
        revision = self._etcd("range", {"key": "AA=="})["header"]["revision"]
        self._etcd("compaction", {"revision": revision, "physical": True})
        self.restart("kube-apiserver")

    def _etcd(self, operation: str, body: dict[str, Any]) -> Any:
        """Ask etcd's key-value store for something. Raises ProcessError if it does not do it."""
        answer = self._pool.request("POST", f"http://127.0.0.1:{self.ports.etcd}/v3/kv/{operation}", json=body)
        if answer.status != 200:
            raise ProcessError(f"etcd: {operation}: {answer.status} {answer.data!r}")
        return answer.json()

    def back_up(self) -> None:
        """Copy etcd's data as a crash would leave them now. Much is written afterwards, as between a backup and its use."""
        process = self.processes["etcd"]
        process.send(signal.SIGSTOP)
        try:
            shutil.copytree(self._data, self._backup)
        finally:
            process.send(signal.SIGCONT)
        for _ in range(REVISIONS):
            self._etcd("put", {"key": "dGVzdGJlZA==", "value": ""})

    def restore(self) -> None:
        """Restore the backup with its revision, while all programs that cache etcd's data are stopped."""
        names = ("etcd", "kube-apiserver", "kube-controller-manager")
        for name in reversed(names):
            self.processes[name].kill()
        shutil.rmtree(self._data)
        self._backup.rename(self._data)
        for name in names:
            self.run(name)
        self.wait_api()
        self.wait_image_api()

    def restart(self, name: str) -> None:
        """Kill and start kube-apiserver, or another process, and wait until everything is served again."""
        self.processes[name].kill()
        self.run(name)
        self.wait_api()
        self.wait_image_api()

    def _start_core(self) -> None:
        ports, programs = self.ports, self._components
        policy = self.folder / "audit-policy.yaml"
        policy.write_text(yaml.safe_dump(audit_policy()), encoding="utf-8")
        self._commands["etcd"] = [programs / "etcd", *etcd(ports, self._data)]
        self._commands["kube-apiserver"] = [
            programs / "kube-apiserver",
            *kube_apiserver(
                ports,
                serving=self._serving,
                client_authority=self.authority.certificate,
                front_authority=self._front_authority,
                front_client=self._front_client,
                service_account_key=self._service_account_key,
                audit=(policy, self.audit_log),
                services=self._services,
                feature_gates=self._feature_gates,
            ),
        ]
        self._commands["kube-controller-manager"] = [
            programs / "kube-controller-manager",
            *kube_controller_manager(ports, self.kubeconfig, self._service_account_key, self.authority.certificate, self.folder),
        ]
        self.run("etcd")
        self.run("kube-apiserver")
        self.wait_api()
        self.run("kube-controller-manager")

    def _configure(self, client: Client) -> None:
        """Custom resources, the Image config, the Infrastructure and the namespaces that a cluster has."""
        for name in NAMESPACES:
            client.request("POST", "/api/v1/namespaces", body={"metadata": {"name": name}})
        kinds = [path for path in self._components.glob("*.yaml") if path.stem not in self._without]
        define(client, [*kinds, *(path for path in definitions() if path.name == INFRASTRUCTURE)])
        config = image_config(self._settings.image_config, self._settings.internal_registry)
        self._create(client, "/apis/config.openshift.io/v1/images", config)
        self._create(client, INFRASTRUCTURES, infrastructure())

    def _create(self, client: Client, path: str, body: dict[str, Any]) -> None:
        """Create an object with its status, as soon as its kind is served."""
        # Established, and yet 404 until the handler has seen it too.
        self.processes["kube-apiserver"].wait_until(f"{path} is served", lambda: openshift.served(client, path))
        made = client.request("POST", path, body=body)
        # A subresource: what a POST says of the status is dropped.
        client.request("PUT", f"{path}/{made['metadata']['name']}/status", body={**made, "status": body.get("status", {})})

    def _start_images(self, client: Client) -> None:
        settings = self.folder / "settings.json"
        settings.write_text(json.dumps(self._settings.document()), encoding="utf-8")
        if self.openshift_programs:
            files = openshift.write_configuration(
                self.folder, self.ports, self._settings, self._serving, self.authority.certificate
            )
            self._commands |= openshift.commands(self.openshift_programs, files, self.kubeconfig, self._trusted)
            openshift.prepare(client, self._settings.internal_registry)
        else:
            arguments = simulator(self.ports, settings, self.kubeconfig, self._serving, self._front_authority, AGGREGATOR)
            self._commands["simulator"] = ["env", f"PYTHONPATH={PROJECT}", sys.executable, *arguments]
        first = "openshift-apiserver" if self.openshift_programs else "simulator"
        self.run(first)
        groups = openshift.GROUPS if self.openshift_programs else ("image",)
        openshift.register(client, groups, self.ports.image_api, SERVICE_NAMESPACE, self.authority.certificate)
        health = "healthz" if self.openshift_programs else "readyz"
        self.processes[first].wait_until("it is ready", lambda: self._ready(self.ports.image_api, health))
        self.wait_image_api()
        if self.openshift_programs:
            openshift.start_rest(self.run, self.processes[openshift.API_SERVER], self.authority.certificate, client, self._settings)

    # Parts.

    @property
    def audit_log(self) -> Path:
        """kube-apiserver's log of what mirrorstream's service accounts asked for, a JSON object a line."""
        return self.folder / "logs" / "audit.log"

    def _signing_key(self) -> Path:
        key = rsa.generate_private_key(65537, 2048)
        path = self.folder / "pki" / "service-accounts.key"
        path.touch(mode=0o600)
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL
        path.write_bytes(key.private_bytes(encoding, form, serialization.NoEncryption()))
        return path

    def _ready(self, port: int, path: str) -> bool:
        try:
            with urllib.request.urlopen(f"https://localhost:{port}/{path}", context=self._context, timeout=5) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError:
            return False


def _yaml(path: Path) -> Any:
    return yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506  both are safe


def define(client: Client, files: Sequence[Path], version: str = "") -> None:
    """Have custom resources served that are not yet, by another `version` than that of their files if one is given."""
    present = established(client)
    documents = [document for document in map(_yaml, files) if document["metadata"]["name"] not in present]
    for document in documents if version else ():
        (served,) = document["spec"]["versions"]
        served["name"] = version
    with ThreadPoolExecutor(8) as pool:
        made = [pool.submit(client.request, "POST", CRDS, body=document) for document in documents]
        names = {future.result()["metadata"]["name"] for future in made}
    wait_for("the custom resources are established", lambda: names <= established(client))


def established(client: Client) -> set[str]:
    """The names of the custom resources that are served."""
    try:
        items = client.get(CRDS)["items"]
    except ApiError:
        return set()
    conditions = {item["metadata"]["name"]: (item.get("status") or {}).get("conditions") or [] for item in items}
    return {name for name, found in conditions.items() if any(c["type"] == "Established" and c["status"] == "True" for c in found)}
