"""What operators ask and do from the command line, with the real program: status, missing, retry, explain, completion."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
from mirrorstream.attempts import Result
from mirrorstream.kube.client import ApiError, load_client

from e2e.backends import SIMULATOR
from e2e.controlplane.build import components
from e2e.imageset import check_imageset
from e2e.scenarios.audit import AuditLog
from e2e.scenarios.cluster import IMAGE_API, Cluster, Namespace, following, tag
from e2e.scenarios.commands import Commands, Ran
from e2e.scenarios.conftest import Start
from e2e.scenarios.installation import with_token
from e2e.scenarios.program import PROGRAM
from e2e.scenarios.roles import account_with
from e2e.waiting import wait_for

VIEW = [
    {
        "apiGroups": ["image.openshift.io"],
        "resources": ["imagestreams", "imagestreamtags", "imagestreamimages"],
        "verbs": ["get", "list", "watch"],
    },
    {"apiGroups": [""], "resources": ["events", "configmaps", "pods"], "verbs": ["get", "list", "watch"]},
]
"""What OpenShift's role `view` gives of what matters here."""
Run = Commands


@pytest.fixture
def run(cluster: Cluster, tmp_path: Path) -> Run:
    """Run a command as an administrator."""
    return Commands(cluster.kubeconfig, tmp_path)


def every_kind(ns: Namespace) -> None:
    """Streams with a tag in each state, under a controller that runs."""
    ns.put("good", "app:v1")
    ns.digest_mirrors()
    ns.digest_mirrors(source=f"{ns.cluster.host('blocked')}/{ns.name}")
    ns.create("app", tag("v1", ns.source("app:v1")), tag("v2", ns.source("app:v2")), following("latest", "v2"))
    ns.create("blocked", tag("v1", ns.source("app:v1", "blocked")))
    ns.create("mine", tag("v1", ns.source("app:v1")), annotations={"mirrorstream.github.io/import": "disabled"})
    ns.create("nowhere", tag("v1", f"{ns.cluster.host('dead')}/elsewhere-{ns.name}/app:v1"))
    ns.create("whole", dockerImageRepository=ns.source("whole"))
    ns.wait_healed("app", "v1")
    ns.wait_event("app", "ImportedFromMirror")
    ns.wait_event("app", "MirrorImportFailed", "tag v2")
    ns.wait_event("blocked", "MirrorImportRefused")
    ns.wait_event("whole", "MirrorImportFailed")
    ns.wait_failed("mine", "v1")
    ns.wait_failed("nowhere", "v1")


STATES = {
    "app:v1": "healed",
    "app:v2": "failing",
    "blocked:v1": "refused",
    "mine:v1": "opted-out",
    "nowhere:v1": "unmirrored",
    "whole:": "failing",
}


def test_status_tells_tags_apart(ns: Namespace, start: Start, run: Run) -> None:
    """What should heal, what must not, what nobody mirrors, what was opted out, and what healed; what each candidate answered."""
    start()
    every_kind(ns)
    found = run("status", "-n", ns.name, "-o", "json")
    assert found.status == 3, found
    tags = found.tags()
    assert {name: one["state"] for name, one in tags.items()} == STATES
    assert tags["app:v1"]["through"] == f"{ns.mirror()}/app:v1"
    failing = tags["app:v2"]
    assert failing["since"]
    assert failing["failure"]["class"] == "unreachable"
    assert failing["followers"] == ["latest"]
    assert failing["tried"]["result"] == Result.FAILED
    (answer,) = failing["tried"]["candidates"]
    assert (answer["reference"], answer["failure"]) == (f"{ns.mirror()}/app:v2", "not-found")
    assert answer["mirrorSet"] == failing["candidates"][0]["mirrorSet"]
    assert "blocked" in tags["blocked:v1"]["why"]
    rules = found.document["rules"]
    assert {f"ImageDigestMirrorSet/{name}" for name in ns.mirror_set_names()} <= {item["object"] for item in rules["objects"]}
    text = run("status", "-n", ns.name)
    assert text.status == 3
    assert "\x1b" not in text.out
    for name in STATES:
        assert f"{ns.name}/{name.removesuffix(':')}" in text.out
    everywhere = run("status", "-A", "-o", "yaml")
    assert everywhere.status == 3
    assert ns.name in {one["namespace"] for one in everywhere.document["tags"]}


def test_status_without_a_controller_says_what_the_rules_give(ns: Namespace, run: Run) -> None:
    """Nothing is known to have been tried, and that is said."""
    ns.digest_mirrors()
    ns.create("app", tag("v1", ns.source("app:v1")))
    ns.wait_failed("app", "v1")
    found = run("status", "-n", ns.name)
    assert found.status == 3
    assert "nothing, as far as Events tell" in found.out
    assert f"{ns.mirror()}/app:v1" in found.out
    missing = run("missing", "-n", ns.name, "-o", "json")
    assert [image["state"] for image in missing.document["images"]] == ["unknown"]
    assert missing.status == 3


def test_status_waits_until_everything_has_healed(ns: Namespace, start: Start, run: Run) -> None:
    """A script mirrors what is missing, waits, and goes on."""
    ns.put("good", "app:other")
    ns.digest_mirrors()
    start()
    ns.create("app", tag("v1", ns.source("app:v1")))
    ns.wait_event("app", "MirrorImportFailed")
    too_short = run("status", "-n", ns.name, "--wait", "1s")
    assert too_short.status == 3, too_short
    waiting = run.start("status", "-n", ns.name, "--wait", "1m", "-o", "json")
    ns.put("good", "app:v1")
    found = run.finish(waiting, seconds=70)
    assert found.status == 0, found
    assert {name: one["state"] for name, one in found.tags().items()} == {"app:v1": "healed"}


def test_a_held_tag_is_neither_broken_nor_missing(ns: Namespace, start: Start, run: Run) -> None:
    """It keeps what the source served; every command says so, and nobody waits for it."""
    upstream = ns.cluster.put("other", f"{ns.name}/app", "v1", seed=f"{ns.name}/upstream")
    ns.put("good", "app:v1", seed="stale")
    ns.digest_mirrors()
    start(controller={"replaceAfterSeconds": 600})
    ns.create("app", tag("v1", ns.source("app:v1", "other")))
    ns.wait_healed("app", "v1", upstream)
    dead = {"kind": "DockerImage", "name": ns.source("app:v1")}
    ns.change("app", lambda stream: stream["spec"]["tags"][0].update({"from": dead}))
    ns.wait_event("app", "MirrorImportHeld")
    found = run("status", "-n", ns.name, "--wait", "1m", "-o", "json")
    assert found.status == 3, found
    held = found.tags()["app:v1"]
    assert (held["state"], held["image"].partition("@")[2]) == ("held", upstream)
    assert f"{ns.mirror()}/app:v1 serves another image than the source did" in held["why"]
    assert run("missing", "-n", ns.name).status == 0
    retried = run("retry", "-n", ns.name, "app:v1")
    ns.wrote("app")
    assert retried.status == 3
    assert retried.out.startswith(f"{ns.name}/app:v1  held  {ns.mirror()}/app:v1 serves another image"), retried
    assert "keeps the image of before for now" in run("explain", f"{ns.name}/app:v1").out


def test_missing_names_what_is_to_be_mirrored(ns: Namespace, start: Start, run: Run) -> None:
    """What no mirror has, apart from what a mirror could not be asked about; and the file for oc-mirror."""
    start()
    every_kind(ns)
    dead = f"{ns.cluster.host('dead')}/nothing-{ns.name}"
    ns.digest_mirrors(ns.mirror(), dead, source=ns.source("half"))
    ns.create("half", tag("v1", ns.source("half:v1")))
    ns.wait_event("half", "MirrorImportFailed", f"nothing-{ns.name}")
    found = run("missing", "-n", ns.name, "-o", "json")
    assert found.status == 3, found
    images = {image["image"]: image for image in found.document["images"]}
    lacking, unmirrored = ns.source("app:v2"), f"{ns.cluster.host('dead')}/elsewhere-{ns.name}/app:v1"
    assert {name: image["state"] for name, image in images.items()} == {
        lacking: "missing",
        unmirrored: "missing",
        ns.source("half:v1"): "unknown",
        ns.source("whole"): "missing",
    }
    assert images[ns.source("whole")]["repository"]
    assert images[lacking]["tags"] == [f"{ns.name}/app:v2"]
    assert "could not say: unreachable" in images[ns.source("half:v1")]["why"]
    made = run("missing", "-n", ns.name, "-o", "imageset")
    assert made.status == 3
    assert check_imageset(made.document) == [lacking]
    assert f"{unmirrored} is left out: no mirror rule is known to cover it" in made.err
    everything = run("missing", "-n", ns.name, "-o", "imageset", "--uncovered")
    assert check_imageset(everything.document) == sorted([lacking, unmirrored])
    assert f"{ns.source('half:v1')} is left out" in made.err
    assert ns.source("half:v1") not in made.out
    assert "no mirror rule covers it" in run("missing", "-n", ns.name).out


def test_missing_says_when_nothing_is(ns: Namespace, start: Start, run: Run) -> None:
    """Exit status 0, and an image set that is valid all the same."""
    ns.put("good", "app:v1")
    ns.digest_mirrors()
    start()
    ns.create("app", tag("v1", ns.source("app:v1")))
    ns.wait_healed("app", "v1")
    found = run("missing", "-n", ns.name, "-o", "imageset")
    assert found.status == 0, found
    assert check_imageset(found.document) == []


def test_retry_heals_through_a_mirror_that_has_the_image_now(ns: Namespace, start: Start, run: Run) -> None:
    """Without waiting for the back-off: the platform's own import fails as before, and the annotation is what is seen."""
    ns.put("good", "app:other")
    ns.digest_mirrors()
    start(controller={"retry": {"initialSeconds": 200, "maximumSeconds": 300}})
    ns.create("app", tag("v1", ns.source("app:v1")), tag("v2", ns.source("app:v2")), following("latest", "v1"))
    ns.wait_event("app", "MirrorImportFailed", "tag v1")
    ns.wait_event("app", "MirrorImportFailed", "tag v2")
    ns.put("good", "app:v1")
    found = run("retry", "-n", ns.name, "app:latest", "--wait", "30s")
    ns.wrote("app")
    assert found.status == 0, found
    # The whole reference only if its Event is there already.
    assert found.out.startswith(f"{ns.name}/app:v1  healed  through {ns.cluster.host('good')}"), found
    again = run("retry", "-n", ns.name, "app")
    ns.wrote("app")
    assert again.status == 3, again
    assert again.out.startswith(f"{ns.name}/app:v2  still failing  unreachable: ")
    assert f"{ns.mirror()}/app:v2: not-found" in again.out
    assert again.out.count("\n") == 1 + again.out.count("Note:"), "one line for each tag that was failing, and the notes"


def test_retry_tells_what_the_platform_imports_and_what_is_refused(ns: Namespace, start: Start, run: Run) -> None:
    """Each outcome in a line of its own."""
    start()
    every_kind(ns)
    source = ns.source("late:v1", "good")
    ns.create("late", tag("v1", source, importPolicy={"importMode": "PreserveOriginal"}))
    ns.wait_failed("late", "v1")
    digest = ns.cluster.put("good", f"{ns.name}/late", "v1")
    found = run("retry", f"{ns.name}/late")
    assert (found.status, found.out.partition("\n")[0]) == (
        0, f"{ns.name}/late:v1  imported by the platform  {ns.source('late', 'good')}@{digest}",
    ), found  # fmt: skip
    assert ns.spec_tag("late", "v1")["importPolicy"] == {"importMode": "PreserveOriginal"}
    for stream, says in {
        "blocked": "refused",
        "mine": "mirrorstream.github.io/import says so",
        "nowhere": "no mirror covers the source",
    }.items():
        outcome = run("retry", "-n", ns.name, stream)
        ns.wrote(stream)
        assert outcome.status == 3, outcome
        assert says in outcome.out


def test_retry_of_a_whole_repository_tells_what_became_of_it(ns: Namespace, start: Start, run: Run) -> None:
    """One line while it fails, and one for each of its tags once it has some."""
    ns.digest_mirrors()
    start(controller={"retry": {"initialSeconds": 200, "maximumSeconds": 300}})
    ns.create("whole", dockerImageRepository=ns.source("whole"))
    ns.wait_event("whole", "MirrorImportFailed")
    failing = run("retry", "-n", ns.name, "whole")
    assert failing.status == 3, failing
    assert failing.out.startswith(f"{ns.name}/whole  still failing  unknown: the platform's import of the repository left no tag; ")
    ns.put("good", "whole:one")
    ns.put("good", "whole:two")
    healed = run("retry", "-n", ns.name, "whole", "--wait", "30s")
    ns.wrote("whole")
    assert (healed.status, healed.out.splitlines()[:2]) == (
        0, [f"{ns.name}/whole:{name}  healed  through {ns.mirror()}/whole:{name}" for name in ("one", "two")],
    ), healed  # fmt: skip


def test_explain_tells_the_whole_story(ns: Namespace, start: Start, run: Run) -> None:
    """Why it failed, what was tried, what came of it, who follows."""
    start()
    every_kind(ns)
    healed = run("explain", f"{ns.name}/app:v1", "-o", "json").document["explanations"][0]["tag"]
    assert (healed["state"], healed["through"]) == ("healed", f"{ns.mirror()}/app:v1")
    assert healed["tried"]["result"] == Result.IMPORTED
    failing = run("explain", f"{ns.name}/app:latest")
    assert failing.status == 0
    for part in ("unreachable", f"{ns.mirror()}/app:v2  not-found", "followed by:  latest", "latest follows v2"):
        assert part in failing.out, failing.out
    refused = run("explain", f"{ns.name}/blocked")
    assert "must not import it through a mirror" in refused.out
    assert "is blocked by" in refused.out


# A user with little.


@pytest.fixture
def viewer(ns: Namespace, authorized: Cluster, tmp_path: Path) -> Run:
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


def _requests(cluster: Cluster, mark: int, ns: Namespace) -> list[Any]:
    """What the viewer asked for with our program."""
    assert isinstance(cluster.log, AuditLog)
    user = f"system:serviceaccount:{ns.name}:viewer"
    entries = cluster.log.entries(mark)
    return [e for e in entries if e["user"]["username"] == user and e["userAgent"].startswith("kubectl-mirrorstream")]


def test_a_viewer_gets_a_useful_answer_by_reads_alone(ns: Namespace, authorized: Cluster, start: Start, viewer: Run) -> None:
    """What may not be seen is said; the audit log has nothing but reads, and none of a Secret."""
    start()
    every_kind(ns)
    assert authorized.log
    mark = authorized.log.mark()
    found = viewer("status", "-n", ns.name, "-o", "json")
    assert found.status == 3, found
    tags = found.tags()
    # Whoever sees no mirror set cannot tell that there is none for an image.
    assert {name: one["state"] for name, one in tags.items()} == {**STATES, "nowhere:v1": "failing"}
    assert tags["app:v1"]["through"] == f"{ns.mirror()}/app:v1"
    assert tags["app:v2"]["candidates"] is None
    assert [a["failure"] for a in tags["app:v2"]["tried"]["candidates"]] == ["not-found"]
    assert not found.document["rules"]["known"]
    assert any("you may not list imagecontentsourcepolicies" in note for note in found.document["notes"])
    text = viewer("status", "-n", ns.name)
    assert "Mirror rules: not to be seen by you" in text.out
    missing = viewer("missing", "-n", ns.name, "-o", "json")
    states = {image["image"]: image["state"] for image in missing.document["images"]}
    assert states[ns.source("app:v2")] == "missing"
    story = viewer("explain", f"{ns.name}/app:v2")
    assert story.status == 0, story
    assert f"{ns.mirror()}/app:v2  not-found" in story.out
    assert "Mirror rules: not to be seen by you" in story.out
    assert "Rule: none" not in story.out
    everywhere = viewer("status", "-A")
    assert (everywhere.status, everywhere.out) == (1, "")
    assert everywhere.err.count("\n") == 1
    assert "forbidden" in everywhere.err
    requests = _requests(authorized, mark, ns)
    assert {entry["verb"] for entry in requests} == {"get", "list"}
    assert "secrets" not in {entry["objectRef"]["resource"] for entry in requests}


def test_a_viewer_may_not_retry_and_is_told_so(ns: Namespace, authorized: Cluster, viewer: Run) -> None:
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
    writes = {(e["verb"], e["objectRef"]["resource"]) for e in _requests(authorized, mark, ns) if e["verb"] not in ("get", "list")}
    assert writes == {("create", "imagestreamimports"), ("patch", "imagestreams")}


def test_read_only_commands_read_only(ns: Namespace, start: Start, run: Run) -> None:
    """Whoever asks changes nothing, has no registry asked, and reads no Secret."""
    if ns.cluster.backend != SIMULATOR:
        pytest.skip("administrators are not in the audit log")
    ns.put("good", "app:other")
    ns.digest_mirrors()
    ns.create("app", tag("v1", ns.source("app:v1")))
    ns.wait_failed("app", "v1")
    mark = ns.client.get("/simulator/requests")["last"]
    before: Ran = run("status", "-n", ns.name)
    run("missing", "-A")
    run("explain", f"{ns.name}/app")
    assert before.status == 3
    answer = ns.client.get("/simulator/requests", {"since": str(mark), "userAgent": "^kubectl-mirrorstream"})
    assert answer["requests"]
    assert {request["verb"] for request in answer["requests"]} <= {"get", "list"}
    assert not [request for request in answer["requests"] if "/secrets" in request["path"]]


# As a plugin.


@pytest.fixture
def plugin(authorized: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Run `kubectl …` with our programs on the path."""
    program = components() / "kubectl"
    monkeypatch.setenv("PATH", f"{PROGRAM.parent}:/usr/bin:/bin")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)

    def kubectl(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(program), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    return kubectl


def test_as_a_plugin_of_kubectl(ns: Namespace, authorized: Cluster, plugin: Any) -> None:
    """`kubectl mirrorstream …`, and with oc the same; usage says so, and the shell completes it."""
    ns.digest_mirrors()
    ns.create("app", tag("v1", ns.source("app:v1")))
    ns.wait_failed("app", "v1")
    done = plugin("mirrorstream", "status", "-n", ns.name, "--kubeconfig", str(authorized.kubeconfig))
    assert done.returncode == 3, done
    assert f"{ns.name}/app:v1" in done.stdout
    assert "usage: kubectl mirrorstream status" in plugin("mirrorstream", "status", "--help").stdout
    completed = plugin("__complete", "mirrorstream", "status", "-o", "")
    assert completed.stdout.split() == ["text", "json", "yaml", ":4"], completed
