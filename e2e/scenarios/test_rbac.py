"""The roles in config/base/rbac: enough for everything that the controller does, and nothing in them is superfluous."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from e2e.scenarios.audit import Request
from e2e.scenarios.cluster import Cluster, Namespace, tag
from e2e.scenarios.conftest import configuration
from e2e.scenarios.installation import CONTROLLER, Installation, Permission, permissions
from e2e.scenarios.program import Controller
from e2e.waiting import wait_for

PERMISSIONS = permissions(CONTROLLER)
STEP_SECONDS = 6
"""For each step of the exercise, all of which take well under a second or two."""
MIRROR_KINDS = ("ImageContentSourcePolicy", "ImageDigestMirrorSet", "ImageTagMirrorSet")


@pytest.fixture
def real(observed: Cluster) -> Cluster:
    """A cluster with an authorizer, whose decisions we can read."""
    if observed.backend == "simulator":
        pytest.skip("the simulator has no RBAC")
    return observed


@contextmanager
def installed(ns: Namespace, folder: Path, without: Permission | None = None) -> Iterator[tuple[Installation, Controller]]:
    """Mirrorstream installed into the scenario's namespace, and running with leader election."""
    with Installation(ns.client, ns.name, without) as installation:
        installation.wait_effective()
        kubeconfig = installation.kubeconfig(folder / "own.kubeconfig", ns.cluster.kubeconfig)
        settings = configuration(ns, mirrors={"bypassNotFound": True})
        running = Controller(kubeconfig, folder, settings, "--namespace", ns.name)
        try:
            yield installation, running
        finally:
            running.process.kill()


def prepare(ns: Namespace) -> None:
    """What is there before the controller starts: for each kind of mirror set a stream that has failed."""
    for kind in MIRROR_KINDS:
        ns.create(f"before-{kind.lower()}", tag("v1", ns.source(f"before/{kind.lower()}:v1")))
    # The rules come after the failures: tag mirrors are what the platform uses itself.
    for kind in MIRROR_KINDS:
        ns.wait_failed(f"before-{kind.lower()}", "v1")
        _mirror(ns, kind, f"before/{kind.lower()}")


def _mirror(ns: Namespace, kind: str, name: str) -> None:
    ns.put("good", f"{name}:v1")
    ns.mirror_set(kind, ns.source(name), f"{ns.mirror()}/{name}")


def exercise(ns: Namespace, running: Controller) -> None:
    """Everything that the controller does. Raises AssertionError where something does not come about."""
    wait_for("it is ready", running.ready, seconds=STEP_SECONDS)
    for kind in MIRROR_KINDS:
        ns.wait_healed(f"before-{kind.lower()}", "v1", seconds=STEP_SECONDS)
    ns.wait_event("before-imagedigestmirrorset", "ImportedFromMirror", seconds=STEP_SECONDS)
    for kind in MIRROR_KINDS:
        _follows_a_new_rule(ns, kind)
    _counts_a_repeated_event_up(ns)
    _reads_whose_image_it_is(ns, running)
    _follows_the_image_config(ns)
    path = f"/apis/coordination.k8s.io/v1/namespaces/{ns.name}/leases/mirrorstream-controller"
    first = ns.client.get(path)["spec"]["renewTime"]
    wait_for("the lease is renewed", lambda: ns.client.get(path)["spec"]["renewTime"] != first, seconds=STEP_SECONDS)


def _follows_a_new_rule(ns: Namespace, kind: str) -> None:
    name = f"after-{kind.lower()}"
    ns.create(name, tag("v1", ns.source(f"after/{kind.lower()}:v1")))
    ns.wait_failed(name, "v1")
    _mirror(ns, kind, f"after/{kind.lower()}")
    ns.wait_healed(name, "v1", seconds=STEP_SECONDS)


def _counts_a_repeated_event_up(ns: Namespace) -> None:
    name = "after-imagedigestmirrorset"
    source = ns.source("after/imagedigestmirrorset:v1")
    ns.wait_event(name, "ImportedFromMirror", seconds=STEP_SECONDS)
    ns.import_image(name, "v1", source)
    path = f"/api/v1/namespaces/{ns.name}/events"
    query = {"fieldSelector": f"involvedObject.name={name},reason=ImportedFromMirror"}
    wait_for(
        "the Event counts two", lambda: [e for e in ns.client.get(path, query)["items"] if e["count"] > 1], seconds=STEP_SECONDS
    )


def _reads_whose_image_it_is(ns: Namespace, running: Controller) -> None:
    """An outage over an image that the platform imported itself."""
    ns.cluster.put("other", f"{ns.name}/app", "v1", seed=f"{ns.name}/upstream")
    ns.put("good", "app:v1", seed="stale")
    ns.digest_mirrors(source=f"{ns.cluster.host('other')}/{ns.name}")
    ns.create("app", tag("v1", ns.source("app:v1", "other")))
    ns.wait_healed("app", "v1", seconds=STEP_SECONDS)
    ns.cluster.registries.stores["other"].remove(f"{ns.name}/app", "v1")
    ns.cluster.put("other", f"{ns.name}/app", "another")
    ns.import_image("app", "v1", ns.source("app:v1", "other"))
    kept = "kept what the source served: it has not failed for long enough"
    wait_for("it is kept", lambda: running.lines(kept), seconds=STEP_SECONDS)


def _follows_the_image_config(ns: Namespace) -> None:
    """A source that is blocked while the controller runs is refused, mirror or not."""
    blocked = ns.source("blocked")
    _mirror(ns, "ImageDigestMirrorSet", "blocked")
    ns.cluster.change_image_config(lambda spec: spec["registrySources"]["blockedRegistries"].append(blocked))
    try:
        ns.create("blocked", tag("v1", f"{blocked}:v1"))
        ns.wait_event("blocked", "MirrorImportRefused", seconds=STEP_SECONDS)
    finally:
        ns.cluster.change_image_config(lambda spec: spec["registrySources"]["blockedRegistries"].remove(blocked))


def _permission(request: Request) -> Permission:
    """The permission that a request needs, as the roles write it."""
    name = (
        request.name if (request.group, request.verb) in {("coordination.k8s.io", "get"), ("coordination.k8s.io", "update")} else ""
    )
    return Permission(request.group, request.resource, request.verb, name)


def test_the_roles_are_enough_and_nothing_in_them_is_superfluous(ns: Namespace, real: Cluster, tmp_path: Path) -> None:
    """kube-apiserver's audit log against the rules: every request is allowed by one of ours, every permission is used."""
    assert real.log
    mark = real.log.mark()
    prepare(ns)
    with installed(ns, tmp_path) as (installation, running):
        exercise(ns, running)
        assert running.process.stop() == 0
    made = [request for request in real.requests(mark) if request.user == installation.user]
    assert not [request for request in made if request.forbidden]
    assert {_permission(request) for request in made} == set(PERMISSIONS)
    assert all(f"mirrorstream-controller-{ns.name}" in r.reason or "mirrorstream-leader-election" in r.reason for r in made)


@pytest.mark.parametrize("missing", PERMISSIONS, ids=str)
def test_without_one_permission_something_is_missing(missing: Permission, ns: Namespace, real: Cluster, tmp_path: Path) -> None:
    """Each is needed; mirrorstream runs into its absence, and its log or its readiness names what it may not do."""
    assert real.log
    mark = real.log.mark()
    prepare(ns)
    with installed(ns, tmp_path, without=missing) as (installation, running):
        with pytest.raises(AssertionError, match="not within"):
            exercise(ns, running)
        refused = {_permission(r) for r in real.requests(mark) if r.user == installation.user and r.forbidden}
        assert refused == {missing}
        assert missing.resource.partition("/")[0] in running.get("/readyz")[1] + running.log()
        assert "forbidden" in (running.get("/readyz")[1] + running.log()).lower()
