"""What operators ask and do from the command line, with the real program: status, missing, retry, explain, completion."""

from pathlib import Path

import pytest
from mirrorstream.imagestream.outcomes import AttemptResult

from e2e.scenarios.conftest import Start
from e2e.testbed.backends import SIMULATOR
from e2e.testbed.cluster import Cluster, Namespace
from e2e.testbed.every_state import STATES, every_kind
from e2e.testbed.programs.commands import Commands, Ran
from e2e.testbed.registries.registry import Failure
from e2e.testbed.streams import following, tag
from e2e.testbed.support.imageset import check_imageset


@pytest.fixture
def run(cluster: Cluster, tmp_path: Path) -> Commands:
    """Run a command as an administrator."""
    return Commands(cluster.kubeconfig, tmp_path)


def test_status_tells_tags_apart(ns: Namespace, start: Start, run: Commands) -> None:
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
    assert failing["tried"]["result"] == AttemptResult.FAILED
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


def test_status_without_a_controller_says_what_the_rules_give(ns: Namespace, run: Commands) -> None:
    """Nothing is known to have been tried, and that is said."""
    ns.digest_mirrors()
    ns.create("app", tag("v1", ns.source("app:v1")))
    ns.wait_failed("app", "v1")
    found = run("status", "-n", ns.name)
    assert found.status == 3
    assert "no attempt is known from Events" in found.out
    assert f"{ns.mirror()}/app:v1" in found.out
    missing = run("missing", "-n", ns.name, "-o", "json")
    assert [image["state"] for image in missing.document["images"]] == ["unknown"]
    assert missing.status == 3


def test_status_waits_until_everything_has_healed(ns: Namespace, start: Start, run: Commands) -> None:
    """A script mirrors what is missing, waits, and goes on."""
    ns.put("good", "app:other")
    ns.digest_mirrors()
    start()
    ns.create("app", tag("v1", ns.source("app:v1")))
    ns.wait_event("app", "MirrorImportFailed")
    too_short = run("status", "-n", ns.name, "--wait", "1s")
    assert too_short.status == 3, too_short
    waiting = run.start("status", "-n", ns.name, "--wait", "3m", "-o", "json")
    ns.put("good", "app:v1")
    found = run.finish(waiting)
    assert found.status == 0, found
    assert {name: one["state"] for name, one in found.tags().items()} == {"app:v1": "healed"}


def test_a_held_tag_is_neither_broken_nor_missing(ns: Namespace, start: Start, run: Commands) -> None:
    """It keeps what the source served; every command says so, and nobody waits for it."""
    upstream = ns.cluster.put("other", f"{ns.name}/app", "v1", seed=f"{ns.name}/upstream")
    ns.put("good", "app:v1", seed="stale")
    ns.digest_mirrors(source=f"{ns.cluster.host('other')}/{ns.name}")
    start(controller={"replaceAfterSeconds": 600})
    source = ns.source("app:v1", "other")
    ns.create("app", tag("v1", source))
    ns.wait_healed("app", "v1", upstream)
    ns.cluster.registries.servers["other"].failures[f"{ns.name}/app"] = Failure(status=503)
    ns.import_image("app", "v1", source)
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


def test_missing_names_what_is_to_be_mirrored(ns: Namespace, start: Start, run: Commands) -> None:
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
    assert ": unreachable: " in images[ns.source("half:v1")]["why"]
    made = run("missing", "-n", ns.name, "-o", "imageset")
    assert made.status == 3
    assert check_imageset(made.document) == [lacking]
    for left_out in ("1 not known to be missing", "1 that no rule is known to cover", "1 for a whole repository"):
        assert left_out in made.err
    assert made.err.count("left out: ") == 1
    everything = run("missing", "-n", ns.name, "-o", "imageset", "--unmirrored")
    assert check_imageset(everything.document) == sorted([lacking, unmirrored])
    assert ns.source("half:v1") not in made.out
    assert ": no rule covers it\n" in run("missing", "-n", ns.name).out


def test_missing_says_when_nothing_is(ns: Namespace, start: Start, run: Commands) -> None:
    """Exit status 0, and an image set that is valid all the same."""
    ns.put("good", "app:v1")
    ns.digest_mirrors()
    start()
    ns.create("app", tag("v1", ns.source("app:v1")))
    ns.wait_healed("app", "v1")
    found = run("missing", "-n", ns.name, "-o", "imageset")
    assert found.status == 0, found
    assert check_imageset(found.document) == []


def test_retry_heals_through_a_mirror_that_has_the_image_now(ns: Namespace, start: Start, run: Commands) -> None:
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


def test_retry_tells_what_the_platform_imports_and_what_is_refused(ns: Namespace, start: Start, run: Commands) -> None:
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
        "mine": "mirrorstream.github.io/import is disabled",
        "nowhere": "no mirror covers the source",
    }.items():
        outcome = run("retry", "-n", ns.name, stream)
        ns.wrote(stream)
        assert outcome.status == 3, outcome
        assert says in outcome.out


def test_retry_of_a_whole_repository_tells_what_became_of_it(ns: Namespace, start: Start, run: Commands) -> None:
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
    healed = run("retry", "-n", ns.name, "whole", "--wait", "3m")
    ns.wrote("whole")
    assert (healed.status, healed.out.splitlines()[:2]) == (
        0, [f"{ns.name}/whole:{name}  healed  through {ns.cluster.host('good')}" for name in ("one", "two")],
    ), healed  # fmt: skip


def test_explain_tells_the_whole_story(ns: Namespace, start: Start, run: Commands) -> None:
    """Why it failed, what was tried, what came of it, who follows."""
    start()
    every_kind(ns)
    healed = run("explain", f"{ns.name}/app:v1", "-o", "json").document["explanations"][0]["tag"]
    assert (healed["state"], healed["through"]) == ("healed", f"{ns.mirror()}/app:v1")
    assert healed["tried"]["result"] == AttemptResult.IMPORTED
    failing = run("explain", f"{ns.name}/app:latest")
    assert failing.status == 0
    for part in ("unreachable", f"{ns.mirror()}/app:v2  not-found", "followed by:  latest", "latest follows v2"):
        assert part in failing.out, failing.out
    refused = run("explain", f"{ns.name}/blocked")
    assert "must not import it through a mirror" in refused.out
    assert "is blocked by" in refused.out


def test_read_only_commands_read_only(ns: Namespace, start: Start, run: Commands) -> None:
    """The commands change nothing, ask no registry and read no Secret."""
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
