"""What is measured on: the streams of a large cluster, a simulated cluster with them, and what a process of it uses."""

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
from mirrorstream.imagestream.model import REPOSITORY_CHECK_ANNOTATION
from mirrorstream.kube.client import ApiUnreachable, Client, load_client

from e2e.testbed.programs.pod_credentials import write_credentials
from e2e.testbed.registries.registry import DeadPort, Registry
from e2e.testbed.support.kubeconfig import write_kubeconfig
from e2e.testbed.support.ports import free_port
from e2e.testbed.support.processes import Process
from e2e.testbed.support.waiting import wait_for

Object = dict[str, Any]
PROJECT = Path(__file__).parents[2]
MIRROR_SETS = "/apis/config.openshift.io/v1/imagedigestmirrorsets"
SOURCE = "registry.example.com"
"""Where the streams of a population come from, unless something else is said."""
LARGE = 100_000
"""The streams of the largest cluster."""
AT_ONCE = 500
"""Streams are stored so many at a time."""
TAGS = 5
NAMESPACES = 250
FAILING = range(500, 520)
"""These streams of a population have a tag that fails for good: no mirror rule covers its source."""
HISTORY = 3
"""So many items has the first tag of each stream; the others have one."""
REGISTRY = "image-registry.openshift-image-registry.svc:5000"
TIME = "2026-01-01T00:00:00Z"
UNCOVERED = "registry.elsewhere.example.com"
PATIENCE = 900.0
"""Seconds for a start on a machine however busy."""
_TICKS = os.sysconf("SC_CLK_TCK")


def name_of(number: int) -> str:
    """A stream's name."""
    return f"application-{number}"


def namespace_of(number: int) -> str:
    """A stream's namespace."""
    return f"team-{number % NAMESPACES}"


def digest_of(text: str) -> str:
    """A digest, as images have."""
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def spec_tag(source: str, name: str) -> Object:
    """A tag of a spec, as the API server shows it."""
    return {
        "name": name,
        "annotations": {"openshift.io/provider-display-name": "Example, Inc.", "tags": "builder,application"},
        "from": {"kind": "DockerImage", "name": f"{source}:{name}"},
        "generation": 2,
        "importPolicy": {"importMode": "Legacy"},
        "referencePolicy": {"type": "Local"},
    }


def imported(source: str, name: str, *, items: int = 1) -> Object:
    """The status of a tag that the platform has imported `items` times."""
    digests = [digest_of(f"{source}:{name}#{item}") for item in range(items)]
    events = [{"created": TIME, "dockerImageReference": f"{source}@{digest}", "image": digest} for digest in digests]
    return {"tag": name, "items": [{**event, "generation": 2} for event in events]}


def failed(source: str, name: str) -> Object:
    """The status of a tag that the platform could not import."""
    host = source.partition("/")[0]
    message = (
        f'Internal error occurred: {source}:{name}: Get "https://{host}/v2/": dial tcp 192.0.2.1:443: connect: connection refused'
    )
    condition = {"type": "ImportSuccess", "status": "False", "reason": "InternalError", "message": message, "generation": 2}
    return {"tag": name, "items": None, "conditions": [{**condition, "lastTransitionTime": TIME}]}


def stream(number: int, registry: str, *, failing: bool = False) -> Object:
    """A stream of the population, imported from `registry`; with `failing` its last tag is not."""
    source = f"{registry}/team/{name_of(number)}"
    sources = [source] * (TAGS - 1) + [f"{UNCOVERED}/team/{name_of(number)}" if failing else source]
    spec = [spec_tag(each, f"v{tag}") for tag, each in enumerate(sources)]
    status = [imported(each, f"v{tag}", items=1 if tag else HISTORY) for tag, each in enumerate(sources)]
    if failing:
        status[-1] = failed(sources[-1], f"v{TAGS - 1}")
    return whole(number, spec, status)


def whole(number: int, spec: list[Object], status: list[Object]) -> Object:
    """A stream with these tags, and with what makes most of the bytes of a real one."""
    namespace, name = namespace_of(number), name_of(number)
    applied = {"apiVersion": "image.openshift.io/v1", "kind": "ImageStream", "metadata": {"name": name, "namespace": namespace}}
    annotations = {
        "kubectl.kubernetes.io/last-applied-configuration": json.dumps({**applied, "spec": {"tags": spec}}),
        "openshift.io/display-name": f"Application {number}",
        REPOSITORY_CHECK_ANNOTATION: TIME,
    }
    owned: Object = {f'k:{{"name":"{tag["name"]}"}}': {".": {}, "f:from": {}, "f:importPolicy": {}, "f:name": {}} for tag in spec}
    managed = {
        "apiVersion": "image.openshift.io/v1",
        "fieldsType": "FieldsV1",
        "fieldsV1": {"f:metadata": {"f:annotations": {".": {}}}, "f:spec": {"f:tags": {".": {}, **owned}}},
        "manager": "kubectl-client-side-apply",
        "operation": "Update",
        "time": TIME,
    }
    metadata = {
        "name": name,
        "namespace": namespace,
        "generation": 2,
        "annotations": annotations,
        "labels": {"app.kubernetes.io/name": name, "app.kubernetes.io/managed-by": "a-pipeline"},
        "managedFields": [managed],
    }
    repository = f"{REGISTRY}/{namespace}/{name}"
    return {
        "metadata": metadata,
        "spec": {"lookupPolicy": {"local": False}, "tags": spec},
        "status": {"dockerImageRepository": repository, "tags": status},
    }


def population(first: int, end: int, registry: str) -> Iterator[Object]:
    """The streams from number `first` to before `end`."""
    for number in range(first, end):
        yield stream(number, registry, failing=number in FAILING)


def mirrored(client: Client, source: str, mirror: str) -> None:
    """Have `source` mirrored at `mirror`, a host with a path."""
    body = {"metadata": {"name": "mirrored"}, "spec": {"imageDigestMirrors": [{"source": source, "mirrors": [mirror]}]}}
    kind = {"apiVersion": "config.openshift.io/v1", "kind": "ImageDigestMirrorSet"}
    client.request("POST", MIRROR_SETS, body={**kind, **body})


def wait_up(client: Client) -> None:
    """Wait until the API server answers."""

    def up() -> bool:
        try:
            client.get("/version")
        except ApiUnreachable:
            return False
        return True

    wait_for("the cluster is up", up)


def store(client: Client, streams: Iterable[Object]) -> None:
    """Store streams with their status in the simulator that a client reaches."""
    remaining = iter(streams)
    while batch := list(islice(remaining, AT_ONCE)):
        client.request("POST", "/simulator/streams", body=msgspec.json.encode({"items": batch}), timeout=60)


class Bed:
    """A running cluster with one mirror set; it ends with `stack`."""

    def __init__(self, stack: ExitStack, folder: Path, *, source: str = "", tls: bool = False) -> None:
        """`source` is the registry that is mirrored, by default the one that nobody reaches. `tls`: pods reach the cluster, too."""
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self.upstream = stack.enter_context(DeadPort()).host
        self.mirror = stack.enter_context(Registry())
        port = free_port()
        settings = folder / "settings.json"
        sources = {"insecureRegistries": [self.mirror.host]}
        settings.write_text(json.dumps({"imageConfig": {"registrySources": sources}, "internalRegistryHostname": REGISTRY}))
        command = [sys.executable, "-m", "e2e.testbed.simulator", "--port", str(port), "--settings", str(settings)]
        self.authority = folder / "ca" / "ca.crt" if tls else None
        if self.authority:
            command += ["--authority-out", str(self.authority.parent)]
        self.simulator = Process("simulator", command, folder / "simulator.log", folder=PROJECT)
        stack.callback(self.simulator.kill)
        if self.authority:
            wait_for("the simulator has a certificate", self.authority.exists)
        server = f"http{'s' if tls else ''}://127.0.0.1:{port}"
        self.kubeconfig = write_kubeconfig(folder / "kubeconfig", server, authority=self.authority)
        self.client = load_client(str(self.kubeconfig), in_cluster=False, user_agent="bench")
        wait_up(self.client)
        mirrored(self.client, source or self.upstream, f"{self.mirror.host}/m")

    def pod_environment(self) -> dict[str, str]:
        """The credentials of a pod of this cluster, which speaks TLS."""
        assert self.authority, "a pod's API server speaks TLS"
        return write_credentials(self._folder / "pod", self.client, self.authority)

    def namespaces(self, names: Iterable[str]) -> None:
        """Create namespaces."""
        for name in names:
            self.client.request("POST", "/api/v1/namespaces", body={"metadata": {"name": name}})

    def store(self, streams: Iterable[Object]) -> None:
        """Store streams with their status."""
        store(self.client, streams)

    def mark(self) -> int:
        """Where the log of requests is now."""
        return int(self.client.request("GET", "/simulator/requests", params={"userAgent": "^nobody$"})["last"])

    def requests(self, mark: int, user_agent: str) -> list[dict[str, Any]]:
        """The requests of a program since a mark."""
        params = {"since": str(mark), "userAgent": user_agent}
        found: list[dict[str, Any]] = self.client.request("GET", "/simulator/requests", params=params, timeout=60)["requests"]
        return found


def cpu_seconds(pid: int) -> float:
    """The CPU time of all its threads so far, in user and kernel mode."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident(pid: int) -> float:
    """Its resident set, in MB (10^6 bytes)."""
    return _kilobytes(pid, "VmRSS") * 1024 / 1e6


def resident_peak(pid: int) -> float:
    """The largest that its resident set has been, in MB."""
    return _kilobytes(pid, "VmHWM") * 1024 / 1e6


def _kilobytes(pid: int, field: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))
