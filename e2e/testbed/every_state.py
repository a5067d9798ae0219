"""Streams with a tag in each state, and what the commands ask for about them."""

from typing import Any

from e2e.testbed.audit import AuditLog
from e2e.testbed.cluster import Cluster, Namespace
from e2e.testbed.streams import following, tag


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


def requests_of(cluster: Cluster, mark: int, ns: Namespace) -> list[Any]:
    """What the viewer asked for with our program."""
    assert isinstance(cluster.log, AuditLog)
    user = f"system:serviceaccount:{ns.name}:viewer"
    entries = cluster.log.entries(mark)
    return [e for e in entries if e["user"]["username"] == user and e["userAgent"].startswith("kubectl-mirrorstream")]
