"""Rendering kustomizations with kubectl, as administrators do."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]
CONFIG = Path(__file__).parents[3] / "config"
OVERLAYS = ("openshift", "cert-manager", "single-node", "observe", "dev")
_COMPONENTS = CONFIG / "components"
COMPONENTS = tuple(sorted(path.parent.relative_to(_COMPONENTS).as_posix() for path in _COMPONENTS.rglob("kustomization.yaml")))
LAST = {
    **{name: ["monitoring", "service-ca", "network-policy"] for name in ("webhook-only", "controller-only")},
    "monitoring/platform": ["monitoring"],
}
"""Components that say that they must be listed last, and what before them they take something away from."""


def any_kubectl() -> Path | None:
    """The kubectl of this machine, if it has one."""
    found = shutil.which("kubectl") or shutil.which("oc")
    return Path(found) if found else None


def render(kubectl: Path, folder: Path) -> list[Object]:
    """The objects of a kustomization. Raises AssertionError with what kubectl says on stderr, warnings included."""
    done = subprocess.run([str(kubectl), "kustomize", str(folder)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def write_overlay(folder: Path, *, resources: list[str], components: list[str] | None = None, **more: Any) -> Path:
    """Write an overlay of a user's own into `folder`: paths are those below config/; `more` are further fields. The folder."""
    folder.mkdir(parents=True, exist_ok=True)

    def relative(names: list[str]) -> list[str]:
        return [os.path.relpath(CONFIG / name, folder) for name in names]  # kustomize takes no absolute paths

    content = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": relative(resources),
        "components": relative(components or []),
        **more,
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return folder


def with_component(folder: Path, name: str) -> Path:
    """Write an overlay of the base with a component, and with what that needs before it. The folder."""
    names = [*LAST.get(name, []), name]
    return write_overlay(folder, resources=["base"], components=[f"components/{component}" for component in names])
