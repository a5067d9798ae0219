"""The commands of users who may not see, or do, everything; and as a plugin of kubectl."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
from mirrorstream.kube.client import ApiError, load_client

from e2e.scenarios.conftest import Start
from e2e.testbed.cluster import Cluster, Namespace
from e2e.testbed.controlplane.build import components
from e2e.testbed.every_state import STATES, every_kind, requests_of
from e2e.testbed.installation import with_token
from e2e.testbed.programs.commands import Commands
from e2e.testbed.programs.program import PROGRAM
from e2e.testbed.roles import VIEW, account_with
from e2e.testbed.streams import IMAGE_API, tag
from e2e.testbed.support.waiting import wait_for


@pytest.fixture
def viewer(ns: Namespace, authorized: Cluster, tmp_path: Path) -> Commands:
    """Commands of an account that has `view` in the scenario's namespace, and nothing anywhere else."""
    token = account_with(ns.client, ns.name, "viewer", VIEW)
    kubeconfig = with_token(tmp_path / "viewer.kubeconfig", authorized.kubeconfig, token)
    client = load_client(str(kubeconfig), in_cluster=False, user_agent="test")

    def allowed() -> bool:
        try:
            client.get(f"{IMAGE_API}/namespaces/{ns.name}/imagestreams")
        except ApiError:
            return False
        return True

    wait_for("the role is in force", allowed)
    return Commands(kubeconfig, tmp_path)


def test_a_viewer_gets_a_useful_answer_by_reads_alone(ns: Namespace, authorized: Cluster, start: Start, viewer: Commands) -> None:
    """What may not be seen is said; the audit log has nothing but reads, and none of a Secret."""
    start()
    every_kind(ns)
    assert authorized.log
    mark = authorized.log.mark()
    found = viewer("status", "-n", ns.name, "-o", "json")
    assert found.status == 3, found
    tags = found.tags()
    # A caller who may not list mirror sets cannot know that an image has none.
    assert {name: one["state"] for name, one in tags.items()} == {**STATES, "nowhere:v1": "failing"}
    assert tags["app:v1"]["through"] == f"{ns.mirror()}/app:v1"
    assert tags["app:v2"]["candidates"] is None
    assert [a["failure"] for a in tags["app:v2"]["tried"]["candidates"]] == ["not-found"]
    assert not found.document["rules"]["known"]
    assert any("you may not list imagecontentsourcepolicies" in note for note in found.document["notes"])
    text = viewer("status", "-n", ns.name)
    assert "Mirror rules: you have no permission to list them" in text.out
    missing = viewer("missing", "-n", ns.name, "-o", "json")
    states = {image["image"]: image["state"] for image in missing.document["images"]}
    assert states[ns.source("app:v2")] == "missing"
    story = viewer("explain", f"{ns.name}/app:v2")
    assert story.status == 0, story
    assert f"{ns.mirror()}/app:v2  not-found" in story.out
    assert "Mirror rules: you have no permission to list them" in story.out
    assert "Rule: none" not in story.out
    everywhere = viewer("status", "-A")
    assert (everywhere.status, everywhere.out) == (1, "")
    assert everywhere.err.count("\n") == 1
    assert "forbidden" in everywhere.err
    requests = requests_of(authorized, mark, ns)
    assert {entry["verb"] for entry in requests} == {"get", "list"}
    assert "secrets" not in {entry["objectRef"]["resource"] for entry in requests}


def test_a_viewer_may_not_retry_and_is_told_so(ns: Namespace, authorized: Cluster, viewer: Commands) -> None:
    """One clear error; nothing has been written."""
    ns.create("app", tag("v1", ns.source("app:v1")))
    ns.wait_failed("app", "v1")
    before = ns.get("app")
    found = viewer("retry", "-n", ns.name, "app")
    assert (found.status, found.out) == (1, "")
    assert found.err.startswith(f"mirrorstream: you may not import images into {ns.name}/app: ")
    assert found.err.count("\n") == 1
    assert ns.get("app") == before


def test_an_editor_retries(ns: Namespace, authorized: Cluster, start: Start, tmp_path: Path) -> None:
    """The rights of `oc import-image` and of `oc annotate` are enough."""
    ns.put("good", "app:other")
    ns.digest_mirrors()
    start(controller={"retry": {"initialSeconds": 200, "maximumSeconds": 300}})
    ns.create("app", tag("v1", ns.source("app:v1")))
    ns.wait_event("app", "MirrorImportFailed")
    streams = ["imagestreams", "imagestreamimports", "imagestreamtags"]
    rules = [*VIEW, {"apiGroups": ["image.openshift.io"], "resources": streams, "verbs": ["create", "update", "patch"]}]
    token = account_with(ns.client, ns.name, "viewer", rules)
    run = Commands(with_token(tmp_path / "editor.kubeconfig", authorized.kubeconfig, token), tmp_path)
    ns.put("good", "app:v1")
    assert authorized.log
    mark = authorized.log.mark()
    wait_for("the role is in force", lambda: run("status", "-n", ns.name).status == 3)
    found = run("retry", "-n", ns.name, "app", "--wait", "30s")
    ns.wrote("app")
    assert found.status == 0, found
    assert found.out.startswith(f"{ns.name}/app:v1  healed  through {ns.cluster.host('good')}")
    writes = {
        (e["verb"], e["objectRef"]["resource"]) for e in requests_of(authorized, mark, ns) if e["verb"] not in ("get", "list")
    }
    assert writes == {("create", "imagestreamimports"), ("patch", "imagestreams")}


@pytest.fixture
def plugin(authorized: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Run `kubectl …` with our programs on the path."""
    program = components() / "kubectl"
    monkeypatch.setenv("PATH", f"{PROGRAM.parent}:/usr/bin:/bin")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)

    def kubectl(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(program), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)

    return kubectl


def test_as_a_plugin_of_kubectl(ns: Namespace, authorized: Cluster, plugin: Any) -> None:
    """`kubectl mirrorstream …`, and the same with oc; the usage line shows it, and the shell completes it."""
    ns.digest_mirrors()
    ns.create("app", tag("v1", ns.source("app:v1")))
    ns.wait_failed("app", "v1")
    done = plugin("mirrorstream", "status", "-n", ns.name, "--kubeconfig", str(authorized.kubeconfig))
    assert done.returncode == 3, done
    assert f"{ns.name}/app:v1" in done.stdout
    assert "usage: kubectl mirrorstream status" in plugin("mirrorstream", "status", "--help").stdout
    completed = plugin("__complete", "mirrorstream", "status", "-o", "")
    assert completed.stdout.split() == ["text", "json", "yaml", ":4"], completed
