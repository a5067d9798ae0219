"""Whose an item is: of two tags with the same image, mirrorstream may have recorded one and the platform imported the other."""

import json
from datetime import UTC, datetime

from e2e.scenarios.conftest import Start
from e2e.testbed.cluster import Namespace
from e2e.testbed.streams import tag
from e2e.testbed.support.waiting import wait_for


def test_of_two_tags_with_one_image_each_has_its_own_importer(ns: Namespace, start: Start) -> None:
    """What the platform imported is held in a short outage; what came through the mirror is replaced at once."""
    digest = ns.put("good", "app:v1", seed=f"{ns.name}/same")
    assert ns.cluster.put("other", f"{ns.name}/app", "v1", seed=f"{ns.name}/same") == digest
    ns.digest_mirrors()
    ns.digest_mirrors(source=f"{ns.cluster.host('other')}/{ns.name}")
    start(mirrors={"bypassNotFound": True})
    ns.create("ours", tag("v1", ns.source("app:v1")))
    ours = ns.wait_healed("ours", "v1", digest)
    # An item is known by its image and the second in which it was made.
    wait_for("another second", lambda: datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") > ours["created"])
    ns.create("theirs", tag("v1", ns.source("app:v1", "other")))
    theirs = ns.wait_healed("theirs", "v1", digest)
    annotations = ns.image(digest)["metadata"]["annotations"]
    assert json.loads(annotations["mirrorstream.github.io/recorded"]) == {ours["created"]: ns.cluster.host("good")}
    assert ns.name not in json.dumps(annotations)
    stale = ns.put("good", "app:v1", seed="stale")
    ns.cluster.registries.stores["other"].remove(f"{ns.name}/app", "v1")
    ns.cluster.put("other", f"{ns.name}/app", "another")
    ns.import_image("theirs", "v1", ns.source("app:v1", "other"))
    ns.wait_event("theirs", "MirrorImportHeld")
    ns.import_image("ours", "v1", ns.source("app:v1"))
    ns.wait_healed("ours", "v1", stale)
    kept = ns.tag_status("theirs", "v1")["items"][0]
    assert (kept["image"], kept["dockerImageReference"]) == (digest, theirs["dockerImageReference"])
