"""Every recorded kind of failure, end to end: what the platform says of it, and whether the tag heals through its mirror."""

import json
import re
from contextlib import ExitStack

import pytest

from e2e.scenarios.conftest import Start
from e2e.testbed.cluster import Namespace
from e2e.testbed.documents import PROJECT
from e2e.testbed.registries.answers import KINDS
from e2e.testbed.registries.registry import Failure, Registry
from e2e.testbed.streams import tag

RECORDED = {
    row["id"]: row
    for row in map(json.loads, (PROJECT / "tests/data/failure-messages.jsonl").read_text(encoding="utf-8").splitlines())
}
BY_DEFAULT = {"network": True, "denied": True, "not-found": False, "content": False}
"""Which answers mirrorstream bypasses."""
DENIED_TOO = {**BY_DEFAULT, "denied": False}
"""The same with bypassDenied off."""


def test_the_test_bed_fails_in_every_recorded_way() -> None:
    """A kind that were missing here would not be tried."""
    assert set(KINDS) == set(RECORDED)


def _said(text: str, host: str) -> str:
    """A message as it was recorded; the ports of a connection are others each time."""
    return re.sub(r"127\.0\.0\.1:\d+->127\.0\.0\.1:\d+", "A->B", text).replace(host, "registry.example.com:5000")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("bypassed", [BY_DEFAULT, DENIED_TOO], ids=["by-default", "without-bypassDenied"])
def test_every_recorded_failure(ns: Namespace, start: Start, bypassed: dict[str, bool]) -> None:
    """The source could not be asked, or denied: the mirror's image. There is none, or it is not what it should be: nothing."""
    with ExitStack() as stack:
        hosts = {}
        for kind, answers in KINDS.items():
            source = stack.enter_context(Registry(failure=Failure(answers=answers)))
            repository = f"{kind}-{ns.name}/app"
            source.put(repository, "v1", seed=kind)
            # The loopback address is allowed by number, with every port.
            hosts[kind] = source.host.replace("localhost", "127.0.0.1")
            ns.cluster.put("good", f"mirror-{ns.name}/{repository}", "v1", seed=kind)
            ns.mirror_set("ImageDigestMirrorSet", hosts[kind], ns.mirror())
            ns.create(kind, tag("v1", f"{hosts[kind]}/{repository}:v1", importPolicy={"insecure": True}))
        for kind, host in hosts.items():
            condition, recorded = ns.wait_failed(kind, "v1"), RECORDED[kind]["condition"]
            said = _said(condition["message"], host).replace(f"{kind}-{ns.name}/app", "team/app")
            assert (condition["reason"], said) == (recorded["reason"], _said(recorded["message"], host)), kind
        start(mirrors={"bypassDenied": bypassed["denied"]})
        for kind in hosts:
            right = RECORDED[kind]["right"]
            if bypassed[right]:
                ns.wait_healed(kind, "v1")
                continue
            text = ns.wait_event(kind, "MirrorImportRefused")
            assert ns.failure(kind, "v1"), kind
            assert ("mirrors.bypassDenied is false" in text) is (right == "denied")


@pytest.mark.parametrize(("mirror", "by_mirror"), [("good", True), ("disallowed", False)])
def test_a_source_that_drops_packets_is_not_recorded(ns: Namespace, start: Start, mirror: str, by_mirror: bool) -> None:
    """The registry would ask it for every blob; where the mirror's own name may not be recorded, the source's is."""
    digest = ns.put(mirror, "app:v1")
    source = f"{ns.cluster.host('silent')}/{ns.name}"
    ns.digest_mirrors(ns.mirror(mirror), source=source)
    start()
    ns.create("app", tag("v1", f"{source}/app:v1"))
    name = ns.mirror(mirror) if by_mirror else source
    assert ns.wait_healed("app", "v1", digest, seconds=60)["dockerImageReference"] == f"{name}/app@{digest}"
    ns.import_image("app", "v1", f"{source}/app:v1")
    ns.wait_healed("app", "v1", digest, seconds=60)
    assert len(ns.tag_status("app", "v1")["items"]) == 1
