"""What runs is the version that the pod names: a stream and its Deployment change together, and the upstream cannot be reached.

mirrorstream runs as pods with the configuration as it is shipped.
"""

import os
import threading
import time
from typing import Any

import pytest
from mirrorstream.kube.client import MERGE_PATCH

from e2e.testbed.cluster import Namespace
from e2e.testbed.node.product import Product
from e2e.testbed.registries.registry import Failure
from e2e.testbed.streams import tag
from e2e.testbed.support.waiting import wait_for
from e2e.testbed.two_versions import App
from e2e.testbed.workloads import deployment_body, pods, wait_all_running

Object = dict[str, Any]
DELAYS = (0.0, 0.1, 0.3, 0.6, 1.0)
"""Seconds between the two changes."""
APPS = 2 * len(DELAYS)
BUMPS = 6 if os.environ.get("MIRRORSTREAM_SOAK") else 2
"""Times that each app is changed: 60 bumps in the soak."""
SLOW_SECONDS = 0.7
"""How long the mirror takes for each answer."""
FOLLOWED_SECONDS = 15
RUNNING_SECONDS = 60


class Versions:
    """A stream and a Deployment whose image goes through versions; its pods have a label with the one that they name."""

    def __init__(self, ns: Namespace, name: str) -> None:
        self._ns, self._name = ns, name
        # A mirror that takes its time: the tag has the version before while pods of the new one come.
        ns.cluster.registries.servers["good"].failures[f"mirror-{ns.name}/{name}"] = Failure(seconds=SLOW_SECONDS)
        self.digests = {str(version): ns.put("good", f"{name}:{version}") for version in range(1, BUMPS + 2)}

    def _reference(self, version: int) -> str:
        return self._ns.source(f"{self._name}:{version}")

    def create(self) -> None:
        """Make both, with the first version."""
        self._ns.create(self._name, tag("now", self._reference(1)))
        body = deployment_body(self._name, self._reference(1))
        body["spec"]["template"]["metadata"]["labels"] = {"app": self._name, "version": "1"}
        self._ns.make("apps/v1/deployments", body)

    def bump(self, version: int, delay: float, *, stream_first: bool) -> None:
        """Change both to a version, with so many seconds in between."""
        changes = (self._bump_stream, self._bump_deployment)
        first, second = changes if stream_first else reversed(changes)
        first(version)
        time.sleep(delay)  # this is what is tested
        second(version)

    def _bump_stream(self, version: int) -> None:
        self._ns.change(self._name, lambda stream: stream["spec"]["tags"][0]["from"].update(name=self._reference(version)))

    def _bump_deployment(self, version: int) -> None:
        path = f"/apis/apps/v1/namespaces/{self._ns.name}/deployments/{self._name}"
        template = {
            "metadata": {"labels": {"version": str(version)}},
            "spec": {"containers": [{"name": "c0", "image": self._reference(version)}]},
        }
        self._ns.client.request("PATCH", path, body={"spec": {"template": template}}, content_type=MERGE_PATCH)

    def check(self) -> None:
        """Check that no pod has pulled an image of another version than the one that it names."""
        for version, digest in self.digests.items():
            for found in pods(self._ns, f"app={self._name},version={version}"):
                assert set(found.digests.values()) <= {digest}, f"{self._name}:{version} runs another version: {found}"

    def wait_running(self, version: int) -> None:
        """Wait until a pod of this version runs, and only it."""
        wait_all_running(self._ns, 1, f"app={self._name},version={version}", seconds=RUNNING_SECONDS)
        wait_for("the one before is gone", lambda: len(pods(self._ns, f"app={self._name}")) == 1, seconds=RUNNING_SECONDS)


@pytest.mark.timeout(600)
def test_no_pod_runs_another_version_than_it_names(product: Product, ns: Namespace) -> None:
    """Stream first and Deployment first, with up to a second in between, ten at once."""
    ns.allow_pulls()
    ns.digest_mirrors()
    apps = [Versions(ns, f"app{number}") for number in range(APPS)]
    for app in apps:
        app.create()
    for app in apps:
        app.wait_running(1)
    for version in range(2, BUMPS + 2):
        threads = [
            threading.Thread(target=app.bump, args=(version, DELAYS[number // 2]), kwargs={"stream_first": number % 2 == 0})
            for number, app in enumerate(apps)
        ]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            for app in apps:
                app.check()
        for app in apps:
            app.wait_running(version)
            app.check()
    assert sum(found.restarts for found in pods(ns)) == 0


def test_a_tag_that_the_platform_imported_follows_its_source(product: Product, ns: Namespace) -> None:
    """Its `from` is changed after the upstream is gone: the new image is there within 15 s, and a pod of it runs."""
    ns.allow_pulls()
    ns.digest_mirrors(source=f"{ns.cluster.host('other')}/{ns.name}")
    app = App(ns)
    app.create()
    app.lose_upstream()
    app.bump()
    began = time.monotonic()
    app.wait_followed()
    assert time.monotonic() - began < FOLLOWED_SECONDS
    ns.make("apps/v1/deployments", deployment_body("app", app.reference(2)))
    (found,) = wait_all_running(ns, 1, "app=app", seconds=20)
    assert found.digests == {"c0": app.two}
