"""A tag and its pods go from `app:1` to `app:2` while the upstream is gone: never another version than the one that is named."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mirrorstream.kube.client import MERGE_PATCH

from e2e.scenarios.conftest import Hook, Start
from e2e.testbed.backends import SIMULATOR
from e2e.testbed.cluster import Namespace
from e2e.testbed.programs.installed import settled
from e2e.testbed.streams import tag
from e2e.testbed.support.waiting import wait_for
from e2e.testbed.two_versions import App
from e2e.testbed.workloads import deployment_body, images, originals, state

Object = dict[str, Any]
LOOKED_SECONDS = 4
"""How long pods are watched; a pod may have an image of another version only for a moment."""
MIRROR_SECONDS = 0.7
"""How long each answer of the mirror takes: for longer than that the tag keeps the image of the version before."""
DELAYS = (0.0, 0.1, 0.3, 0.6, 1.0)
"""Seconds between the two changes."""


@pytest.fixture
def app(ns: Namespace) -> App:
    """An app, and a mirror of its upstream."""
    ns.digest_mirrors(source=f"{ns.cluster.host('other')}/{ns.name}")
    return App(ns)


# The tag.


def test_a_tag_that_the_platform_imported_follows_its_new_source_at_once(app: App, start: Start) -> None:
    """Not after `replaceAfterSeconds`, which protects an image of the same source."""
    running = start()
    app.create()
    app.lose_upstream()
    app.bump()
    app.wait_followed()
    assert not running.lines("keeping the source's image: the source has not failed for long enough")


def test_a_controller_that_starts_after_the_change_follows_the_spec(app: App, start: Start) -> None:
    """It cannot know what happened before: the user wrote the spec."""
    first = start()
    app.create()
    app.lose_upstream()
    assert first.stop() == 0
    app.bump()
    app.ns.wait_failed(app.name, "now")
    start()
    app.wait_followed()


def test_a_new_leader_follows_a_change_from_before_it_led(app: App, start: Start, own_account: Path) -> None:
    """The leader dies with the change unseen; the replica that stood by has watched."""
    first = start("--namespace", app.ns.name, program=own_account)
    wait_for("the first leads", lambda: first.metric("mirrorstream_leader") == 1)
    second = start("--namespace", app.ns.name, program=own_account)
    app.create()
    app.lose_upstream()
    first.process.kill()
    app.bump()
    app.wait_followed()
    assert second.metric("mirrorstream_leader") == 1
    assert not second.lines("keeping the source's image: the source has not failed for long enough")


def test_back_and_forth_ends_with_what_the_spec_says(app: App, start: Start) -> None:
    """Each time at once; the image that is there already gets no second item."""
    start()
    app.create()
    app.lose_upstream()
    app.bump()
    app.wait_followed()
    app.bump(1)
    app.ns.wait_healed(app.name, "now", app.one)
    app.bump(2)
    app.ns.wait_healed(app.name, "now", app.two)


def test_only_the_tag_that_was_changed_follows(app: App, start: Start) -> None:
    """Another tag of the stream, whose source fails too, keeps its image: the mirror has another one."""
    running = start()
    ns = app.ns
    stays = ns.cluster.put("other", f"{ns.name}/{app.name}", "stays", seed=f"{ns.name}/upstream")
    ns.put("good", f"{app.name}:stays", seed="stale")
    source = ns.source(f"{app.name}:stays", "other")
    ns.create(app.name, tag("now", app.reference(1)), tag("other", source))
    ns.wait_healed(app.name, "now", app.one)
    ns.wait_healed(app.name, "other", stays)
    app.lose_upstream()
    ns.import_image(app.name, "other", source)
    app.bump()
    app.wait_followed()
    wait_for("the other is held", lambda: running.lines("keeping the source's image: the source has not failed for long enough"))
    assert ns.tag_status(app.name, "other")["items"][0]["image"] == stays


def test_a_version_that_no_mirror_has_is_not_served(app: App, start: Start, hook: Hook) -> None:
    """Nothing is recorded, and the Event says why; a pod that names the digest of the earlier version still gets that."""
    ns = app.ns
    ns.allow_pulls()
    start()
    app.create()
    served = f"{ns.get(app.name)['status']['dockerImageRepository']}@{app.one}"
    hook()
    settled(ns, app.reference(1), served)
    app.lose_upstream()
    app.bump(3)
    ns.wait_event(app.name, "MirrorImportFailed", "app:3 .*is in no mirror")
    ns.stays("nothing is served for it", lambda: images(ns.pod("seen", app.reference(3), dry_run=True)) == [app.reference(3)])
    assert app.history() == [app.one]
    by_digest = f"{app.reference(1).rpartition(':')[0]}@{app.one}"
    assert images(ns.pod("old", by_digest)) == [served]


# The pods.


class Workload:
    """Pods of an app: of a Deployment where there are controllers for it, bare ones on the simulator."""

    def __init__(self, app: App) -> None:
        self.app, self._ns = app, app.ns
        self._bare = app.ns.cluster.backend == SIMULATOR

    def create(self, version: int) -> None:
        """Make the first pod."""
        if self._bare:
            self._pod(version)
        else:
            self._ns.make("apps/v1/deployments", deployment_body(self.app.name, self.app.reference(version)))

    def bump(self, version: int) -> None:
        """Have a pod of another version."""
        if self._bare:
            self._pod(version)
            return
        path = f"/apis/apps/v1/namespaces/{self._ns.name}/deployments/{self.app.name}"
        containers = [{"name": "c0", "image": self.app.reference(version)}]
        patch = {"spec": {"template": {"spec": {"containers": containers}}}}
        self._ns.client.request("PATCH", path, body=patch, content_type=MERGE_PATCH)

    def _pod(self, version: int) -> None:
        self._ns.pod(f"{self.app.name}-{version}", self.app.reference(version), metadata={"labels": {"app": self.app.name}})

    def of(self, version: int) -> list[Object]:
        """The pods that name a version."""
        params = {"labelSelector": f"app={self.app.name}"}
        found = self._ns.client.get(f"/api/v1/namespaces/{self._ns.name}/pods", params).get("items") or []
        return [pod for pod in found if (originals(pod) or {}).get("c0", images(pod)[0]) == self.app.reference(version)]


@pytest.mark.parametrize("stream_first", [True, False], ids=["stream-first", "workload-first"])
def test_no_pod_gets_the_version_before(ns: Namespace, start: Start, hook: Hook, *, stream_first: bool) -> None:
    """Stream and workload are changed one after the other, with up to a second between them.

    A pod of the new version has the reference as it was written, which hangs until it is repaired, or the new version's digest.
    e2e/scenarios/node/test_right_image.py has a webhook that repairs such pods.
    """
    start()
    hook()
    ns.allow_pulls()
    ns.digest_mirrors(source=f"{ns.cluster.host('other')}/{ns.name}")
    workloads = [Workload(App(ns, f"app{number}")) for number in range(len(DELAYS))]
    for workload in workloads:
        workload.app.create()
        repository = ns.get(workload.app.name)["status"]["dockerImageRepository"]
        settled(ns, workload.app.reference(1), f"{repository}@{workload.app.one}")
        workload.create(1)
        workload.app.lose_upstream()
        workload.app.slow_mirror(MIRROR_SECONDS)

    def bump(workload: Workload, delay: float) -> None:
        changes: list[Callable[[], None]] = [workload.app.bump, lambda: workload.bump(2)]
        for change in changes if stream_first else reversed(changes):
            change()
            time.sleep(delay)  # what lies between the two is what is tested

    threads = [threading.Thread(target=bump, args=pair) for pair in zip(workloads, DELAYS, strict=True)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + LOOKED_SECONDS
    while any(thread.is_alive() for thread in threads) or time.monotonic() < end:
        check_no_other_version(workloads)
    for thread in threads:
        thread.join()
    for workload in workloads:
        workload.app.wait_followed()
        workload.app.slow_mirror(0)
        repository = ns.get(workload.app.name)["status"]["dockerImageRepository"]
        settled(ns, workload.app.reference(2), f"{repository}@{workload.app.two}")
    check_no_other_version(workloads)
    for workload in workloads:
        assert workload.of(2), workload.app.name


def check_no_other_version(workloads: list[Workload]) -> None:
    """Check every pod that names the second version: what it names now, and what has been pulled for it."""
    for workload in workloads:
        app = workload.app
        for pod in workload.of(2):
            (image,) = images(pod)
            # By the stream's tag it would be whatever item the tag has.
            assert image == app.reference(2) or image.endswith(f"@{app.two}"), f"{app.name}: {image} for {app.reference(2)}"
            assert set(state(pod).digests.values()) <= {app.two}, f"{app.name}: {state(pod)}"
