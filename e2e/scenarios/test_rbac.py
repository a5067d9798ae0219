"""The roles in config/base/rbac: enough for everything that the two programs do, and nothing in them is superfluous."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from e2e.scenarios.conftest import configuration
from e2e.testbed.audit import Request
from e2e.testbed.cluster import Cluster, Namespace
from e2e.testbed.installation import CONTROLLER, PENDING_PODS, WEBHOOK, Installation, Permission, permissions, something_missing
from e2e.testbed.programs.hooks import SIGNATURES, registered, signature_policy, wait_asked
from e2e.testbed.programs.program import Controller, Webhook
from e2e.testbed.streams import tag
from e2e.testbed.support.waiting import wait_for

PERMISSIONS = permissions(CONTROLLER)
WEBHOOKS_PERMISSIONS = permissions(WEBHOOK)
STEP_SECONDS = 10
START_SECONDS = 20
"""For a step of the exercise, all of which take well under a second or two on a machine with time to spare; and for the start."""
MIRROR_KINDS = ("ImageContentSourcePolicy", "ImageDigestMirrorSet", "ImageTagMirrorSet")


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
    wait_for("it is ready", running.ready, seconds=START_SECONDS)
    for kind in MIRROR_KINDS:
        ns.wait_healed(f"before-{kind.lower()}", "v1", seconds=STEP_SECONDS)
    ns.wait_event("before-imagedigestmirrorset", "ImportedFromMirror", seconds=STEP_SECONDS)
    for kind in MIRROR_KINDS:
        _follows_a_new_rule(ns, kind)
    _counts_a_repeated_event_up(ns)
    _notes_whose_item_it_is(ns)
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


def _notes_whose_item_it_is(ns: Namespace) -> None:
    """A second tag gets an image that another has: the Image has both items."""
    digest = ns.wait_healed("before-imagedigestmirrorset", "v1", seconds=STEP_SECONDS)["image"]
    ns.create("again", tag("v1", ns.source("before/imagedigestmirrorset:v1")))
    item = ns.wait_healed("again", "v1", digest, seconds=STEP_SECONDS)

    def noted() -> bool:
        return item["created"] in json.loads(ns.image(digest)["metadata"]["annotations"]["mirrorstream.github.io/recorded"])

    wait_for("its Image says that mirrorstream recorded it", noted, seconds=STEP_SECONDS)


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
    kept = "keeping the source's image: the source has not failed for long enough"
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


def test_the_roles_are_enough_and_nothing_in_them_is_superfluous(ns: Namespace, authorized: Cluster, tmp_path: Path) -> None:
    """kube-apiserver's audit log against the rules: every request is allowed by one of ours, every permission is used."""
    assert authorized.log
    mark = authorized.log.mark()
    prepare(ns)
    with installed(ns, tmp_path) as (installation, running):
        exercise(ns, running)
        assert running.process.stop() == 0
    made = [request for request in authorized.requests(mark) if request.user == installation.user]
    assert not [request for request in made if request.forbidden]
    assert {_permission(request) for request in made} == set(PERMISSIONS)
    assert all(f"mirrorstream-controller-{ns.name}" in r.reason or "mirrorstream-leader-election" in r.reason for r in made)


@pytest.mark.parametrize("missing", PERMISSIONS, ids=str)
def test_without_one_permission_something_is_missing(
    missing: Permission, ns: Namespace, authorized: Cluster, tmp_path: Path
) -> None:
    """Each is needed; mirrorstream runs into its absence, and its log or its readiness names what it may not do."""
    assert authorized.log
    mark = authorized.log.mark()
    prepare(ns)
    with installed(ns, tmp_path, without=missing) as (installation, running):
        with something_missing(missing):
            exercise(ns, running)
        refused = {_permission(r) for r in authorized.requests(mark) if r.user == installation.user and r.forbidden}
        assert refused == {missing}
        said = _said(running)
        assert missing.resource.partition("/")[0] in said
        assert "forbidden" in said.lower()


def _said(running: Controller) -> str:
    """Its readiness and its log; the log alone of one that has ended, as a leader does that cannot renew its lease."""
    try:
        return running.get("/readyz")[1] + running.log()
    except OSError:
        return running.log()


# The webhook.


@contextmanager
def installed_webhook(ns: Namespace, folder: Path, without: Permission | None = None) -> Iterator[tuple[Installation, Webhook]]:
    """The webhook installed into a namespace of its own, running, and asked about the scenario's pods."""
    with (
        ns.cluster.namespace() as home,
        Installation(ns.client, home.name, without, WEBHOOK, (PENDING_PODS,)) as installation,
    ):
        installation.wait_effective()
        kubeconfig = installation.kubeconfig(folder / "own.kubeconfig", ns.cluster.kubeconfig)
        # What hangs is mended in test_pending_pods.py, on a cluster of its own: here are other tests' pods.
        environment = {"POD_NAMESPACE": home.name}
        program = Webhook(kubeconfig, folder, {"webhook": {"pendingPods": "report"}}, environment=environment)
        try:
            program.process.wait_until("it serves", lambda: program.get("/healthz")[0] == 200)
            with registered(program, ns.client, [ns.name]):
                wait_asked(program, ns)
                yield installation, program
        finally:
            program.process.kill()


def imported(ns: Namespace, name: str) -> str:
    """A tag that the platform imports itself from a source that can be reached; the reference."""
    ns.cluster.put("good", f"{ns.name}/{name}", "v1")
    source = ns.source(f"{name}:v1", "good")
    ns.create(name, tag("v1", source))
    ns.wait_healed(name, "v1")
    return source


def exercise_webhook(ns: Namespace, program: Webhook) -> None:
    """Everything that the webhook does, with rules that come while it runs. Raises AssertionError where something is missing."""
    wait_for("it is ready", program.ready, seconds=START_SECONDS)
    sources = {kind: imported(ns, kind.lower()) for kind in MIRROR_KINDS}
    for kind, source in sources.items():
        ns.mirror_set(kind, source.rpartition(":")[0], f"{ns.mirror()}/{kind.lower()}")
        _becomes(ns, source, "@sha256:")
    signed, clusterwide, blocked = sources.values()
    for source, path, kind in (
        (signed, f"{SIGNATURES}/namespaces/{ns.name}/imagepolicies", "ImagePolicy"),
        (clusterwide, f"{SIGNATURES}/clusterimagepolicies", "ClusterImagePolicy"),
    ):
        name = source.rpartition(":")[0]
        ns.client.request("POST", path, body=signature_policy(kind, ns.name, name))
        try:
            _becomes(ns, source, source)
        finally:
            ns.client.request("DELETE", f"{path}/{ns.name}")
    name = blocked.rpartition(":")[0]
    ns.cluster.change_image_config(lambda spec: spec["registrySources"]["blockedRegistries"].append(name))
    try:
        _becomes(ns, blocked, blocked)
    finally:
        ns.cluster.change_image_config(lambda spec: spec["registrySources"]["blockedRegistries"].remove(name))


def _becomes(ns: Namespace, source: str, wanted: str) -> None:
    def seen() -> bool:
        return wanted in ns.pod("seen", source, dry_run=True)["spec"]["containers"][0]["image"]

    wait_for(f"{source} becomes …{wanted}", seen, seconds=STEP_SECONDS)


def test_the_webhooks_roles_are_enough_and_nothing_in_them_is_superfluous(
    ns: Namespace, authorized: Cluster, tmp_path: Path
) -> None:
    """It lists, watches and asks for access reviews; what it needs for pending pods is told apart."""
    assert authorized.log
    mark = authorized.log.mark()
    ns.allow_pulls()
    with installed_webhook(ns, tmp_path) as (installation, program):
        exercise_webhook(ns, program)
        assert program.stop() == 0
    made = [request for request in authorized.requests(mark) if request.user == installation.user]
    assert not [request for request in made if request.forbidden]
    used = {Permission(r.group, r.resource, r.verb) for r in made if r.resource}
    more = {Permission(p.group, p.resource, p.verb) for p in permissions(WEBHOOK, PENDING_PODS)}
    assert set(WEBHOOKS_PERMISSIONS) <= used <= more


@pytest.mark.parametrize("missing", WEBHOOKS_PERMISSIONS, ids=str)
def test_without_one_permission_of_the_webhooks_something_is_missing(
    missing: Permission, ns: Namespace, authorized: Cluster, tmp_path: Path
) -> None:
    """Each is needed; its absence is named, and keeps no pod from being made."""
    assert authorized.log
    mark = authorized.log.mark()
    ns.allow_pulls()
    with installed_webhook(ns, tmp_path, without=missing) as (installation, program):
        with something_missing(missing):
            exercise_webhook(ns, program)
        refused = {
            Permission(r.group, r.resource, r.verb)
            for r in authorized.requests(mark)
            if r.user == installation.user and r.forbidden
        }
        assert refused == {missing}
        said = program.get("/readyz")[1] + program.log()
        assert missing.resource in said
        assert "forbidden" in said.lower()
        assert ns.pod("app", "example.com/app:v1")
