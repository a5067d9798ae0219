"""What `kubectl apply -k config/overlays/…` installs, on a real control plane: the manifests themselves are what runs here."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from config.bundle import generate
from e2e.testbed.node.product import NAMESPACE
from e2e.testbed.programs.installed import Bed
from e2e.testbed.support.kustomize import COMPONENTS, CONFIG, OVERLAYS, render, with_component

Object = dict[str, Any]


def test_kubectl_warns_of_nothing(bed: Bed, tmp_path: Path) -> None:
    """Neither of a deprecated field nor of Pod Security, of which the namespace warns, too."""
    for overlay in OVERLAYS:
        with bed.installation(overlay, tmp_path) as installation:
            assert "warning" not in installation.apply().lower()


@pytest.mark.parametrize("name", [*OVERLAYS, *(f"component {name}" for name in COMPONENTS)])
def test_the_api_server_takes_every_object(name: str, bed: Bed, tmp_path: Path) -> None:
    """A strict dry run of every overlay, and of the base with every component."""
    overlay: str | Path = name
    if name.startswith("component "):
        overlay = with_component(tmp_path / "overlay", name.removeprefix("component "))
    installation = bed.installation(overlay, tmp_path)
    items = render(bed.kubectl, installation.overlay)
    for item in items:
        if item["metadata"].get("namespace") == NAMESPACE:
            item["metadata"]["namespace"] = "default"  # a dry run makes no namespace
    (tmp_path / "objects.json").write_text(document(items), encoding="utf-8")
    printed = installation.kubectl(
        "apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", tmp_path / "objects.json"
    )
    assert printed.count("serverside-applied (server dry run)") == len(items)


def test_the_api_server_takes_the_olm_bundle(bed: Bed, tmp_path: Path) -> None:
    """A strict dry run of what OLM would create, the ClusterServiceVersion among them."""
    generate.write(tmp_path / "bundle", generate.files("sha256:" + 32 * "ab", [str(bed.kubectl), "kustomize"]))
    folder = tmp_path / "bundle" / "manifests"
    installation = bed.installation("openshift", tmp_path)
    printed = installation.kubectl("-n", "default", "create", "--dry-run=server", "--validate=strict", "-f", folder)
    assert printed.count("created (server dry run)") == len(list(folder.iterdir()))


def test_the_api_server_takes_the_samples(bed: Bed, tmp_path: Path) -> None:
    """Streams, mirror sets and opt-outs as they are written there, but for namespaces, and for hosts that this cluster lets in."""
    items = render(bed.kubectl, CONFIG / "samples")
    for item in items:
        item["metadata"].pop("namespace", None)
    samples = re.sub(r"registry\.(redhat\.io|example\.com)", bed.cluster.host("dead"), document(items))
    (tmp_path / "samples.json").write_text(samples, encoding="utf-8")
    installation = bed.installation(CONFIG / "samples", tmp_path)
    printed = installation.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", tmp_path / "samples.json")
    assert printed.count("created (server dry run)") == len(items)


def document(items: list[Object]) -> str:
    """Objects as kubectl takes them from a file."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
