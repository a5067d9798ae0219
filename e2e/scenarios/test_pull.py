"""The point of it all: the internal registry serves a healed tag, and pulls what it lacks through from the mirror."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from e2e.backends import OPENSHIFT
from e2e.registry import digest_of
from e2e.scenarios.cluster import Cluster, Namespace, tag
from e2e.scenarios.conftest import Start
from e2e.scenarios.roles import PULL, account_with

SKOPEO = shutil.which("skopeo")


@pytest.fixture
def internal(cluster: Cluster) -> Cluster:
    """A cluster with an internal registry that we can reach."""
    if cluster.backend != OPENSHIFT:
        pytest.skip("only OpenShift's own components have an internal registry")
    if not SKOPEO:
        pytest.skip("skopeo is not installed")
    return cluster


@pytest.mark.parametrize("kind", ["docker", "oci", "list"])
@pytest.mark.parametrize("by", ["tag", "digest"])
def test_a_healed_tag_is_pulled_with_all_its_layers(
    ns: Namespace, internal: Cluster, start: Start, tmp_path: Path, kind: str, by: str
) -> None:
    """The upstream is dead; skopeo, with a service account's token, gets the manifest and every blob from the internal registry."""
    digest = ns.put("good", "app:v1", kind)
    ns.digest_mirrors()
    start()
    preserved = {"importMode": "PreserveOriginal"} if kind == "list" else {}
    ns.create("app", tag("v1", ns.source("app:v1"), importPolicy=preserved))
    ns.wait_healed("app", "v1", digest)
    repository = ns.get("app")["status"]["dockerImageRepository"]
    source = f"docker://{repository}:v1" if by == "tag" else f"docker://{repository}@{digest}"
    token = account_with(ns.client, ns.name, "puller", [PULL])
    folder = tmp_path / "pulled"
    command = [str(SKOPEO), "--override-os=linux", "--override-arch=amd64", "copy", "--quiet", "--insecure-policy"]
    command += ["--src-tls-verify=false", f"--src-creds=unused:{token}", *(["--all"] if kind == "list" else [])]
    done = subprocess.run([*command, source, f"dir:{folder}"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    pulled = (folder / "manifest.json").read_bytes()
    assert digest_of(pulled) == digest
    for manifest in [pulled, *(path.read_bytes() for path in folder.glob("*.manifest.json"))]:
        content = json.loads(manifest)
        for part in [*content.get("layers", []), *([content["config"]] if "config" in content else [])]:
            blob = (folder / part["digest"].removeprefix("sha256:")).read_bytes()
            assert digest_of(blob) == part["digest"]
    if kind == "list":
        assert len(list(folder.glob("*.manifest.json"))) == 2, "one for each architecture"
