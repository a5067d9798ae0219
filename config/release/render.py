"""Manifests as kustomize renders them, with the image of a release by its digest."""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import yaml

from config.image.debian import ROOT
from config.release.commit import ReleaseError

IMAGE = "quay.io/mirrorstream/mirrorstream"
"""The name in config/base."""
CONFIG = ROOT / "config"
TOOLS = (("kubectl", "kustomize"), ("oc", "kustomize"), ("kustomize", "build"))
INSTALL = {
    "openshift": "OpenShift: certificates from service-ca, monitoring, network policies",
    "cert-manager": "clusters with cert-manager",
    "single-node": "OpenShift on a single node: one replica of each program",
    "observe": "OpenShift, and nothing changes: `mode: observe` decides and reports only",
}
"""The overlays that a release has as files, and what each is for."""
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def tool() -> list[str]:
    """What renders a folder on this machine. Raises ReleaseError."""
    for name, command in TOOLS:
        if shutil.which(name):
            return [name, command]
    raise ReleaseError("needs kubectl, oc or kustomize to render the manifests")


def render(folder: Path, digest: str, command: list[str] | None = None) -> str:
    """What kustomize makes of a folder, with the image of that digest. Raises ReleaseError."""
    if not _DIGEST.fullmatch(digest) or set(digest[7:]) == {"0"}:
        raise ReleaseError(f"{digest or 'nothing'} is no digest of an image: sha256:… is, as `make image BASE=debian` prints it")
    with tempfile.TemporaryDirectory() as made:
        image = {"name": IMAGE, "digest": digest}
        # kustomize takes no absolute paths.
        content = {
            "resources": [os.path.relpath(folder, Path(made).resolve())],
            "images": [image],
            "sortOptions": {"order": "legacy"},
        }
        (Path(made) / "kustomization.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
        done = subprocess.run([*(command or tool()), made], capture_output=True, text=True, check=False, timeout=120)  # noqa: S603  no shell, known programs
    if done.returncode:
        raise ReleaseError(f"{folder.relative_to(ROOT)}: {done.stderr.strip()}")
    return done.stdout


def install_file(overlay: str, version: str, digest: str, command: list[str] | None = None) -> str:
    """The text of install-OVERLAY.yaml. Raises ReleaseError."""
    text = render(CONFIG / "overlays" / overlay, digest, command)
    return (
        f"# mirrorstream {version} for {INSTALL[overlay]}.\n"
        f"#   oc apply -f install-{overlay}.yaml\n"
        f"# Where no ImageDigestMirrorSet covers quay.io/mirrorstream, name your mirror:\n"
        f"#   sed 's|{IMAGE}|MIRROR/mirrorstream/mirrorstream|' install-{overlay}.yaml | oc apply -f -\n"
        f"---\n{text}"
    )
