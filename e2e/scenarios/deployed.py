"""mirrorstream as `kubectl apply -k` installs it, on a control plane without kubelets: we are the kubelet.

Each pod that the Deployments' controllers made is run as a process with that pod's own arguments, environment, mounts, and a token
of its service account that is bound to the pod. As root on Linux it has a mount namespace of its own: a root file system that it
cannot write to, and the token where every container has it. What cannot be as it is on a node:

- the program of this environment runs in place of the image's entry point;
- each --port and --metrics-port is a free one, since all pods are on one machine;
- the other mounts are below the pod's own folder, and so are their paths in the arguments;
- the webhook's Service is of type ExternalName and leads here; its port in the configuration is a forwarder's;
- without the right to make a mount namespace, --kubeconfig takes the place of the in-cluster credentials.
"""

import base64
import contextlib
import functools
import json
import os
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import yaml
from mirrorstream.kube.client import JSON_PATCH, MERGE_PATCH, ApiError, Client, load_client

from e2e.forwarder import forwarding
from e2e.kubeconfig import write_kubeconfig
from e2e.ports import free_port
from e2e.processes import Process
from e2e.waiting import wait_for

Object = dict[str, Any]
PROJECT = Path(__file__).parents[2]
NAMESPACE = "mirrorstream"
HOOKS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
SERVICE = f"/api/v1/namespaces/{NAMESPACE}/services/mirrorstream-webhook"
TOKEN_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"
IMAGE_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": "/", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
"""The Containerfile's, but for its own folder."""
UNSHARE = ["unshare", "--mount", "--propagation", "private"]
# $0 is the folder with the token. /run is the only thing that is laid over: /var/run leads there.
LIKE_A_CONTAINER = (
    'mount -t tmpfs none /run && mkdir -p /run/secrets/kubernetes.io && ln -s "$0" /run/secrets/kubernetes.io/serviceaccount '
    '&& mount -o remount,bind,ro / && exec "$@"'
)


@functools.cache
def has_mount_namespaces() -> bool:
    """Whether we may make a mount namespace."""
    command = [*UNSHARE, "sh", "-c", "mount -t tmpfs none /run && test -d /var/run && mount -o remount,bind,ro /"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


class Pod:
    """One pod's container as a process."""

    def __init__(self, client: Client, pod: Object, folder: Path, server: str, prelude: str = "") -> None:
        self.client, self.pod = client, pod
        self.name = pod["metadata"]["name"]
        self._folder = folder / self.name
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._container,) = pod["spec"]["containers"]
        self._ports = {port["name"]: free_port() for port in self._container["ports"]}
        self._mounts = {mount["mountPath"]: mount["name"] for mount in self._container["volumeMounts"]}
        self.sync()
        program = [sys.executable, "-c", f"{prelude}\nfrom mirrorstream.cli import main\nraise SystemExit(main())"]
        command = [*program, *(self._argument(argument) for argument in self._container["args"])]
        credentials = self._path(TOKEN_FOLDER)
        environment = {**IMAGE_ENVIRONMENT, **self._environment()}
        if has_mount_namespaces():
            command = [*UNSHARE, "sh", "-c", LIKE_A_CONTAINER, str(credentials), *command]
            url = urlsplit(server)
            environment |= {"KUBERNETES_SERVICE_HOST": str(url.hostname), "KUBERNETES_SERVICE_PORT": str(url.port)}
        else:
            authority, token = credentials / "ca.crt", credentials / "token"
            file = write_kubeconfig(self._folder / "kubeconfig", server, authority=authority, token_file=token)
            command.append(f"--kubeconfig={file}")
        self.process = Process(self.name, command, self._folder / "log", environment=environment, inherit=False)

    @property
    def component(self) -> str:
        """`controller` or `webhook`."""
        return str(self.pod["metadata"]["labels"]["app.kubernetes.io/component"])

    def port(self, name: str) -> int:
        """Where a named port of the pod is on this machine."""
        return self._ports[name]

    def _path(self, mount: str) -> Path:
        return Path(f"{self._folder}/root{mount}")

    def _argument(self, argument: str) -> str:
        """An argument with ports and mounted paths as they are here."""
        flag, _, value = argument.partition("=")
        numbers = {str(port["containerPort"]): self._ports[port["name"]] for port in self._container["ports"]}
        if flag in ("--port", "--metrics-port"):
            return f"{flag}={numbers[value]}"
        inside = any(value.startswith(f"{mount}/") for mount in self._mounts)
        return f"{flag}={self._path(value)}" if inside else argument

    def _environment(self) -> dict[str, str]:
        """The container's environment, of which the downward API is a part."""
        found = {}
        for entry in self._container.get("env", []):
            path = entry.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
            found[entry["name"]] = str(self._field(path)) if path else entry["value"]
        return found

    def _field(self, path: str) -> Any:
        value: Any = self.pod
        for part in path.split("."):
            value = value[part]
        return value

    # Volumes, as a kubelet lays them out: a change is one swap of a symbolic link.

    def sync(self) -> None:
        """Bring all mounts up to date with what the API server has."""
        volumes = {volume["name"]: volume for volume in self.pod["spec"]["volumes"]}
        for mount, name in self._mounts.items():
            _lay_out(self._path(mount), self._content(volumes[name]))

    def _content(self, volume: Object) -> dict[str, bytes]:
        if "configMap" in volume:
            return self._of_config_map(volume["configMap"]["name"])
        if "secret" in volume:
            secret = self.client.get(f"/api/v1/namespaces/{NAMESPACE}/secrets/{volume['secret']['secretName']}")
            return {key: base64.b64decode(value) for key, value in secret["data"].items()}
        found: dict[str, bytes] = {}
        for source in volume["projected"]["sources"]:
            if "serviceAccountToken" in source:
                found[source["serviceAccountToken"]["path"]] = self._token(source["serviceAccountToken"]).encode()
            elif "configMap" in source:
                content = self._of_config_map(source["configMap"]["name"])
                found |= {item["path"]: content[item["key"]] for item in source["configMap"]["items"]}
            else:
                items = source["downwardAPI"]["items"]
                found |= {item["path"]: str(self._field(item["fieldRef"]["fieldPath"])).encode() for item in items}
        return found

    def _of_config_map(self, name: str) -> dict[str, bytes]:
        data = self.client.get(f"/api/v1/namespaces/{NAMESPACE}/configmaps/{name}").get("data") or {}
        return {key: text.encode() for key, text in data.items()}

    def _token(self, wanted: Object) -> str:
        """A token of the pod's service account that dies with the pod."""
        bound = {"kind": "Pod", "apiVersion": "v1", "name": self.name, "uid": self.pod["metadata"]["uid"]}
        spec = {"expirationSeconds": wanted["expirationSeconds"], "boundObjectRef": bound}
        account = self.pod["spec"]["serviceAccountName"]
        path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{account}/token"
        return str(self.client.request("POST", path, body={"spec": spec})["status"]["token"])

    # Its life.

    def get(self, path: str, port: str = "metrics", scheme: str = "") -> tuple[int, str]:
        """GET as a kubelet does, which checks no certificate."""
        scheme = scheme or self._container["readinessProbe"]["httpGet"].get("scheme", "HTTP")
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            with urllib.request.urlopen(
                f"{scheme.lower()}://127.0.0.1:{self.port(port)}{path}", context=context, timeout=5
            ) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def probe(self, kind: str = "readinessProbe") -> bool:
        """Whether a probe of the container succeeds. Raises OSError while nobody listens."""
        probe = self._container[kind]["httpGet"]
        return 200 <= self.get(probe["path"], probe["port"], probe.get("scheme", "HTTP"))[0] < 400

    def wait_ready(self) -> None:
        """Wait for its readiness probe."""
        self.process.wait_until("its readiness probe succeeds", self.probe)

    def ready(self) -> bool:
        """Whether its readiness probe succeeds."""
        return self.process.ended is None and self.probe()


def _lay_out(folder: Path, content: dict[str, bytes]) -> None:
    """Put files into a mounted folder: `..data` leads to the present version, and every file leads through it."""
    folder.mkdir(parents=True, exist_ok=True)
    version = folder / f"..{len(list(folder.glob('..[0-9]*')))}"
    version.mkdir()
    for name, data in content.items():
        (version / name).write_bytes(data)
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    temporary = folder / "..data_tmp"
    temporary.symlink_to(version.name)
    temporary.replace(folder / "..data")


def lead_service_here(client: Client, port: int) -> None:
    """Have the API server find the webhook's Service at a port of this machine."""
    service = {"spec": {"type": "ExternalName", "externalName": "localhost", "clusterIP": None, "clusterIPs": None}}
    if client.get(SERVICE)["spec"]["type"] != "ExternalName":
        client.request("PATCH", SERVICE, body=service, content_type=MERGE_PATCH)
    (webhook,) = client.get(f"{HOOKS}/mirrorstream")["webhooks"]
    if webhook["clientConfig"]["service"]["port"] != port:
        patch = [{"op": "replace", "path": "/webhooks/0/clientConfig/service/port", "value": port}]
        client.request("PATCH", f"{HOOKS}/mirrorstream", body=patch, content_type=JSON_PATCH)


class Deployed:
    """An overlay, applied, with its pods running; `kubectl delete -k` at the end. `prelude` is Python that each pod runs first."""

    def __init__(self, kubectl: Path, kubeconfig: Path, overlay: Path, folder: Path, prelude: str = "") -> None:
        self._kubectl, self._kubeconfig, self.overlay, self._folder = kubectl, kubeconfig, overlay, folder
        self._prelude = prelude
        self.client = load_client(str(kubeconfig), in_cluster=False, user_agent="kubelet")
        self.pods: list[Pod] = []
        self._exit = contextlib.ExitStack()
        self.port = 0
        """Of the forwarder that stands for the webhook's Service; 0 without a webhook."""

    def kubectl(self, *arguments: str | Path) -> str:
        """What kubectl prints. Raises AssertionError with its errors."""
        command = [str(self._kubectl), "--kubeconfig", str(self._kubeconfig), *map(str, arguments)]
        environment = {**os.environ, "HOME": str(self._folder)}
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=90, cwd=PROJECT, env=environment)
        assert done.returncode == 0, f"{' '.join(command)}:\n{done.stderr}"
        return done.stdout + done.stderr

    def apply(self) -> str:
        """`kubectl apply -k`; what kubectl printed."""
        return self.kubectl("apply", "-k", self.overlay)

    def run(self) -> None:
        """Run the pods, and wait until they are ready."""
        self.start()
        for pod in self.pods:
            pod.wait_ready()

    def start(self) -> None:
        """Run the pods that there are."""
        self.pods += [Pod(self.client, pod, self._folder, self._server, self._prelude) for pod in self._wait_pods()]
        for pod in self.pods:
            self._exit.callback(pod.process.kill)
        self._lead_here()

    @property
    def _server(self) -> str:
        return str(yaml.safe_load(self._kubeconfig.read_text(encoding="utf-8"))["clusters"][0]["cluster"]["server"])

    def _wait_pods(self) -> list[Object]:
        """The pods of all Deployments: they were admitted to a namespace that takes restricted ones only."""

        def all_there() -> list[Object] | None:
            wanted = sum(
                d["spec"]["replicas"] for d in self.client.get(f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments")["items"]
            )
            pods: list[Object] = self.client.get(f"/api/v1/namespaces/{NAMESPACE}/pods")["items"]
            return pods if wanted and len(pods) == wanted else None

        return wait_for("the Deployments have their pods", all_there)

    def of(self, component: str) -> list[Pod]:
        """The running pods of one program."""
        return [pod for pod in self.pods if pod.component == component]

    def _lead_here(self) -> None:
        """Have the API server find the webhook's Service on this machine."""
        webhooks = self.of("webhook")
        if not webhooks:
            return
        self.port = self._exit.enter_context(forwarding(*((pod.port("admission"), pod.ready) for pod in webhooks)))
        lead_service_here(self.client, self.port)

    def remove(self) -> str:
        """End the pods and remove everything, in the guide's order; what kubectl printed."""
        printed = self.kubectl("delete", "mutatingwebhookconfiguration", "mirrorstream", "--ignore-not-found")
        printed += self.kubectl("delete", "-k", self.overlay, "--ignore-not-found", "--wait=false")
        self._exit.close()
        self.pods.clear()
        wait_for("the namespace is gone", self._is_gone, seconds=60, step=0.1)
        return printed

    def _is_gone(self) -> bool:
        try:
            self.client.get(f"/api/v1/namespaces/{NAMESPACE}")
        except ApiError as error:
            return error.status == 404
        return False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if not self._is_gone():
                self.remove()
        finally:
            self._exit.close()


@contextlib.contextmanager
def syncing(deployed: Deployed) -> Iterator[None]:
    """Keep the pods' mounts up to date, as kubelets do."""
    stopped = threading.Event()
    failures: list[BaseException] = []

    def work() -> None:
        while not stopped.wait(0.5):
            try:
                for pod in deployed.pods:
                    pod.sync()
            except Exception as error:  # noqa: BLE001  told below, to the test
                failures.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
    assert not failures, failures


def document(items: list[Object]) -> str:
    """Objects as kubectl takes them from standard input."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
