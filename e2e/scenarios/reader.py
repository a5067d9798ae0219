"""Somebody who follows the documents on a cluster of their own: what they have before them, and what they type.

All that they see is in the file `transcript` of the test's folder, to be compared with what the documents show.
Where the documents speak of hosts there are the registries of the tests: nothing ever asks a public host.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mirrorstream.kube.client import ApiError, Client, load_client

from e2e.contract.registries import Registries
from e2e.controlplane.arguments import OWN_NAMESPACE
from e2e.controlplane.plane import ControlPlane
from e2e.documents import PROJECT, Block
from e2e.scenarios.cluster import IMAGE_API
from e2e.scenarios.installation import CONTROLLER, Installation
from e2e.scenarios.program import Controller
from e2e.waiting import wait_for

Object = dict[str, Any]
OVERLAY = "config/overlays/openshift"
DEPLOYMENTS = f"/apis/apps/v1/namespaces/{OWN_NAMESPACE}/deployments"
OTHERS_KINDS = (
    ("monitoring.coreos.com/v1", "ServiceMonitor", "servicemonitors"),
    ("monitoring.coreos.com/v1", "PrometheusRule", "prometheusrules"),
)
"""Kinds that the platform's other operators bring; only that they are served counts here."""
IN_THE_MIRROR = {
    "redhat/ocp-tools-4/jenkins-rhel8": ("v4.13.0-1686682222", "v4.13.0"),
    "redhat/ubi9/httpd-24": ("latest",),
    "shop/shop/backend": ("v3",),
}
STREAMS = {"httpd": ("2.4-ubi9", "ubi9/httpd-24:latest"), "nodejs": ("20-ubi9", "ubi9/nodejs-20:latest")}
"""What the documents' examples are about, beside config/samples; the mirror does not have the second."""


@dataclass
class Reader:
    """A cluster administrator with a checkout, `oc` (kubectl, here), the mirrorstream commands and a kubeconfig."""

    plane: ControlPlane
    registries: Registries
    programs: Path
    """The folder with kubectl."""
    folder: Path
    client: Client = field(init=False)
    _controller: Controller | None = None

    def __post_init__(self) -> None:
        self.client = load_client(str(self.plane.kubeconfig), in_cluster=False, user_agent="reader")
        self._bin = self.folder / "bin"
        self._bin.mkdir(parents=True)
        for name in ("oc", "kubectl"):
            (self._bin / name).symlink_to(self.programs / "kubectl")
        for name in ("mirrorstream", "kubectl-mirrorstream"):
            (self._bin / name).symlink_to(Path(sys.executable).parent / name)
        self.checkout = self.folder / "checkout"

    # What is there before anybody reads anything.

    def prepare(self) -> None:
        """Other operators' kinds, namespaces, mirrors with images, and streams that fail."""
        for version, kind, plural in OTHERS_KINDS:
            self._define(version, kind, plural)
        for namespace in ("web", "shop"):
            self._make("/api/v1/namespaces", {"metadata": {"name": namespace}})
        samples = {"apiVersion": "samples.operator.openshift.io/v1", "kind": "Config", "spec": {"managementState": "Removed"}}
        self._make("/apis/samples.operator.openshift.io/v1/configs", {**samples, "metadata": {"name": "cluster"}})
        for repository, tags in IN_THE_MIRROR.items():
            for tag in tags:
                self.registries.stores["good"].put(repository, tag, "docker", f"{repository}:{tag}")
        self.new_checkout()
        for name in ("mirror_sets", "jenkins", "customer_stream"):
            self._shell(f"kubectl apply -f config/samples/{name}.yaml", (0,), "the samples")
        for name, (tag, image) in STREAMS.items():
            source = {"kind": "DockerImage", "name": self.here(f"registry.redhat.io/{image}")}
            spec = {"tags": [{"name": tag, "from": source, "referencePolicy": {"type": "Local"}}]}
            body = {"apiVersion": "image.openshift.io/v1", "kind": "ImageStream", "metadata": {"name": name}, "spec": spec}
            self._make(f"{IMAGE_API}/namespaces/openshift/imagestreams", body)

    def _define(self, version: str, kind: str, plural: str) -> None:
        group, _, name = version.partition("/")
        schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
        spec = {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "versions": [{"name": name, "served": True, "storage": True, "schema": schema}],
        }
        self._make(
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", {"metadata": {"name": f"{plural}.{group}"}, "spec": spec}
        )
        wait_for(f"{plural} are served", lambda: self._served(f"/apis/{version}/{plural}"))

    def _served(self, path: str) -> bool:
        try:
            self.client.get(path)
        except ApiError:
            return False
        return True

    def _make(self, path: str, body: Object) -> None:
        try:
            self.client.request("POST", path, body=body)
        except ApiError as error:
            if error.status != 409:
                raise

    # The documents' hosts.

    def here(self, text: str) -> str:
        """`text` with the documents' hosts replaced by those of the tests."""
        dead, good = self.registries.hosts["dead"], self.registries.hosts["good"]
        hosts = {
            "registry.redhat.io": dead,
            "registry.access.redhat.com": f"127.0.0.1:{dead.partition(':')[2]}",
            "registry.example.com": f"{dead}/example",
            "mirror.example.com:5000": good,
        }
        for name, host in hosts.items():
            text = text.replace(name, host)
        return text

    def new_checkout(self) -> None:
        """What a reader has unpacked: config/, untouched."""
        shutil.rmtree(self.checkout, ignore_errors=True)
        shutil.copytree(PROJECT / "config", self.checkout / "config")
        for path in (self.checkout / "config").rglob("*.yaml"):
            path.write_text(self.here(path.read_text(encoding="utf-8")), encoding="utf-8")

    # What they do.

    def follow(self, block: Block) -> None:
        """Write the block's file, or type its commands, unless the document says that they cannot be run here."""
        if block.title:
            path = self.checkout / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.here(block.text), encoding="utf-8")
        for command in () if block.not_run else block.commands:
            self._shell(self.here(command), block.statuses, str(block))
            self._run_deployments()

    def _shell(self, command: str, statuses: tuple[int, ...], where: str) -> str:
        environment = {
            "PATH": f"{self._bin}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "KUBECONFIG": str(self.plane.kubeconfig),
            "TERM": "dumb",
        }
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            cwd=self.checkout,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        with (self.folder / "transcript").open("a", encoding="utf-8") as transcript:
            transcript.write(f"[{where}] $ {command}\n{done.stdout}{done.stderr}\n")
        assert done.returncode in statuses, f"{where}: {command}: ended with {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def install(self) -> None:
        """Have it installed, with what can heal healed."""
        self._shell(f"kubectl apply -k {OVERLAY}", (0,), "given")
        self._run_deployments()
        self._shell(
            "kubectl -n openshift annotate imagestreams.image.openshift.io --all mirrorstream.github.io/import-", (0,), "given"
        )
        for stream, tag in (("jenkins", "2"), ("httpd", "2.4-ubi9")):
            wait_for(f"{stream}:{tag} heals", lambda stream=stream, tag=tag: self._status(stream, tag).get("items"))  # type: ignore[misc]
        wait_for("nodejs fails", lambda: self._status("nodejs", "20-ubi9").get("conditions"))

    def uninstall(self) -> None:
        """Have it not installed."""
        self._shell(f"kubectl delete -k {OVERLAY} --ignore-not-found", (0,), "given")
        self._run_deployments()

    def _status(self, stream: str, tag: str) -> Object:
        found = self.client.get(f"{IMAGE_API}/namespaces/openshift/imagestreams/{stream}")
        return next((t for t in (found.get("status") or {}).get("tags") or [] if t["tag"] == tag), {})

    # What a kubelet would do.

    def _run_deployments(self) -> None:
        """Run the controller where its Deployment is, and end it where it is not."""
        wanted = any(item["metadata"]["name"] == CONTROLLER for item in self.client.get(DEPLOYMENTS)["items"])
        if not wanted:
            self.stop()
        elif self._controller is None:
            account = Installation(self.client, OWN_NAMESPACE, account=CONTROLLER)
            wait_for(
                "the service account is there",
                lambda: self._served(f"/api/v1/namespaces/{OWN_NAMESPACE}/serviceaccounts/{CONTROLLER}"),
            )
            kubeconfig = account.kubeconfig(self.folder / "controller.kubeconfig", self.plane.kubeconfig)
            self._controller = Controller(kubeconfig, self.folder, {}, "--namespace", OWN_NAMESPACE)
            self._controller.wait_ready()

    def stop(self) -> None:
        """End what runs."""
        if self._controller:
            self._controller.stop()
            self._controller = None
