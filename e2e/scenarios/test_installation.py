"""What `kubectl apply -k config/overlays/…` installs, on a real control plane: the manifests themselves are what runs here."""

import re
from pathlib import Path
from typing import Any

import pytest

from e2e.kustomize import COMPONENTS, CONFIG, OVERLAYS, render, with_component
from e2e.scenarios.cluster import Namespace
from e2e.scenarios.deployed import NAMESPACE, document
from e2e.scenarios.installed import Bed, image_of, mirrored, rewrites
from e2e.scenarios.issuers import CertManager, Issuer, ServiceCA
from e2e.waiting import wait_for

Object = dict[str, Any]
ISSUERS: dict[str, type[Issuer] | None] = {
    "dev": None,
    "openshift": ServiceCA,
    "cert-manager": CertManager,
    "single-node": ServiceCA,
}
COME_AND_GO = ("events", "leases", "endpoints", "endpointslices", "ipaddresses")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_is_applied_heals_a_stream_and_rewrites_a_pod(overlay: str, bed: Bed, user: Namespace, tmp_path: Path) -> None:
    """One command; the pods' own arguments, environment, mounts and accounts. Nothing that they ask for is forbidden."""
    log = bed.cluster.log
    assert log
    mark = log.mark()
    with bed.deployed(overlay, tmp_path, ISSUERS[overlay]) as installation:
        source, target = mirrored(user)
        wait_for("pods are rewritten", lambda: rewrites(user, source, target))
        assert image_of(user.pod("app", source)) == target
        for pod in installation.pods:
            assert pod.probe("livenessProbe")
            assert pod.probe("startupProbe")
            assert "mirrorstream_" in pod.get("/metrics")[1]
        for pod in installation.pods:
            assert pod.process.stop() == 0, pod.process.tail()
            assert "Traceback" not in pod.process.log(), pod.process.tail()
    requests = [request for request in log.since(mark) if request.user.startswith(f"system:serviceaccount:{NAMESPACE}:")]
    assert requests
    assert not [request for request in requests if request.forbidden]


def everything(bed: Bed) -> set[str]:
    """All objects of the cluster, but for those that come and go by themselves."""
    found = set()
    for group in ["/api/v1", *(f"/apis/{g['preferredVersion']['groupVersion']}" for g in bed.client.get("/apis")["groups"])]:
        for resource in bed.client.get(group).get("resources") or []:
            if "list" not in resource["verbs"] or resource["name"] in COME_AND_GO:
                continue
            items = bed.client.get(f"{group}/{resource['name']}").get("items") or []
            found |= {f"{group} {resource['name']} {i['metadata'].get('namespace', '')}/{i['metadata']['name']}" for i in items}
    return found


@pytest.mark.parametrize("overlay", ["dev", "openshift"])
def test_removing_it_leaves_nothing(overlay: str, bed: Bed, tmp_path: Path) -> None:
    """In the guide's order: the webhook configuration first, so that it never stands without its Service."""
    before = everything(bed)
    with bed.deployed(overlay, tmp_path, ISSUERS[overlay]) as installation:
        assert everything(bed) - before
        installation.remove()
    assert everything(bed) - before == set()


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
    folder = CONFIG.parent / "bundle" / "manifests"
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
