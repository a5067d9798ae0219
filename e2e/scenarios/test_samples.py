"""Streams of the samples operator: healed so that the operator's own report is right."""

import time
from datetime import datetime
from typing import Any

from e2e.scenarios.conftest import Start
from e2e.testbed.cluster import Namespace
from e2e.testbed.streams import tag

SEEN_SECONDS = 3.0
"""After how long the operator has seen a failure."""


def _manage(stream: dict[str, Any]) -> None:
    stream["metadata"]["labels"]["samples.operator.openshift.io/managed"] = "true"


def test_a_sample_fails_for_as_long_as_its_operator_needs(ns: Namespace, start: Start) -> None:
    """A tag without an image heals at once; one that has an image keeps its failure until the operator has seen it."""
    digest = ns.put("good", "app:v1")
    ns.digest_mirrors()
    ns.create("app", tag("v1", ns.source("app:v1")))
    ns.change("app", _manage)
    start()
    ns.wait_healed("app", "v1", digest)
    ns.import_image("app", "v1", ns.source("app:v1"))
    failed = datetime.fromisoformat(ns.wait_failed("app", "v1")["lastTransitionTime"]).timestamp()
    while time.time() < failed + SEEN_SECONDS:
        assert ns.failure("app", "v1"), "healed before the operator has seen the failure"
    ns.wait_healed("app", "v1", digest)
    assert len(ns.tag_status("app", "v1")["items"]) == 1
