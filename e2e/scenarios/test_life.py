"""What happens over time: retries, schedules, changed rules, users and the platform writing at the same moment, faults."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from e2e.scenarios.conftest import Start
from e2e.testbed.audit import Request
from e2e.testbed.backends import SCHEDULED_SECONDS, SIMULATOR
from e2e.testbed.cluster import Cluster, Namespace
from e2e.testbed.installation import Permission
from e2e.testbed.registries.registry import Failure, Registry
from e2e.testbed.streams import tag
from e2e.testbed.support.waiting import wait_for

RETRY = "mirrorstream.github.io/retry"


def _mark(cluster: Cluster) -> int:
    assert cluster.log
    return cluster.log.mark()


def _count(requests: list[Request], verb: str, path: str) -> int:
    return sum(1 for request in requests if request.verb == verb and path in request.path)


def test_a_heal_costs_four_requests(ns: Namespace, observed: Cluster, start: Start) -> None:
    """A dry run and an Image for each tag, one GET and one status PUT for each stream and pass."""
    for number in range(3):
        ns.put("good", f"app:v{number}")
    ns.digest_mirrors()
    ns.create("app", *(tag(f"v{number}", ns.source(f"app:v{number}")) for number in range(3)))
    ns.wait_failed("app", "v2")
    first = _mark(observed)
    start()
    for number in range(3):
        ns.wait_healed("app", f"v{number}")
    made = [r for r in observed.requests(first) if f"{ns.name}/imagestream" in r.path]
    counted = {(r.verb, r.path.rsplit("/", 1)[1]) for r in made}
    assert counted == {("create", "imagestreamimports"), ("get", "app"), ("update", "status")}
    assert _count(made, "create", "imagestreamimports") == 3
    assert _count(made, "get", "imagestreams/app") == 1
    if observed.backend == SIMULATOR:  # elsewhere other scenarios run at the same time, and Images have no namespace
        assert _count(observed.requests(first), "create", "v1/images") == 3
    assert _count(made, "update", "imagestreams/app/status") == 1


def test_import_image_after_a_heal_heals_again(ns: Namespace, start: Start) -> None:
    """The failure comes back at a new generation and goes again, with the mirror's present image."""
    ns.put("good", "app:v1", seed="one")
    ns.digest_mirrors()
    start()
    ns.create("app", tag("v1", ns.source("app:v1")))
    first = ns.wait_healed("app", "v1")
    digest = ns.put("good", "app:v1", seed="two")
    ns.import_image("app", "v1", ns.source("app:v1"))
    second = ns.wait_healed("app", "v1", digest)
    assert second["generation"] > first["generation"]
    assert [item["image"] for item in ns.tag_status("app", "v1")["items"]] == [digest, first["image"]], "history is kept"


def test_the_retry_annotation_asks_at_once(ns: Namespace, start: Start) -> None:
    """Nobody can see a repeated `oc import-image`; the annotation is seen."""
    ns.digest_mirrors()
    start(controller={"retry": {"initialSeconds": 600, "maximumSeconds": 600}})
    ns.create("app", tag("v1", ns.source("app:v1")))
    ns.wait_event("app", "MirrorImportFailed")
    digest = ns.put("good", "app:v1")
    ns.stays("failed", lambda: ns.failure("app", "v1"), seconds=1)
    ns.annotate("app", RETRY, "1")
    ns.wait_healed("app", "v1", digest)


def test_scheduled_tags_are_recorded_once_an_interval(ns: Namespace, observed: Cluster, start: Start) -> None:
    """Every interval the platform fails again and puts the condition back: one write each, no loop."""
    digest = ns.put("good", "app:v1")
    ns.digest_mirrors()
    start()
    ns.create("app", tag("v1", ns.source("app:v1"), importPolicy={"scheduled": True}))
    ns.wait_healed("app", "v1", digest)
    first = _mark(observed)
    started = ns.spec_tag("app", "v1")["generation"]
    wait_for("three intervals", lambda: ns.spec_tag("app", "v1")["generation"] >= started + 3, seconds=SCHEDULED_SECONDS * 6)
    ns.wait_healed("app", "v1", digest)
    generations = ns.spec_tag("app", "v1")["generation"] - started
    writes = _count(observed.requests(first), "update", f"{ns.name}/imagestreams/app/status")
    assert generations - 1 <= writes <= generations + 1
    assert len(ns.tag_status("app", "v1")["items"]) == 1, "the same image adds nothing to the history"


def test_a_scheduled_tag_by_digest_is_imported_once(ns: Namespace, start: Start) -> None:
    """The platform repeats its import until there is an item of the tag's generation: a heal ends that, too."""
    pinned, digest = ns.put("good", "pinned:v1"), ns.put("good", "app:v1")
    ns.tag_mirrors(f"{ns.mirror()}/pinned", source=ns.source("pinned"))
    ns.digest_mirrors(f"{ns.mirror()}/app", source=ns.source("app"))
    start()
    scheduled = {"importPolicy": {"scheduled": True}}
    ns.create("app", tag("pinned", f"{ns.source('pinned')}@{pinned}", **scheduled), tag("v1", ns.source("app:v1"), **scheduled))
    ns.wait_healed("app", "pinned", pinned)
    ns.wait_healed("app", "v1", digest)
    turns = {name: ns.spec_tag("app", name)["generation"] for name in ("pinned", "v1")}
    wait_for("two turns", lambda: ns.spec_tag("app", "v1")["generation"] >= turns["v1"] + 2, seconds=SCHEDULED_SECONDS * 20)
    assert ns.healed("app", "pinned", pinned)
    assert ns.spec_tag("app", "pinned")["generation"] == turns["pinned"], "a failed import raises it"


def test_the_spec_changes_while_the_import_runs(ns: Namespace, start: Start) -> None:
    """What was fetched for the old reference is not recorded under the new one."""
    with Registry() as slow:
        slow.failures[f"{ns.name}/old"] = Failure(seconds=1.5)
        slow.put(f"{ns.name}/old", "v1", seed="old")
        _allow(ns, slow.host)
        digest = ns.put("good", "new:v1", seed="new")
        ns.digest_mirrors(f"{slow.host}/{ns.name}", ns.mirror())
        running = start()
        ns.create("app", tag("v1", ns.source("old:v1")))
        wait_for("the import runs", lambda: slow.requests[f"{ns.name}/old"])

        def point_elsewhere(stream: dict[str, Any]) -> None:
            stream["spec"]["tags"][0]["from"]["name"] = ns.source("new:v1")

        ns.change("app", point_elsewhere)
        ns.wait_healed("app", "v1", digest)
        assert [item["image"] for item in ns.tag_status("app", "v1")["items"]] == [digest]
        wait_for("one import is counted", lambda: running.metric("mirrorstream_imports_total", result="imported") == 1)


def test_a_stream_recreated_while_the_import_runs_is_another_one(ns: Namespace, start: Start) -> None:
    """Its uid differs: it starts from the beginning, and heals."""
    with Registry() as slow:
        slow.failures[f"{ns.name}/app"] = Failure(seconds=1)
        digest = slow.put(f"{ns.name}/app", "v1")
        _allow(ns, slow.host)
        ns.digest_mirrors(f"{slow.host}/{ns.name}")
        start()
        ns.create("app", tag("v1", ns.source("app:v1")))
        wait_for("the import runs", lambda: slow.requests[f"{ns.name}/app"])
        ns.delete("app")
        ns.create("app", tag("v1", ns.source("app:v1")), tag("v2", ns.source("app:v2")))
        ns.wait_healed("app", "v1", digest)
        assert len(ns.tag_status("app", "v1")["items"]) == 1
        ns.delete("app")


def test_conflicts_with_other_writers_lose_nothing(ns: Namespace, simulated: Cluster, start: Start) -> None:
    """The status write starts over from a fresh stream."""
    digest = ns.put("good", "app:v1")
    ns.digest_mirrors()
    running = start()
    simulated.control(
        "faults", {"verb": "update", "path": f"{ns.name}/imagestreams/app/status", "times": 3, "action": {"conflict": True}}
    )
    ns.create("app", tag("v1", ns.source("app:v1")))
    ns.wait_healed("app", "v1", digest)
    assert running.metric("mirrorstream_status_writes_total", outcome="written") == 1


@pytest.mark.parametrize(
    "action",
    [{"status": 500}, {"loseAnswer": True}, {"reset": True}, {"status": 429, "retryAfter": 1}, {"truncate": True}],
    ids=str,
)
def test_a_status_write_that_fails_is_made_again(ns: Namespace, simulated: Cluster, start: Start, action: dict[str, Any]) -> None:
    """An error, a lost answer, a cut connection: the tag heals, with one entry in its history."""
    digest = ns.put("good", "app:v1")
    ns.digest_mirrors()
    start()
    simulated.control("faults", {"verb": "update", "path": f"{ns.name}/imagestreams/app/status", "times": 1, "action": action})
    ns.create("app", tag("v1", ns.source("app:v1")))
    ns.wait_healed("app", "v1", digest)
    assert len(ns.tag_status("app", "v1")["items"]) == 1


def test_an_image_that_may_not_be_created_is_said(own_cluster: Callable[..., Cluster], start: Start) -> None:
    """Without the right to create images nothing is recorded; once it is there, the tag heals."""
    other = own_cluster()
    with other.namespace() as there:
        digest = there.put("good", "app:v1")
        there.digest_mirrors()
        give_back = other.forbid(Permission("image.openshift.io", "images", "create"))
        start(on=other, namespaces={})
        there.create("app", tag("v1", there.source("app:v1")))
        assert "forbidden" in there.wait_event("app", "MirrorImportFailed")
        assert there.failure("app", "v1")
        give_back()
        there.wait_healed("app", "v1", digest)


def test_a_status_write_that_admission_refuses_is_said(ns: Namespace, start: Start) -> None:
    """A LimitRange on images counts for us too; lifting it lets the tag heal."""
    digest = ns.put("good", "app:v1")
    ns.digest_mirrors()
    limits = {"limits": [{"type": "openshift.io/ImageStream", "max": {"openshift.io/images": "0"}}]}
    path = f"/api/v1/namespaces/{ns.name}/limitranges"
    ns.client.request("POST", path, body={"metadata": {"name": "images"}, "spec": limits})
    start()
    ns.create("app", tag("v1", ns.source("app:v1")))
    assert "openshift.io/images" in ns.wait_event("app", "MirrorImportRefused")
    assert ns.failure("app", "v1")
    ns.client.request("DELETE", f"{path}/images")
    ns.wait_healed("app", "v1", digest)


def test_the_upstream_comes_back(ns: Namespace, start: Start) -> None:
    """The platform's own import wins, and the history keeps what the mirror served."""
    mirrored = ns.put("good", "app:v1", seed="mirror")
    ns.digest_mirrors(source=f"{ns.cluster.host('other')}/{ns.name}")
    start(mirrors={"bypassNotFound": True})
    ns.create("app", tag("v1", ns.source("app:v1", "other")))
    ns.wait_healed("app", "v1", mirrored)
    upstream = ns.cluster.put("other", f"{ns.name}/app", "v1", seed=f"{ns.name}/upstream")
    ns.import_image("app", "v1", ns.source("app:v1", "other"))
    ns.wait_healed("app", "v1", upstream)
    assert [item["image"] for item in ns.tag_status("app", "v1")["items"]] == [upstream, mirrored]
    ns.stays("the upstream's", lambda: ns.healed("app", "v1", upstream))


def test_a_short_outage_never_rolls_a_tag_back(ns: Namespace, start: Start) -> None:
    """The mirror is stale: what the source served stays until the source has failed for replaceAfterSeconds."""
    upstream = ns.cluster.put("other", f"{ns.name}/app", "v1", seed=f"{ns.name}/upstream")
    stale = ns.put("good", "app:v1", seed="stale")
    ns.digest_mirrors(source=f"{ns.cluster.host('other')}/{ns.name}")
    running = start(controller={"replaceAfterSeconds": 4}, mirrors={"bypassNotFound": True})
    ns.create("app", tag("v1", ns.source("app:v1", "other")))
    ns.wait_healed("app", "v1", upstream)
    ns.cluster.registries.stores["other"].remove(f"{ns.name}/app", "v1")
    ns.cluster.put("other", f"{ns.name}/app", "another")
    ns.import_image("app", "v1", ns.source("app:v1", "other"))
    wait_for("it is held", lambda: running.lines("keeping the source's image: the source has not failed for long enough"))
    assert ns.tag_status("app", "v1")["items"][0]["image"] == upstream
    text = ns.wait_event("app", "MirrorImportHeld", f"{ns.mirror()}/app:v1 serves another image than the source did")
    assert text.endswith(stale)
    ns.wait_healed("app", "v1", stale)
    assert [item["image"] for item in ns.tag_status("app", "v1")["items"]] == [stale, upstream]


def test_an_outage_with_the_same_image_in_the_mirror_only_drops_the_failure(ns: Namespace, start: Start) -> None:
    """The item that the platform imported stays as it is."""
    upstream = ns.cluster.put("other", f"{ns.name}/app", "v1", seed=f"{ns.name}/same")
    assert ns.put("good", "app:v1", seed=f"{ns.name}/same") == upstream
    ns.digest_mirrors(source=f"{ns.cluster.host('other')}/{ns.name}")
    start(mirrors={"bypassNotFound": True})
    ns.create("app", tag("v1", ns.source("app:v1", "other")))
    before = ns.wait_healed("app", "v1", upstream)
    ns.cluster.registries.stores["other"].remove(f"{ns.name}/app", "v1")
    ns.cluster.put("other", f"{ns.name}/app", "another")
    ns.import_image("app", "v1", ns.source("app:v1", "other"))
    after = wait_for("a higher generation", lambda: _newer(ns.healed("app", "v1", upstream), before))
    assert {**after, "generation": 0} == {**before, "generation": 0}


def _newer(item: dict[str, Any] | None, than: dict[str, Any]) -> dict[str, Any] | None:
    return item if item and item["generation"] > than["generation"] else None


def test_a_watch_that_breaks_or_expires_misses_nothing(ns: Namespace, simulated: Cluster, start: Start) -> None:
    """Dropped watches resume, expired ones list again."""
    digest = ns.put("good", "app:v1")
    ns.digest_mirrors()
    start()
    simulated.control("drop-watches")
    ns.create("one", tag("v1", ns.source("app:v1")))
    ns.wait_healed("one", "v1", digest)
    simulated.control("faults", {"verb": "watch", "path": "imagestreams$", "times": 2, "action": {"gone": True}})
    simulated.control("compact")
    simulated.control("drop-watches")
    ns.create("two", tag("v1", ns.source("app:v1")))
    ns.wait_healed("two", "v1", digest)


def test_a_slow_tag_does_not_hold_up_the_others_of_its_stream(ns: Namespace, start: Start) -> None:
    """A stream whose slowest tag takes over two seconds is recorded in parts."""
    with Registry() as slow:
        slow.failures[f"{ns.name}/slow"] = Failure(seconds=2.5)
        slow.put(f"{ns.name}/slow", "v1")
        digest = slow.put(f"{ns.name}/quick", "v1")
        _allow(ns, slow.host)
        ns.digest_mirrors(f"{slow.host}/{ns.name}")
        start()
        ns.create("app", tag("quick", ns.source("quick:v1")), tag("slow", ns.source("slow:v1")))
        ns.wait_healed("app", "quick", digest)
        assert ns.failure("app", "slow")
        ns.wait_healed("app", "slow")


def test_a_slow_mirror_does_not_delay_a_fast_one(ns: Namespace, start: Start) -> None:
    """At most half of the imports go to one mirror host."""
    with Registry() as slow:
        slow.failure = Failure(seconds=8)
        _allow(ns, slow.host)
        digest = ns.put("good", "fast:v1")
        ns.digest_mirrors(f"{slow.host}/{ns.name}", source=f"{ns.cluster.host('dead')}/{ns.name}/slow")
        ns.digest_mirrors()
        start(controller={"concurrentImports": 4})
        names = [f"slow-{number}" for number in range(40)]
        for number, name in enumerate(names):
            ns.create(name, tag("v1", ns.source(f"slow/app{number}:v1")))
        wait_for("the slow mirror is busy", lambda: slow.requests.total() >= 2)
        ns.create("fast", tag("v1", ns.source("fast:v1")))
        ns.wait_healed("fast", "v1", digest)
        assert not all(ns.events(name, "MirrorImportFailed") for name in names), "some that came before it still wait"


def test_two_replicas_have_one_leader_and_hand_over(ns: Namespace, start: Start, own_account: Path) -> None:
    """The second does nothing until the first ends; then it takes over at once, since the lease was released."""
    digest = ns.put("good", "app:v1")
    ns.digest_mirrors()
    first = start("--namespace", ns.name, program=own_account)
    wait_for("the first leads", lambda: first.metric("mirrorstream_leader") == 1)
    second = start("--namespace", ns.name, program=own_account)
    ns.create("one", tag("v1", ns.source("app:v1")))
    ns.wait_healed("one", "v1", digest)
    assert second.metric("mirrorstream_leader") == 0
    assert "mirrorstream_failing_tags" in first.get("/metrics")[1]
    assert "mirrorstream_failing_tags" not in second.get("/metrics")[1], "it looks at no stream, and says nothing about any"
    assert not second.lines("importing through mirrors")
    lease = f"/apis/coordination.k8s.io/v1/namespaces/{ns.name}/leases/mirrorstream-controller"
    holder = ns.client.get(lease)["spec"]["holderIdentity"]
    assert first.stop() == 0
    assert ns.client.get(lease)["spec"]["holderIdentity"] != holder, "the lease was released"
    wait_for("the second leads", lambda: second.metric("mirrorstream_leader") == 1)
    ns.create("two", tag("v1", ns.source("app:v1")))
    ns.wait_healed("two", "v1", digest)


def test_changed_configuration_is_taken_over_and_a_broken_one_is_not(ns: Namespace, start: Start) -> None:
    """A reload needs no restart; an invalid file is reported and the old settings stay in force."""
    digest = ns.put("good", "app:v1")
    ns.digest_mirrors()
    running = start(namespaces={"include": [ns.name], "exclude": ["ms-*"]})
    ns.create("app", tag("v1", ns.source("app:v1")))
    ns.wait_failed("app", "v1")
    running.configure({"controller": {"namespaces": {"exlude": []}}})
    wait_for("it is reported", lambda: running.lines("invalid configuration, keeping the previous one"))
    assert ns.failure("app", "v1")
    assert running.metric("mirrorstream_configuration_last_reload_accepted") == 0
    running.configure({"controller": {"namespaces": {"include": [ns.name]}}})
    ns.wait_healed("app", "v1", digest)
    assert running.metric("mirrorstream_configuration_reloads_total", accepted="false") == 1
    assert running.metric("mirrorstream_configuration_last_reload_accepted") == 1


def test_users_and_the_platform_write_while_tags_heal(ns: Namespace, start: Start) -> None:
    """Annotations and imports in between: everything heals and nothing of theirs is lost."""
    digests = [ns.put("good", f"app:v{number}") for number in range(5)]
    ns.digest_mirrors()
    start()
    ns.create("app", *(tag(f"v{number}", ns.source(f"app:v{number}")) for number in range(5)))
    stop = threading.Event()

    def meddle() -> None:
        for number in range(10):
            ns.annotate("app", "example.com/meddling", str(number))
            ns.import_image("app", f"v{number % 5}", ns.source(f"app:v{number % 5}"))
            stop.wait(0.1)

    meddler = threading.Thread(target=meddle)
    meddler.start()
    meddler.join()
    for number, digest in enumerate(digests):
        ns.wait_healed("app", f"v{number}", digest)
    assert ns.get("app")["metadata"]["annotations"]["example.com/meddling"] == "9"


def _allow(ns: Namespace, host: str) -> None:
    """Make a registry of a scenario's own known to the cluster as insecure."""
    if not ns.cluster.is_ours:
        pytest.skip("the cluster's settings are not ours to change")
    ns.cluster.change_image_config(lambda spec: spec["registrySources"]["insecureRegistries"].append(host))
