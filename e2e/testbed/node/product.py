"""mirrorstream as its users run it: its image in a registry, and an overlay with nothing but the image's name changed, as pods."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mirrorstream.kube.client import ApiError, load_client

from config.image.debian import NEEDED, Labels, digest_of, image_archive
from config.release.__main__ import release
from config.release.commit import checked_out
from config.release.render import IMAGE, INSTALL, install_file
from e2e.testbed.controlplane.build import components
from e2e.testbed.node.view import NodeView
from e2e.testbed.support.kustomize import write_overlay
from e2e.testbed.support.waiting import wait_for

Object = dict[str, Any]
NAMESPACE = "mirrorstream"
REPOSITORY = "mirrorstream/mirrorstream"
HOOKS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
HOOK = f"{HOOKS}/mirrorstream"
SERVICE = f"/api/v1/namespaces/{NAMESPACE}/services/mirrorstream-webhook"
DEPLOYMENTS = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
AVAILABLE_SECONDS = 240
"""For a rollout, which pulls the image: 68 s were seen on a machine with much else to do."""
PROGRAMS = (*NEEDED, "skopeo")


def missing() -> str:
    """Why mirrorstream's image cannot be built or pushed here, in one line; empty if it can."""
    absent = [program for program in PROGRAMS if not shutil.which(program)]
    return f"mirrorstream's image needs Debian's packages {', '.join(absent)}" if absent else ""


def push(registry: str, authority: Path, folder: Path) -> str:
    """Copy the image of this checkout to a registry (`host:port`, here at localhost) by skopeo; its digest."""
    archive = image_archive()
    copy_image(archive, registry, authority, folder, "latest")
    return digest_of(archive)


def copy_image(archive: Path, registry: str, authority: Path, folder: Path, tag: str) -> None:
    """Copy an OCI archive to a registry, under a tag."""
    certificates = folder / "certificates"
    certificates.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(authority, certificates / "ca.crt")
    target = f"docker://localhost:{registry.partition(':')[2]}/{REPOSITORY}:{tag}"
    _run(["skopeo", "copy", "--quiet", "--dest-cert-dir", certificates, f"oci-archive:{archive}", target], 120)


def image_of_bed(node: NodeView, digest: str) -> list[Object]:
    """A kustomization's `images` that say where the image is."""
    return [{"name": IMAGE, "newName": f"{node.registry}/{REPOSITORY}", "digest": digest}]


def overlay_of(folder: Path, name: str, node: NodeView, digest: str, **more: Any) -> Path:
    """Write an overlay of a user's own on top of a release's install file, that says where the image is. The folder.

    The overlay `dev` is in no release: it is the checkout's.
    """
    if name not in INSTALL:
        return write_overlay(folder, resources=[f"overlays/{name}"], images=image_of_bed(node, digest), **more)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"install-{name}.yaml"
    file.write_text(install_file(name, Labels().version, digest, [str(components() / "kubectl"), "kustomize"]), encoding="utf-8")
    return write_overlay(folder, resources=[str(file)], images=image_of_bed(node, digest), **more)


def dist(folder: Path, kubectl: Path) -> Path:
    """What `make release BASE=debian` writes, into a new folder, with the cached image, which names no commit."""
    folder.mkdir(parents=True)
    release(folder, "debian", checked_out(), Labels(), [str(kubectl), "kustomize"])
    return folder


class Product:
    """An overlay to install with kubectl and to remove again. A context manager that removes what it has installed."""

    def __init__(self, kubectl: Path, kubeconfig: Path, overlay: Path, folder: Path) -> None:
        self._kubectl, self._kubeconfig, self.overlay, self._folder = kubectl, kubeconfig, overlay, folder
        self.client = load_client(str(kubeconfig), in_cluster=False, user_agent="test")

    def kubectl(self, *arguments: str | Path) -> str:
        """What kubectl prints. Raises AssertionError with its errors."""
        return self._kubectl_run(*arguments).stdout

    def _kubectl_run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        folder = str(self._folder / "kubectl")
        return _run([self._kubectl, "--kubeconfig", self._kubeconfig, "--cache-dir", folder, *arguments], AVAILABLE_SECONDS + 60)

    def apply(self) -> str:
        """`kubectl apply -k`; what kubectl printed, warnings included."""
        done = self._kubectl_run("apply", "-k", self.overlay)
        return done.stdout + done.stderr

    def install(self, issue: Callable[[], object] = lambda: None) -> Self:
        """Apply it, let somebody issue certificates, and wait until both programs are available."""
        self.apply()
        issue()
        self.wait_available()
        return self

    def wait_available(self) -> None:
        """Wait for it as an administrator does."""
        try:
            self.kubectl(
                "-n", NAMESPACE, "wait", "deployment", "--all", "--for=condition=Available", f"--timeout={AVAILABLE_SECONDS}s"
            )
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.state()}") from None

    def pods(self, component: str = "", *, ending: bool = False) -> list[Object]:
        """The pods of one program, or of both; those that are ending are left out unless `ending`."""
        selector = "app.kubernetes.io/name=mirrorstream" + (f",app.kubernetes.io/component={component}" if component else "")
        items: list[Object] = self.client.get(PODS, {"labelSelector": selector}).get("items") or []
        return [pod for pod in items if ending or not pod["metadata"].get("deletionTimestamp")]

    def log(self, component: str) -> str:
        """What the running pods of a program have logged."""
        running = [pod["metadata"]["name"] for pod in self.pods(component) if pod["status"]["phase"] == "Running"]
        return "".join(self.kubectl("-n", NAMESPACE, "logs", name) for name in running)

    def metrics(self, component: str) -> str:
        """What the first running pod of a program serves on its metrics port, through the API server."""
        name = next(pod["metadata"]["name"] for pod in self.pods(component) if pod["status"]["phase"] == "Running")
        scheme = self.pods(component)[0]["spec"]["containers"][0]["readinessProbe"]["httpGet"].get("scheme", "HTTP").lower()
        return self.kubectl("get", "--raw", f"{PODS}/{scheme}:{name}:8080/proxy/metrics")

    def state(self) -> str:
        """How the pods are, and what was said about them."""
        parts = [self.kubectl("-n", NAMESPACE, "get", "pods", "-o", "wide")]
        parts.append(self.kubectl("-n", NAMESPACE, "get", "events", "--sort-by=.lastTimestamp"))
        return "\n".join([*parts, *(self.log(component)[-3000:] for component in ("controller", "webhook"))])

    def remove(self) -> None:
        """In the guide's order, until the namespace is gone."""
        self.kubectl("delete", "mutatingwebhookconfiguration", "mirrorstream", "--ignore-not-found")
        self.kubectl("delete", "-k", self.overlay, "--ignore-not-found", "--wait=false")
        wait_for("the namespace is gone", self._is_gone, seconds=90, step=0.1)

    def _is_gone(self) -> bool:
        try:
            self.client.get(f"/api/v1/namespaces/{NAMESPACE}")
        except ApiError as error:
            return error.status == 404
        return False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not self._is_gone():
            self.remove()


def _run(command: list[str | Path], seconds: float) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, timeout=seconds, env={**os.environ}
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}:\n{done.stderr}"
    return done
