"""`check` asks the mirrors before the upstream goes; under what `suggest` prints the platform imports scheduled tags by itself."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from mirrorstream.diagnose.suggest import NAME
from mirrorstream.kube.client import ApiError

from e2e.scenarios.conftest import Start
from e2e.testbed.backends import SCHEDULED_SECONDS
from e2e.testbed.cluster import Cluster, Namespace
from e2e.testbed.installation import RBAC, with_token
from e2e.testbed.mirrorsets import MIRROR_SETS
from e2e.testbed.programs.commands import Commands, Ran
from e2e.testbed.registries.registry import FAILURES, Failure
from e2e.testbed.roles import VIEW, account_with
from e2e.testbed.streams import following, tag
from e2e.testbed.support.imageset import check_imageset
from e2e.testbed.support.waiting import wait_for

Object = dict[str, Any]


@pytest.fixture
def run(cluster: Cluster, tmp_path: Path) -> Commands:
    """Run a command as an administrator."""
    return Commands(cluster.kubeconfig, tmp_path)


def fates(found: Ran) -> dict[str, str]:
    """The fate of each tag."""
    return {name: one["fate"] for name, one in found.tags().items()}


def test_what_is_foretold_comes_true(ns: Namespace, start: Start, run: Commands) -> None:
    """Tags that the source serves now: the mirrors are asked for all of them, the source for none. Then the source goes."""
    source = ns.cluster.registries.servers["other"]
    for image, kind in (("app:v1", "docker"), ("multi:v1", "list"), ("late:v1", "docker")):
        repository, _, name = image.partition(":")
        ns.cluster.put("other", f"{ns.name}/{repository}", name, kind, f"{ns.name}/{image}")
    digest = ns.put("good", "app:v1")
    ns.put("good", "multi:v1", "list")
    ns.digest_mirrors(source=f"{ns.cluster.host('other')}/{ns.name}")
    multi = {"importPolicy": {"importMode": "PreserveOriginal"}}
    ns.create(
        "app",
        tag("v1", ns.source("app:v1", "other")),
        tag("late", ns.source("late:v1", "other")),
        tag("multi", ns.source("multi:v1", "other"), **multi),
        tag("digest", ns.source(f"app@{digest}", "other")),
        following("latest", "late"),
        {**tag("ref", ns.source("app:v1", "other")), "reference": True},
    )
    for name in ("v1", "late", "multi", "digest"):
        ns.wait_healed("app", name)
    before, asked = ns.get("app"), dict(source.requests)
    found = run("check", "-n", ns.name, "-o", "json")
    assert found.status == 3, found
    assert fates(found) == {"app:v1": "survives", "app:late": "lost", "app:multi": "survives", "app:digest": "survives"}
    assert found.tags()["app:late"]["followers"] == ["latest"]
    assert found.tags()["app:v1"]["digest"] == digest
    assert found.document["summary"]["skipped"]["reference"] == 1
    assert ns.get("app") == before
    assert dict(source.requests) == asked, "the source is not asked"
    text = run("check", "-n", ns.name)
    assert text.status == 3
    assert "1 lost, 3 survive; 4 tags in 1 stream" in text.out
    made = run("check", "-n", ns.name, "-o", "imageset")
    assert check_imageset(made.document) == [ns.source("late:v1", "other")]

    for repository in ("app", "multi", "late"):
        source.failures[f"{ns.name}/{repository}"] = Failure(close=True)
    start()
    for name, one in found.tags().items():
        stream, _, tag_name = name.partition(":")
        again = f"{tag_name}-again"
        spec = next(t for t in before["spec"]["tags"] if t["name"] == tag_name)
        ns.create(again, tag(tag_name, spec["from"]["name"], importPolicy=spec["importPolicy"]))
        if one["fate"] == "survives":
            assert ns.wait_healed(again, tag_name)["image"] == one["digest"], stream
        else:
            ns.wait_event(again, "MirrorImportFailed")


def test_each_mirrors_answer_is_told(ns: Namespace, run: Commands) -> None:
    """A mirror that wants other credentials, one that is down, one that has it; a source that is blocked, one without a rule."""
    ns.put("good", "app:v1")
    refusing = f"{ns.cluster.host('other')}/refuses-{ns.name}"
    ns.cluster.registries.servers["other"].failures[f"refuses-{ns.name}/app"] = FAILURES["unauthorized"]
    dead = f"{ns.cluster.host('dead')}/nothing-{ns.name}"
    ns.digest_mirrors(refusing, dead, ns.mirror())
    ns.digest_mirrors(source=f"{ns.cluster.host('blocked')}/{ns.name}")
    ns.create("app", tag("v1", ns.source("app:v1")), tag("v2", ns.source("app:v2")))
    ns.create("blocked", tag("v1", ns.source("app:v1", "blocked")))
    ns.create("nowhere", tag("v1", f"{ns.cluster.host('dead')}/elsewhere-{ns.name}/app:v1"))
    ns.create("whole", dockerImageRepository=ns.source("app"))
    found = run("check", "-n", ns.name, "-o", "json")
    assert found.status == 3, found
    assert fates(found) == {
        "app:v1": "survives",
        "app:v2": "lost",
        "blocked:v1": "lost",
        "nowhere:v1": "lost",
        "whole:": "survives",
    }
    tags = found.tags()
    answers = {answer["reference"].partition("/app")[0]: answer["failure"] for answer in tags["app:v2"]["candidates"]}
    assert answers == {refusing: "unauthorized", dead: "unreachable", ns.mirror(): "not-found"}
    assert tags["app:v1"]["through"] == f"{ns.mirror()}/app:v1"
    assert "blocked" in tags["blocked:v1"]["why"]
    assert tags["nowhere:v1"]["why"] == "no rule covers it"


def test_a_newer_releases_samples_are_checked_from_files(ns: Namespace, run: Commands, tmp_path: Path) -> None:
    """With the namespace's rights and secrets, and without a trace."""
    ns.put("good", "app:v1")
    ns.digest_mirrors()
    items: list[Object] = [
        {
            "apiVersion": "image.openshift.io/v1",
            "kind": "ImageStream",
            "metadata": {"name": name},
            "spec": {"tags": [tag("v1", ns.source(f"{name}:v1"))]},
        }
        for name in ("app", "newer")
    ]
    (tmp_path / "samples").mkdir()
    for item in items:
        (tmp_path / "samples" / f"{item['metadata']['name']}.json").write_text(json.dumps(item))
    found = run("check", "-n", ns.name, "--file", str(tmp_path / "samples"), "-o", "json")
    assert found.status == 3, found
    assert fates(found) == {"app:v1": "survives", "newer:v1": "lost"}
    assert ns.streams() == []


@contextlib.contextmanager
def rules_shown_to(ns: Namespace, *accounts: str) -> Iterator[None]:
    """Let accounts of the namespace list mirror sets and the Image config, which are the cluster's."""
    name = f"{ns.name}-rules"
    rules = [{"apiGroups": ["config.openshift.io", "operator.openshift.io"], "resources": ["*"], "verbs": ["list", "get"]}]
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
    subjects = [{"kind": "ServiceAccount", "name": account, "namespace": ns.name} for account in accounts]
    ns.client.request("POST", f"{RBAC}/clusterroles", body={"metadata": {"name": name}, "rules": rules})
    try:
        body = {"metadata": {"name": name}, "roleRef": reference, "subjects": subjects}
        ns.client.request("POST", f"{RBAC}/clusterrolebindings", body=body)
        yield
        ns.client.request("DELETE", f"{RBAC}/clusterrolebindings/{name}")
    finally:
        ns.client.request("DELETE", f"{RBAC}/clusterroles/{name}")


def test_who_may_import_may_check(ns: Namespace, authorized: Cluster, tmp_path: Path) -> None:
    """The right to create imagestreamimports is enough, and a viewer without it gets one clear line."""
    ns.put("good", "app:v1")
    ns.digest_mirrors()
    ns.create("app", tag("v1", ns.source("app:v1")))
    ns.wait_failed("app", "v1")
    editor = [{"apiGroups": ["image.openshift.io"], "resources": ["imagestreamimports"], "verbs": ["create"]}]
    runs = {}
    for name, rules in (("viewer", VIEW), ("editor", [*VIEW, *editor])):
        token = account_with(ns.client, ns.name, name, rules)
        runs[name] = Commands(with_token(tmp_path / f"{name}.kubeconfig", authorized.kubeconfig, token), tmp_path)
    with rules_shown_to(ns, *runs):
        found = wait_for(
            "the editor's roles are in force", lambda: ran if not (ran := runs["editor"]("check", "-n", ns.name)).status else None
        )
        assert "every tag survives" in found.out
        told = wait_for(
            "the viewer's, too", lambda: ran if "import" in (ran := runs["viewer"]("check", "-n", ns.name)).err else None
        )
        assert (told.status, told.out) == (1, "")
        assert told.err.startswith(f"mirrorstream: you may not import images into {ns.name}: ")
        assert told.err.count("\n") == 1


def test_a_mirror_outside_the_allow_list_is_asked_by_who_may_create_images(
    ns: Namespace, authorized: Cluster, tmp_path: Path, run: Commands
) -> None:
    """The platform does not ask it for anybody else; mirrorstream may, so the tag heals, and `check` says that it cannot tell."""
    ns.put("disallowed", "app:v1")
    ns.digest_mirrors(ns.mirror("disallowed"))
    ns.create("app", tag("v1", ns.source("app:v1")))
    ns.create("whole", dockerImageRepository=ns.source("app"))
    ns.wait_failed("app", "v1")
    editor = [{"apiGroups": ["image.openshift.io"], "resources": ["imagestreamimports"], "verbs": ["create"]}]
    token = account_with(ns.client, ns.name, "editor", [*VIEW, *editor])
    by_editor = Commands(with_token(tmp_path / "editor.kubeconfig", authorized.kubeconfig, token), tmp_path)
    host = ns.cluster.host("disallowed")
    why = f"{host} is not in spec.allowedRegistriesForImport of the Image config: only an account that may create images"
    with rules_shown_to(ns, "editor"):
        told = wait_for(
            "the editor's roles are in force",
            lambda: ran if why in (ran := by_editor("check", "-n", ns.name, "-o", "json")).out else None,
        )
    assert fates(told) == {"app:v1": "unknown", "whole:": "unknown"}
    assert told.out.count(why) == 2, "the tag's and the repository's"
    assert fates(run("check", "-n", ns.name, "-o", "json")) == {"app:v1": "survives", "whole:": "survives"}


def apply(ns: Namespace, documents: list[Object]) -> None:
    """Create mirror sets, as `oc apply` does where there are none of the name."""
    for document in documents:
        version, plural, _ = MIRROR_SETS[document["kind"]]
        ns.client.request("POST", f"/apis/{version}/{plural}", body=document)


def remove(ns: Namespace) -> None:
    """Delete what was applied."""
    for kind in ("ImageTagMirrorSet", "ImageDigestMirrorSet"):
        version, plural, _ = MIRROR_SETS[kind]
        with contextlib.suppress(ApiError):
            ns.client.request("DELETE", f"/apis/{version}/{plural}/{NAME}")


def test_under_the_suggestion_the_platform_imports_by_itself(ns: Namespace, start: Start, run: Commands) -> None:
    """A scheduled tag that only mirrorstream heals; then mirrorstream is away, and the next scheduled import succeeds.

    Nodes pull digests from the mirrors as before.
    """
    digest = ns.put("good", "tools/jenkins:v1")
    ns.digest_mirrors(never=True)
    controller = start()
    ns.create("jenkins", tag("scheduled", ns.source("tools/jenkins:v1"), importPolicy={"scheduled": True}))
    ns.wait_healed("jenkins", "scheduled", digest)
    listed = f"  {ns.name}/jenkins:scheduled\n"

    def told() -> bool:
        """Between a turn and its heal, which here is much of the time, the tag is simply failing."""
        out = run("status", "-n", ns.name).out
        return "Failing at each scheduled import" in out and listed in out

    wait_for("status lists it", told)
    by_digest = f"{ns.source('tools/jenkins')}@{digest}"
    before = run("explain", by_digest, "-o", "json").document["explanations"][0]["pullSources"]
    assert len(before) == 2

    suggested = run("suggest", "-n", ns.name)
    assert suggested.status == 0, suggested
    documents = [document for document in yaml.safe_load_all(suggested.out) if document]
    assert [document["kind"] for document in documents] == ["ImageDigestMirrorSet", "ImageTagMirrorSet"]
    for document in documents:
        ((entry,),) = document["spec"].values()
        assert entry == {
            "source": ns.source("tools"),
            "mirrors": [f"{ns.mirror()}/tools"],
            "mirrorSourcePolicy": "NeverContactSource",
        }
    try:
        apply(ns, documents)
        assert controller.stop() == 0
        ns.wait_healed("jenkins", "scheduled", ns.put("good", "tools/jenkins:v1", seed="newer"), seconds=SCHEDULED_SECONDS * 6)
        ns.create("fresh", tag("v1", ns.source("tools/jenkins:v1")))
        ns.wait_healed("fresh", "v1")
        after = run("explain", by_digest, "-o", "json").document["explanations"][0]["pullSources"]
        assert [source["reference"] for source in after] == [source["reference"] for source in before]
        assert [source["blocked"] for source in after] == [False, True]
        assert run("suggest", "-n", ns.name).out.startswith("# Nothing to suggest")
    finally:
        remove(ns)
