"""Pods that hang on a pull are mended by one replica of the webhook with no superfluous right, or told of where they may not be."""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from mirrorstream.kube.client import ApiError, Client

from e2e.testbed.audit import Request
from e2e.testbed.backends import PLANES, SIMULATOR, Choice
from e2e.testbed.cluster import Cluster, Namespace
from e2e.testbed.controllers.scc import OWN_RIGHT
from e2e.testbed.installation import (
    PENDING_PODS,
    POLICIES,
    WEBHOOK,
    Permission,
    permissions,
    share,
    share_policies,
    something_missing,
)
from e2e.testbed.programs.commands import Commands
from e2e.testbed.programs.installed import Bed
from e2e.testbed.programs.pending import STEP_SECONDS, Home, hanging, heal, home_on, running, wait_image
from e2e.testbed.programs.program import Webhook
from e2e.testbed.streams import tag
from e2e.testbed.support.waiting import PATIENCE, wait_for

Object = dict[str, Any]
OWN = [permission for permission in permissions(WEBHOOK, PENDING_PODS) if permission not in permissions(WEBHOOK)]
"""What nothing but the repair of pods needs."""
NAMED = {("coordination.k8s.io", "get"), ("coordination.k8s.io", "update"), ("admissionregistration.k8s.io", "get")}
"""What is allowed for one name only."""
PODS = 1000 if os.environ.get("MIRRORSTREAM_SOAK") else 100
RATE = 20
LEADS = "leading"


@pytest.fixture
def alone(chosen: Choice, request: pytest.FixtureRequest) -> Cluster:
    """A cluster on which no other test has pods: one webhook mends those of all namespaces."""
    if chosen.backend in PLANES:
        bed: Bed = request.getfixturevalue("bed")
        return bed.cluster
    if chosen.backend != SIMULATOR:
        pytest.skip("mends pods of a cluster that is its own")
    cluster: Cluster = request.getfixturevalue("cluster")
    share_policies(cluster.client)
    return cluster


@pytest.fixture
def home(alone: Cluster, tmp_path: Path) -> Iterator[Home]:
    """An installation with all its rights."""
    with home_on(alone, tmp_path) as found:
        yield found


def test_a_pod_that_hung_before_runs_what_its_reference_stands_for(home: Home) -> None:
    """Once the stream is there: the images are changed, which a label and an annotation say, and its owner is told."""
    ns = home.ns
    source = hanging(ns)
    path = f"/api/v1/namespaces/{ns.name}/pods/hanging"
    before = ns.client.get(path)
    with running(home.program(), ns):
        target = heal(ns)
        wait_image(ns, "hanging", target)
        assert target in ns.wait_event("hanging", "PendingPodRepaired")
        after = ns.client.get(path)
        annotations = after["metadata"].pop("annotations")
        assert source in annotations.pop("mirrorstream.github.io/original-images")
        assert annotations == (before["metadata"].pop("annotations", None) or {})
        labels = after["metadata"].pop("labels")
        assert labels.pop("mirrorstream.github.io/repaired") == "true"
        assert labels == (before["metadata"].pop("labels", None) or {})
        after["spec"]["containers"][0]["image"] = source
        for item in (before, after):
            for field in ("resourceVersion", "managedFields", "generation"):
                item["metadata"].pop(field, None)
        assert (after["spec"], after["metadata"]) == (before["spec"], before["metadata"])


def test_a_reference_of_ours_that_hangs_gets_the_next_way(home: Home) -> None:
    """The internal registry is down: the node's mirror has it, by the digest of the source's own repository."""
    ns = home.ns
    target = heal(ns)
    source = ns.source("app", "good")
    with running(home.program(), ns):
        wait_for("it is rewritten", lambda: ns.pod("x", f"{source}:v1", dry_run=True)["spec"]["containers"][0]["image"] == target)
        ns.pod("app", f"{source}:v1")
        ns.hangs("app", reason="ErrImagePull")
        wait_image(ns, "app", f"{source}@{target.partition('@')[2]}")


def test_status_tells_what_a_hanging_pod_waits_for(home: Home, tmp_path: Path) -> None:
    """Its tag's import, then its repair, then the pull of what the repair gave it."""
    ns = home.ns
    status = Commands(home.cluster.kubeconfig, tmp_path)

    def told() -> list[tuple[str, str, str]]:
        pods = status("status", "-n", ns.name, "-o", "json").document["pods"]
        return [(pod["tag"], pod["image"], pod["waitsFor"]) for pod in pods]

    source = hanging(ns)
    ns.digest_mirrors(source=f"{ns.cluster.host('good')}/{ns.name}")
    ns.create("app", tag("v1", source))
    ns.wait_failed("app", "v1")
    assert told() == [(f"{ns.name}/app:v1", source, "import")]
    digest = ns.cluster.put("good", f"{ns.name}/app", "v1")
    ns.import_images("app", tag("v1", source))
    ns.wait_healed("app", "v1", digest)
    assert told() == [(f"{ns.name}/app:v1", source, "repair")]
    target = f"{ns.cluster.registry_host}/{ns.name}/app@{digest}"
    with running(home.program(), ns):
        wait_image(ns, "hanging", target)
    ns.hangs("hanging")
    assert told() == [(f"{ns.name}/app:v1", target, "pull")]


def test_what_opted_out_is_left_alone(home: Home) -> None:
    """Namespaces by their label, which no selector of the webhook's looks at here; and pods by theirs."""
    ns = home.ns
    label = {"mirrorstream.github.io/rewrite": "disabled"}
    with home.cluster.namespace() as other:
        other.allow_pulls()
        other.client.request(
            "PATCH",
            f"/api/v1/namespaces/{other.name}",
            body={"metadata": {"labels": label}},
            content_type="application/merge-patch+json",
        )
        source = hanging(ns, "labelled", metadata={"labels": label})
        hanging(ns)
        elsewhere = hanging(other)
        with running(home.program(), ns):
            target = heal(ns)
            heal(other)
            wait_image(ns, "hanging", target)
            time.sleep(1)  # nothing happens, so there is nothing to wait for
            assert (ns.image_of("labelled"), other.image_of("hanging")) == (source, elsewhere)


def test_two_replicas_mend_each_pod_once(home: Home) -> None:
    """The one that does not lead only watches; it goes on when the leader ends in the middle."""
    ns = home.ns
    hanging(ns)
    with ExitStack() as stack:
        first = stack.enter_context(running(home.program(), ns))
        wait_for("the first leads", lambda: first.lines(LEADS))
        second = stack.enter_context(running(home.program(), ns))
        target = heal(ns)
        wait_image(ns, "hanging", target)
        assert second.metric("mirrorstream_webhook_pending_pods_total") == 0
        first.stop()
        # Where the API server asks nobody, so that nothing but the repair can change it.
        other = stack.enter_context(home.cluster.namespace())
        other.allow_pulls()
        hanging(other)
        wait_image(other, "hanging", heal(other))
        wait_for("it counts", lambda: second.metric("mirrorstream_webhook_pending_pods_total", result="repaired") == 1)


@pytest.mark.parametrize("missing", ["", "mirrorstream-pending-pods", "mirrorstream-pending-pods-images"])
def test_where_nothing_may_be_changed_it_is_told(missing: str, home: Home) -> None:
    """By the configuration, or because no policy of that name bounds the account; readiness does not depend on it."""
    ns = home.ns
    source = hanging(ns)
    removed: list[Object] = []
    for kind, path in POLICIES.items() if missing else ():
        item = ns.client.get(f"{path}/{missing}")
        removed.append({"kind": kind, "metadata": {"name": missing}, "spec": item["spec"]})
        ns.client.request("DELETE", f"{path}/{missing}")
    try:
        with running(home.program(pendingPods="repair" if missing else "report"), ns) as program:
            target = heal(ns)
            assert target in ns.wait_event("hanging", "PendingPodNotRepaired")
            assert ns.image_of("hanging") == source
            said = [line for line in program.log().splitlines() if "pending pods are reported" in line]
            assert len(said) == 1
    finally:
        for item in removed:
            share(ns.client, item)


def test_many_pods_are_mended_at_the_rate_and_in_little_memory(home: Home, record_property: Any) -> None:
    """The default of 20 a second keeps nodes and API server from a storm; MIRRORSTREAM_SOAK=1 has a thousand pods."""
    ns = home.ns
    source = ns.source("app:v1", "good")
    with running(home.program(), ns) as program:
        wait_for("it leads", lambda: program.lines(LEADS))
        before = program.memory()
        for number in range(PODS):
            ns.pod(f"pod-{number}", source)
            ns.hangs(f"pod-{number}")
        wait_for("all are seen", lambda: program.metric("mirrorstream_webhook_hanging_pods") == PODS)
        began = time.monotonic()
        target = heal(ns)

        def repaired() -> bool:
            return program.metric("mirrorstream_webhook_pending_pods_total", result="repaired") == PODS

        wait_for("all are mended", repaired, seconds=PODS / RATE + PATIENCE)
        took, grown = time.monotonic() - began, program.memory() - before
        record_property("seconds", took)
        record_property("MiB", grown)
        print(f"{PODS} pods in {took:.1f} s, {grown:.1f} MiB more")
        assert took > (PODS - 1) / RATE - 3
        assert grown < 20
        assert {ns.image_of(f"pod-{number}") for number in range(0, PODS, 10)} == {target}


# With a real kube-apiserver: rights, other policies.


@pytest.fixture
def bounded(alone: Cluster) -> Cluster:
    """A cluster with RBAC and admission policies."""
    if alone.backend not in PLANES:
        pytest.skip("needs a real kube-apiserver, and roles of our own on it")
    return alone


def test_a_change_that_another_policy_refuses_is_told_once(bounded: Cluster, home: Home) -> None:
    """It is not tried again in a loop, and other pods are mended."""
    ns = home.ns
    with refusing(ns.client, ns.name):
        hanging(ns, "locked", metadata={"labels": {"locked": "yes"}})
        hanging(ns)
        assert bounded.log
        mark = bounded.log.mark()
        with running(home.program(), ns) as program:
            target = heal(ns)
            wait_image(ns, "hanging", target)
            assert "create the pod again" in ns.wait_event("locked", "PendingPodNotRepaired")
            for _ in range(5):
                ns.hangs("locked", reason="ErrImagePull")
                ns.hangs("locked")
            time.sleep(2)  # nothing happens, so there is nothing to wait for
            assert program.metric("mirrorstream_webhook_pending_pods_total", result="refused") == 1
        patches = [r for r in home.requests(mark) if (r.verb, r.name) == ("patch", "locked")]
        assert [request.status for request in patches] == [403]


def test_a_pod_of_an_administrators_own_right_is_told_to_be_created_again(bounded: Cluster, home: Home) -> None:
    """SecurityContextConstraints look at each change; the pods of the same namespace that a controller made are mended."""
    with bounded.namespace(scc=True) as ns:
        ns.allow_pulls()
        source = hanging(ns, "own-right", metadata={"annotations": {OWN_RIGHT: "true"}})
        hanging(ns)
        with running(home.program(), ns):
            target = heal(ns)
            wait_image(ns, "hanging", target)
            assert "security context" in ns.wait_event("own-right", "PendingPodNotRepaired", "create the pod again")
            assert ns.image_of("own-right") == source


@contextmanager
def refusing(client: Client, name: str) -> Iterator[None]:
    """A policy of somebody else's, by which no pod with the label `locked` may be changed by us."""
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["pods"]}
    expression = (
        "!('locked' in object.metadata.?labels.orValue({})) || !request.userInfo.username.endsWith(':mirrorstream-webhook')"
    )
    validation = {"expression": expression, "message": "it is locked", "reason": "Forbidden"}
    constraints = {"resourceRules": [rule]}
    policy, binding = POLICIES.values()
    client.request(
        "POST",
        policy,
        body={"metadata": {"name": name}, "spec": {"matchConstraints": constraints, "validations": [validation]}},
    )
    client.request("POST", binding, body={"metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]}})
    try:
        yield
    finally:
        client.request("DELETE", f"{binding}/{name}")
        client.request("DELETE", f"{policy}/{name}")


def exercise(home: Home, program: Webhook) -> None:
    """Everything that mending needs. Raises AssertionError where something is missing."""
    ns = home.ns
    path = f"/apis/coordination.k8s.io/v1/namespaces/{home.name}/leases/mirrorstream-pending-pods"
    wait_for("the lease is there", lambda: _renewed(ns, path), seconds=STEP_SECONDS)
    first = _renewed(ns, path)
    wait_for("the lease is renewed", lambda: _renewed(ns, path) != first, seconds=STEP_SECONDS)
    hanging(ns)
    target = heal(ns)
    wait_image(ns, "hanging", target, STEP_SECONDS)
    ns.wait_event("hanging", "PendingPodRepaired", seconds=STEP_SECONDS)


def _renewed(ns: Namespace, path: str) -> str:
    try:
        return str(ns.client.get(path)["spec"]["renewTime"])
    except ApiError as error:
        if error.status != 404:
            raise
        return ""


def _permission(request: Request) -> Permission:
    """The permission that a request needs, as the roles write it."""
    return Permission(request.group, request.resource, request.verb, request.name if (request.group, request.verb) in NAMED else "")


def test_the_rights_are_enough_and_nothing_in_them_is_superfluous(bounded: Cluster, home: Home) -> None:
    """kube-apiserver's audit log against the component's roles."""
    assert bounded.log
    mark = bounded.log.mark()
    with running(home.program(), home.ns) as program:
        exercise(home, program)
    made = home.requests(mark)
    assert not [request for request in made if request.forbidden]
    used = {_permission(request) for request in made if request.resource}
    assert set(OWN) <= used <= set(permissions(WEBHOOK, PENDING_PODS))


@pytest.mark.parametrize("missing", OWN, ids=str)
def test_without_one_permission_nothing_is_mended_and_reviews_go_on(missing: Permission, bounded: Cluster, tmp_path: Path) -> None:
    """Each is needed; its absence is in the log, and the webhook is ready all the same."""
    assert bounded.log
    mark = bounded.log.mark()
    with home_on(bounded, tmp_path, missing) as home, running(home.program(), home.ns) as program:
        with something_missing(missing):
            exercise(home, program)
        refused = {_permission(request) for request in home.requests(mark) if request.forbidden}
        assert refused == {missing}
        assert missing.resource in program.log()
        assert "forbidden" in program.log().lower()
        assert program.ready()
