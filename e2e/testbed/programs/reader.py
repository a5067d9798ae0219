"""Somebody who follows the documents on a cluster of their own: what they have before them, and what they type.

Where the documents speak of hosts there are the registries of the tests: nothing ever asks a public host. All that they see is in
the file `transcript` of the test's folder, to be compared with what the documents show.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mirrorstream.kube.client import ApiError

from config.release import version
from config.release.render import IMAGE
from e2e.testbed.documents import PROJECT, Block, not_shown
from e2e.testbed.node.product import HOOK, REPOSITORY, SERVICE
from e2e.testbed.programs.installed import Bed
from e2e.testbed.programs.issuers import ServiceCAOperator
from e2e.testbed.roles import PULL, grant, group
from e2e.testbed.streams import IMAGE_API
from e2e.testbed.support.waiting import wait_for

Object = dict[str, Any]
OVERLAY = "config/overlays/openshift"
FAILURE = re.compile(r"^(error:|Error from server)", re.MULTILINE)
PATIENCE_SECONDS = 20.0
COMMAND_SECONDS = 150
MIRROR_SETS = "/apis/config.openshift.io/v1/imagedigestmirrorsets"
TAG = f"newTag: {version.current()}"
"""How config/base names the image that a checkout builds."""
IN_THE_MIRROR = {
    "redhat/ocp-tools-4/jenkins-rhel8": ("v4.13.0-1686682222", "v4.13.0"),
    "redhat/ubi9/httpd-24": ("latest",),
    "shop/backend": ("v3",),
}
STREAMS = {"httpd": ("2.4-ubi9", "ubi9/httpd-24:latest"), "nodejs": ("20-ubi9", "ubi9/nodejs-20:latest")}
"""What the documents' examples are about, beside config/samples; the mirror does not have the second."""
SAMPLES = "/apis/samples.operator.openshift.io/v1/configs"


def for_one_node(text: str) -> str:
    """Manifests of which two replicas share a node: no node has this label."""
    return text.replace("kubernetes.io/hostname", "mirrorstream.test/nowhere")


class Reader:
    """A cluster administrator with a release, its checkout, `oc` (kubectl, here), the mirrorstream commands and a kubeconfig."""

    def __init__(self, bed: Bed, digest: str, folder: Path, dist: Path) -> None:
        self.bed, self.client, self.folder, self._dist = bed, bed.client, folder, dist
        self._digest = digest
        self._repository = REPOSITORY
        """Where the mirror has, or gets, the product's image."""
        self._bin, self._commands = folder / "given" / "bin", folder / "given" / "commands"
        for place in (self._bin, self._commands):
            place.mkdir(parents=True)
        for name in ("oc", "kubectl"):
            (self._bin / name).symlink_to(bed.kubectl)
        for name in ("mirrorstream", "kubectl-mirrorstream"):
            (self._commands / name).symlink_to(Path(sys.executable).parent / name)
        self._add_skopeo()
        self.checkout = folder / "checkout"
        self._internal = "the internal registry"
        self.service_ca = ServiceCAOperator(bed.client, folder)

    def _add_skopeo(self) -> None:
        """The real one, on a machine that trusts the mirror's certificate and finds its name."""
        assert self.bed.node
        skopeo, registry = shutil.which("skopeo"), self.bed.node.registry
        assert skopeo
        certificates = self.folder / "certificates"
        certificates.mkdir()
        shutil.copyfile(self.bed.node.authority, certificates / "ca.crt")
        here = f"s|docker://{registry}/|docker://localhost:{registry.partition(':')[2]}/|"
        script = f"""command=$1; shift\nexec {skopeo} $command --dest-cert-dir {certificates} $(echo "$@" | sed '{here}')\n"""
        (self._bin / "skopeo").write_text(f"#!/bin/sh\n{script}", encoding="utf-8")
        (self._bin / "skopeo").chmod(0o755)

    # What is there before anybody reads anything.

    def prepare(self) -> None:
        """Namespaces, mirrors with images, and streams that fail."""
        for namespace in ("web", "shop"):
            self.client.request("POST", "/api/v1/namespaces", body={"metadata": {"name": namespace}})
        # As on OpenShift, whose own role of this kind has another name: everybody may pull from the shared namespace.
        grant(self.client, "openshift", "everybody-pulls", [PULL], group("system:authenticated"))
        samples = {"apiVersion": "samples.operator.openshift.io/v1", "kind": "Config", "spec": {"managementState": "Removed"}}
        self.client.request("POST", SAMPLES, body={**samples, "metadata": {"name": "cluster"}})
        for repository, tags in IN_THE_MIRROR.items():
            for tag in tags:
                self.bed.cluster.put("good", repository, tag)
        self.new_checkout()
        assert self.bed.node
        mirrors = {"imageDigestMirrors": [{"source": IMAGE, "mirrors": [f"{self.bed.node.registry}/{REPOSITORY}"]}]}
        mirror_set = {"apiVersion": "config.openshift.io/v1", "kind": "ImageDigestMirrorSet", "spec": mirrors}
        self.client.request("POST", MIRROR_SETS, body={**mirror_set, "metadata": {"name": "mirrorstream"}})
        for name in ("mirror_sets", "jenkins", "customer_stream"):
            self._type(f"oc apply -f config/samples/{name}.yaml", (0,), "given")
        for name, (tag, image) in STREAMS.items():
            source = {"kind": "DockerImage", "name": self.here(f"registry.redhat.io/{image}")}
            following = {"name": "latest", "from": {"kind": "ImageStreamTag", "name": tag}}
            spec = {"tags": [{"name": tag, "from": source, "referencePolicy": {"type": "Local"}}, following]}
            self.client.request(
                "POST", f"{IMAGE_API}/namespaces/openshift/imagestreams", body={"metadata": {"name": name}, "spec": spec}
            )
        repository = self._get("httpd")["status"]["dockerImageRepository"]
        self._internal = repository.partition("/")[0]

    def here(self, text: str) -> str:
        """`text` with the documents' hosts replaced by those of the tests."""
        dead, good = self.bed.cluster.host("dead"), self.bed.cluster.host("good")
        hosts = {
            f"mirror.example.com:5000/{REPOSITORY}": self.image,
            "registry.redhat.io": dead,
            "registry.access.redhat.com": f"127.0.0.1:{dead.partition(':')[2]}",
            "registry.example.com": f"{dead}/example",
            "mirror.example.com:5000": good,
            "image-registry.openshift-image-registry.svc:5000": self._internal,
        }
        for name, host in hosts.items():
            text = text.replace(name, host)
        return text

    @property
    def image(self) -> str:
        """The product's image in the mirror, without tag or digest."""
        assert self.bed.node
        return f"{self.bed.node.registry}/{self._repository}"

    @contextmanager
    def stranger(self) -> Iterator[None]:
        """Somebody who has a release and nothing else: no checkout, no commands, and no image in the mirror."""
        shutil.rmtree(self.checkout / "config")
        commands, self._commands = self._commands, self.folder / "bin"
        self._repository = "stranger/mirrorstream"
        try:
            yield
        finally:
            self._repository, self._commands = REPOSITORY, commands
            self.new_checkout()

    def new_checkout(self) -> None:
        """What a reader has: a release, and config/ of its checkout with the image's digest, for a cluster with one node."""
        shutil.rmtree(self.checkout, ignore_errors=True)
        shutil.copytree(PROJECT / "config", self.checkout / "config")
        for path in (self.checkout / "config").rglob("*.yaml"):
            text = self.here(path.read_text(encoding="utf-8")).replace(TAG, f"digest: {self._digest}")
            path.write_text(for_one_node(text), encoding="utf-8")
        (self.checkout / "dist").symlink_to(self._dist)

    # What they do.

    def follow(self, block: Block) -> None:
        """Write the block's file, or type its commands, unless the document says that they cannot be run here."""
        if block.title:
            path = self.checkout / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.here(block.text), encoding="utf-8")
        for command, expected in () if block.not_run else block.session:
            # What is shown may need a moment, in which a reader would type it again: a tag heals, an API server learns.
            end, missing = time.monotonic() + PATIENCE_SECONDS, "?"
            while missing and time.monotonic() < end:
                output = self._type(self.here(command), block.statuses, str(block))
                missing = not_shown([self.here(line) for line in expected], output)
            assert not missing, f"{block}: {command}: does not print {missing!r}:\n{output}"
            assert not self._there(HOOK) or self._there(SERVICE), f"{block}: a configuration without its Service"

    def _type(self, command: str, statuses: tuple[int, ...], where: str) -> str:
        environment = {
            "PATH": f"{self._commands}:{self._bin}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "KUBECONFIG": str(self.bed.plane.kubeconfig),
            "TERM": "dumb",
        }
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            cwd=self.checkout,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_SECONDS,
        )
        with (self.folder / "transcript").open("a", encoding="utf-8") as transcript:
            transcript.write(f"[{where}] $ {command}\n{done.stdout}{done.stderr}\n")
        # Where grep may find nothing, kubectl's own errors have the same status.
        failed = done.returncode not in statuses or FAILURE.search(done.stderr)
        assert not failed, f"{where}: {command}: ended with {done.returncode}\n{done.stdout}{done.stderr}"
        self.service_ca.check()
        return done.stdout + done.stderr

    # Where a document begins.

    def install(self) -> None:
        """Have it installed, with what can heal healed."""
        self._type("oc apply -f dist/install-openshift.yaml", (0,), "given")
        for name in ("controller", "webhook"):
            self._type(f"oc -n mirrorstream rollout status deployment/mirrorstream-{name} --timeout=120s", (0,), "given")
        self._type("oc -n openshift annotate imagestreams --all mirrorstream.github.io/import-", (0,), "given")
        self._type("oc label namespace web mirrorstream.github.io/rewrite-", (0,), "given")
        for stream, tag in (("jenkins", "2"), ("httpd", "2.4-ubi9")):
            wait_for(f"{stream}:{tag} heals", lambda stream=stream, tag=tag: self._tag(stream, tag).get("items"))  # type: ignore[misc]
        wait_for("nodejs fails", lambda: self._tag("nodejs", "20-ubi9").get("conditions"))

    def uninstall(self) -> None:
        """Have it not installed."""
        self._type("oc delete mutatingwebhookconfiguration mirrorstream --ignore-not-found", (0,), "given")
        self._type(f"oc delete -k {OVERLAY} --ignore-not-found", (0,), "given")

    def leave(self) -> None:
        """Take away what reached beyond the cluster's other tests: the installation, and the rules for all nodes."""
        self.uninstall()
        self._type("oc delete imagedigestmirrorsets,imagetagmirrorsets --all", (0,), "given")
        self._type("oc -n openshift delete imagestreams.image.openshift.io --all", (0,), "given")
        self._type("oc delete namespaces web shop", (0,), "given")

    def _get(self, stream: str) -> Object:
        found: Object = self.client.get(f"{IMAGE_API}/namespaces/openshift/imagestreams/{stream}")
        return found

    def _tag(self, stream: str, tag: str) -> Object:
        return next((t for t in self._get(stream)["status"].get("tags") or [] if t["tag"] == tag), {})

    def _there(self, path: str) -> bool:
        try:
            self.client.get(path)
        except ApiError as error:
            if error.status != 404:
                raise
            return False
        return True
