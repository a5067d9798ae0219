"""Imports of the platform that do not end: nothing is recorded of them, and the mirrors serve."""

from e2e.scenarios.conftest import Start
from e2e.testbed.cluster import Cluster, Namespace
from e2e.testbed.registries.registry import Failure, Registry
from e2e.testbed.streams import following, tag
from e2e.testbed.support.waiting import wait_for


def test_an_import_that_hangs_and_leaves_no_condition(ns: Namespace, simulated: Cluster, start: Start) -> None:
    """stuckAfterSeconds: then the mirrors serve, and when the platform's import fails after all, they serve again."""
    digest = ns.put("good", "app:v1")
    ns.digest_mirrors()
    simulated.control("import-controller", {"hang": {simulated.host("dead"): True}})
    try:
        start(controller={"stuckAfterSeconds": 1.5})
        ns.create("app", tag("v1", ns.source("app:v1")), following("latest", "v1"))
        ns.stays("pending", lambda: not ns.tag_status("app", "v1"), seconds=1)
        item = ns.wait_healed("app", "v1", digest)
        ns.wait_healed("app", "latest", digest)
        assert item["generation"] == ns.spec_tag("app", "v1")["generation"]
    finally:
        simulated.control("import-controller", {"hang": {simulated.host("dead"): False}})
    ns.stays("the platform is content", lambda: ns.healed("app", "v1", digest))
    ns.import_image("app", "v1", ns.source("app:v1"))

    def healed_since() -> bool:
        newest = ns.healed("app", "v1", digest)
        return newest is not None and newest["generation"] > item["generation"]

    wait_for("healed once more", healed_since)
    assert len(ns.tag_status("app", "v1")["items"]) == 1


def test_a_source_that_greets_and_then_hangs(ns: Namespace, start: Start) -> None:
    """The platform waits for it without a limit, and imports no other tag of the stream; the mirrors serve all of them."""
    with Registry() as hanging:
        hanging.failures[f"{ns.name}/app"] = Failure(seconds=600)
        source = f"{hanging.host.replace('localhost', '127.0.0.1')}/{ns.name}"
        digest, other = ns.put("good", "app:v1"), ns.put("good", "other:v1", seed="other")
        ns.digest_mirrors(source=source)
        insecure = {"importPolicy": {"insecure": True}}
        ns.create("app", tag("v1", f"{source}/app:v1", **insecure), tag("v2", ns.source("other:v1")))
        wait_for("the platform asks", lambda: hanging.requests[f"{ns.name}/app"])
        ns.stays("pending", lambda: not ns.tag_status("app", "v1"), seconds=5)
        ns.digest_mirrors()
        start(controller={"stuckAfterSeconds": 1})
        ns.wait_healed("app", "v1", digest)
        ns.wait_healed("app", "v2", other)
    ns.stays("the platform's import, which ends now, changes nothing", lambda: ns.healed("app", "v1", digest), seconds=3)
