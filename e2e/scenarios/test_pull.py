"""The point of it all: the internal registry serves a healed tag, and pulls what it lacks through from the mirror."""

import json
import shutil
import subprocess
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from e2e.scenarios.conftest import Start
from e2e.testbed.backends import EXISTING, PLANES
from e2e.testbed.cluster import Cluster, Namespace
from e2e.testbed.registries.store import digest_of
from e2e.testbed.streams import tag
from e2e.testbed.support.waiting import wait_for

SKOPEO = shutil.which("skopeo")


@pytest.fixture
def internal(cluster: Cluster) -> Cluster:
    """A cluster with an internal registry that we can reach."""
    if cluster.backend == EXISTING:
        pytest.skip("this machine does not reach the internal registry of an existing cluster")
    if not SKOPEO:
        pytest.skip("skopeo is not installed")
    return cluster


def pull(ns: Namespace, reference: str, token: str, folder: Path, *, everything: bool = False) -> subprocess.CompletedProcess[str]:
    """`skopeo copy` with a service account's token, or as nobody with an empty one; `everything`: each image of a list."""
    command = [str(SKOPEO), "--override-os=linux", "--override-arch=amd64", "copy", "--quiet", "--insecure-policy"]
    command += ["--src-tls-verify=false", *(["--all"] if everything else [])]
    command.append(f"--src-creds=unused:{token}" if token else "--src-no-creds")
    source = f"docker://{ns.cluster.registry_here(reference)}"
    return subprocess.run([*command, source, f"dir:{folder}"], capture_output=True, text=True, check=False, timeout=300)


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
    folder = tmp_path / "pulled"
    done = pull(ns, f"{repository}:v1" if by == "tag" else f"{repository}@{digest}", ns.puller(), folder, everything=kind == "list")
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


INSECURE_STREAM = {"openshift.io/image.insecureRepository": "true"}


@pytest.mark.parametrize(
    ("kind", "policy", "annotations", "served"),
    [
        pytest.param("docker", {}, {}, False, id="the-image-config-alone"),
        pytest.param("docker", {"insecure": True}, {}, True, id="the-tag"),
        pytest.param("docker", {}, INSECURE_STREAM, True, id="the-stream"),
        pytest.param("list", {"insecure": True, "importMode": "PreserveOriginal"}, {}, False, id="a-list-of-an-insecure-tag"),
        pytest.param("list", {"importMode": "PreserveOriginal"}, INSECURE_STREAM, True, id="a-list-of-an-insecure-stream"),
    ],
)
def test_what_makes_a_source_insecure_for_the_registry(
    ns: Namespace,
    internal: Cluster,
    tmp_path: Path,
    kind: str,
    policy: dict[str, Any],
    annotations: dict[str, str],
    served: bool,
) -> None:
    """The source speaks HTTP. insecureRegistries has it, so the platform imports; no tag makes the parts of a list insecure."""
    ns.cluster.put("good", f"{ns.name}/app", "v1", kind)
    ns.create("app", tag("v1", ns.source("app:v1", "good"), importPolicy=policy), annotations=annotations)
    digest = str(ns.wait_healed("app", "v1")["image"])
    done = pull(ns, f"{ns.get('app')['status']['dockerImageRepository']}@{digest}", ns.puller(), tmp_path / "pulled")
    assert (done.returncode == 0) is served, done.stderr


@pytest.mark.parametrize("last", [True, False])
def test_of_tags_with_one_image_the_last_says_if_it_is_insecure(
    ns: Namespace, internal: Cluster, tmp_path: Path, last: bool
) -> None:
    """The registry is asked for a digest, and does not know for which tag."""
    ns.cluster.put("good", f"{ns.name}/app", "v1")
    tags = [
        tag(name, ns.source("app:v1", "good"), importPolicy={"insecure": name == "insecure"}) for name in ("insecure", "secure")
    ]
    first, second = reversed(tags) if last else tags
    ns.create("app", first)
    created = ns.wait_healed("app", first["name"])["created"]
    wait_for("another second", lambda: time.time() > datetime.fromisoformat(created).timestamp() + 1)
    ns.change("app", lambda stream: stream["spec"]["tags"].append(second))
    digest = str(ns.wait_healed("app", second["name"])["image"])
    done = pull(ns, f"{ns.get('app')['status']['dockerImageRepository']}@{digest}", ns.puller(), tmp_path / "pulled")
    assert (done.returncode == 0) is last, done.stderr


def test_the_registry_asks_for_the_right_to_that_very_stream(
    ns: Namespace, internal: Cluster, start: Start, tmp_path: Path
) -> None:
    """A role that names one stream is enough for it, and for no other."""
    if internal.backend not in PLANES:
        pytest.skip("needs RBAC")
    ns.put("good", "app:v1")
    ns.digest_mirrors()
    start()
    for name in ("one", "two"):
        ns.create(name, tag("v1", ns.source("app:v1")))
        ns.wait_healed(name, "v1")
    token = ns.puller("puller", "one")
    repositories = {name: ns.get(name)["status"]["dockerImageRepository"] for name in ("one", "two")}
    done = pull(ns, f"{repositories['one']}:v1", token, tmp_path / "one")
    assert done.returncode == 0, done.stderr
    refused = pull(ns, f"{repositories['two']}:v1", token, tmp_path / "two")
    assert refused.returncode != 0
    assert "unauthorized" in refused.stderr


def test_nobody_may_pull_until_everybody_may(ns: Namespace, internal: Cluster, start: Start, tmp_path: Path) -> None:
    """Without credentials a client is system:anonymous."""
    ns.put("good", "app:v1")
    ns.digest_mirrors()
    start()
    ns.create("app", tag("v1", ns.source("app:v1")))
    ns.wait_healed("app", "v1")
    reference = f"{ns.get('app')['status']['dockerImageRepository']}:v1"
    refused = pull(ns, reference, "", tmp_path / "refused")
    assert refused.returncode != 0, refused.stdout
    ns.allow_pulls(anonymous=True)
    wait_for("nobody in particular may pull", lambda: pull(ns, reference, "", tmp_path / "pulled").returncode == 0, step=0.5)
