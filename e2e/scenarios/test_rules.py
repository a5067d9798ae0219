"""Mirror rules that come, change and go, and clusters that lack some of them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from e2e.scenarios.conftest import Start
from e2e.testbed.backends import SIMULATOR
from e2e.testbed.cluster import Cluster, Namespace
from e2e.testbed.installation import Permission
from e2e.testbed.programs.program import Controller
from e2e.testbed.streams import following, tag
from e2e.testbed.support.waiting import wait_for


def test_rules_that_come_change_and_go(ns: Namespace, start: Start) -> None:
    """A new rule heals what had failed; a changed one too; without it nothing is tried."""
    first, second = ns.put("good", "one:v1"), ns.put("other", "two:v1")
    running = start(controller={"retry": {"initialSeconds": 600, "maximumSeconds": 600}})
    ns.create("one", tag("v1", ns.source("one:v1")))
    ns.create("two", tag("v1", ns.source("two:v1")))
    ns.wait_failed("one", "v1")
    rule = ns.digest_mirrors(ns.mirror("good"))
    ns.wait_healed("one", "v1", first)
    ns.wait_event("two", "MirrorImportFailed")
    ns.change_mirrors(rule, ns.mirror("other"))
    ns.wait_healed("two", "v1", second)
    known = len(running.lines("applied mirror rules"))
    ns.remove_mirror_set(rule)
    wait_for("the rule is gone for the controller, too", lambda: len(running.lines("applied mirror rules")) > known)
    ns.put("other", "three:v1")
    ns.create("three", tag("v1", ns.source("three:v1")))
    ns.wait_failed("three", "v1")
    ns.stays("failed", lambda: ns.failure("three", "v1"))


def test_a_bad_mirror_set_never_disables_another(ns: Namespace, start: Start) -> None:
    """What cannot be used is named in the log, by object and field; the rest counts."""
    if ns.cluster.backend != SIMULATOR:
        pytest.skip("the API server's own validation refuses malformed mirror sets")
    digest = ns.put("good", "app:v1")
    bad = ns.mirror_set("ImageDigestMirrorSet", f"{ns.cluster.host('dead')}/{ns.name}", "https://not a mirror", ns.mirror())
    path = "/apis/config.openshift.io/v1/imagedigestmirrorsets"
    ns.client.request("POST", path, body={"metadata": {"name": f"{ns.name}-worse"}, "spec": {"imageDigestMirrors": "nonsense"}})
    try:
        running = start()
        ns.create("app", tag("v1", ns.source("app:v1")))
        ns.wait_healed("app", "v1", digest)
        warnings = running.lines("part of a mirror rule cannot be used")
        assert {(w["object"], w["field"]) for w in warnings} >= {
            (f"ImageDigestMirrorSet/{bad}", "spec.imageDigestMirrors[0].mirrors[0]"),
            (f"ImageDigestMirrorSet/{ns.name}-worse", "spec.imageDigestMirrors"),
        }
    finally:
        ns.client.request("DELETE", f"{path}/{ns.name}-worse")


def test_an_importer_that_knows_no_mirrors(ns: Namespace, own_cluster: Callable[..., Cluster], start: Start) -> None:
    """Older platforms ignore mirror sets altogether: streams that name digests heal, an operator's and Jenkins' of old."""
    old = own_cluster(lambda settings: replace(settings, importer=replace(settings.importer, ignore_mirror_sets=True)))
    with old.namespace() as there:
        digest = there.put("good", "release:jenkins")
        there.digest_mirrors()
        start(on=old, namespaces={})
        there.create("jenkins", tag("2", f"{there.source('release')}@{digest}"), following("latest", "2"))
        there.wait_healed("jenkins", "2", digest)
        there.wait_healed("jenkins", "latest", digest)
        there.check_untouched()


@pytest.mark.parametrize("without", [("imagedigestmirrorsets", "imagetagmirrorsets"), ("imagecontentsourcepolicies",)], ids=str)
def test_a_cluster_without_some_mirror_kinds(
    ns: Namespace, own_cluster: Callable[..., Cluster], start: Start, without: tuple[str, ...]
) -> None:
    """Older clusters lack IDMS and ITMS, newer ones may lack ICSP: what there is counts."""
    other = own_cluster(without=without)
    kind = "ImageContentSourcePolicy" if "imagedigestmirrorsets" in without else "ImageDigestMirrorSet"
    with other.namespace() as there:
        digest = there.put("good", "app:v1")
        there.mirror_set(kind, f"{other.host('dead')}/{there.name}", there.mirror())
        start(on=other, namespaces={})
        there.create("app", tag("v1", there.source("app:v1")))
        there.wait_healed("app", "v1", digest)


def test_a_cluster_without_imagestreams_is_said_and_waited_for(own_cluster: Callable[..., Cluster], tmp_path: Any) -> None:
    """Not OpenShift, or its API server is not up yet: never ready, never ended, one clear line."""
    other = own_cluster(without=("image.openshift.io",))
    running = Controller(other.program, tmp_path, {}, "--no-leader-election")
    try:
        wait_for("it answers", lambda: _answers(running))
        wait_for("readiness names the kind", lambda: "does not serve imagestreams.image.openshift.io" in running.get("/readyz")[1])
        assert running.get("/readyz")[0] == 503
        assert running.get("/healthz")[0] == 200
        assert running.stop() == 0
        assert len([1 for line in running.log().splitlines() if "does not serve imagestreams" in line]) == 1, "said once"
    finally:
        running.process.kill()


def _answers(running: Controller) -> bool:
    try:
        return running.get("/healthz")[0] == 200
    except OSError:
        return False


def test_an_image_config_that_may_not_be_read_stops_imports(own_cluster: Callable[..., Cluster], tmp_path: Any) -> None:
    """What must not be imported is unknown then: not ready, and it says which object it cannot read."""
    other = own_cluster()
    other.forbid(Permission("config.openshift.io", "images", "list"))
    running = Controller(other.program, tmp_path, {}, "--no-leader-election")
    try:
        wait_for("it answers", lambda: _answers(running))
        wait_for("readiness names the kind", lambda: "images.config.openshift.io" in running.get("/readyz")[1])
        assert running.get("/readyz")[0] == 503
    finally:
        running.process.kill()
