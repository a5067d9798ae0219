"""Every pod runs: whatever is applied in which order, however late its parts come, and whatever is missing on the cluster.

mirrorstream runs as pods with the configuration as it is shipped; the upstream cannot be reached. Each limit is for a machine with
two cores.
"""

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from e2e.testbed.cluster import Cluster, Namespace
from e2e.testbed.node.product import NAMESPACE, Product
from e2e.testbed.node.view import NodeView
from e2e.testbed.registries.internal import ABSENT, HANGING
from e2e.testbed.roles import PULL, grant, group
from e2e.testbed.streams import tag
from e2e.testbed.support.waiting import wait_for
from e2e.testbed.workloads import (
    PodState,
    deployment_body,
    pod,
    pods,
    wait_all_running,
    wait_hanging,
    wait_running,
)

Object = dict[str, Any]
LONG_ACCOUNT = "an-account-whose-name-is-longer-than-forty-eight-letters"


def stream(name: str, *tags: Object) -> Object:
    """An ImageStream as `kubectl apply` takes it."""
    return {"apiVersion": "image.openshift.io/v1", "kind": "ImageStream", "metadata": {"name": name}, "spec": {"tags": list(tags)}}


def within(namespace: str, *items: Object) -> list[Object]:
    """The same objects in a namespace."""
    return [{**item, "metadata": {**item["metadata"], "namespace": namespace}} for item in items]


def job_body(name: str, image: str, **spec: Any) -> Object:
    """A Job that may not fail once, and whose pod ends at once when it runs."""
    container = {"name": "c0", "image": image, "command": ["/bin/true"]}
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container], "restartPolicy": "Never", **spec}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"backoffLimit": 0, "template": template},
    }


def succeeded(ns: Namespace, name: str) -> bool:
    """Whether a Job has succeeded."""
    status = ns.client.get(f"/apis/batch/v1/namespaces/{ns.name}/jobs/{name}").get("status") or {}
    return bool(status.get("succeeded"))


def apply(product: Product, items: list[Object], folder: Path) -> None:
    """`kubectl apply` of many objects at once."""
    file = folder / "objects.json"
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}), encoding="utf-8")
    product.kubectl("apply", "-f", file)


def wait_known(ns: Namespace, source: str) -> None:
    """Wait until the webhook knows the tag that an image belongs to."""
    wait_for("the webhook knows the tag", lambda: image_in(ns.pod("seen", source, dry_run=True)) != source)


@contextlib.contextmanager
def away(product: Product, *components: str) -> Iterator[None]:
    """Programs of mirrorstream without a pod."""
    names = [f"deployment/mirrorstream-{component}" for component in components]
    before = {component: len(product.pods(component)) for component in components}
    product.kubectl("-n", NAMESPACE, "scale", *names, "--replicas=0")
    try:
        # One that is ending answers for a while.
        wait_for("its pods are gone", lambda: not any(product.pods(each, ending=True) for each in components), seconds=60)
        yield
    finally:
        for name, replicas in zip(names, before.values(), strict=True):
            product.kubectl("-n", NAMESPACE, "scale", name, f"--replicas={replicas}")
        product.wait_available()


def image_of(ns: Namespace, name: str) -> str:
    """The first container's image of a pod, as the API server has it now."""
    return image_in(ns.client.get(f"/api/v1/namespaces/{ns.name}/pods/{name}"))


def image_in(found: Object) -> str:
    """The first container's image."""
    return str(found["spec"]["containers"][0]["image"])


@contextlib.contextmanager
def namespaces(cluster: Cluster, count: int) -> Iterator[list[Namespace]]:
    """Names of namespaces that are not there yet; they are deleted at the end."""
    names = [f"new-{uuid4().hex[:8]}" for _ in range(count)]
    try:
        yield [Namespace(cluster, name) for name in names]
    finally:
        for name in names:
            cluster.client.request("DELETE", f"/api/v1/namespaces/{name}")


def as_namespace(name: str) -> list[Object]:
    """A namespace, and the right to pull that the platform gives the accounts of each."""
    rbac = "rbac.authorization.k8s.io"
    role = {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": {"name": "image-puller"}, "rules": [PULL]}
    binding = {
        "apiVersion": f"{rbac}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "image-puller"},
        "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "image-puller"},
        "subjects": [group(f"system:serviceaccounts:{name}")],
    }
    return [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}, *within(name, role, binding)]


@pytest.fixture
def image(ns: Namespace) -> tuple[str, str]:
    """An image that a digest mirror has and whose source is dead: its reference by tag, and its digest."""
    digest = ns.put("good", "app:1")
    ns.digest_mirrors()
    return ns.source("app:1"), digest


def healed(ns: Namespace, image: tuple[str, str]) -> tuple[str, str]:
    """The image, once a stream of the namespace, from which its accounts may pull, has it."""
    source, digest = image
    ns.allow_pulls()
    ns.create("app", tag("1", source))
    ns.wait_healed("app", "1", digest)
    return source, digest


def test_stream_and_deployment_in_one_apply(
    product: Product, cluster: Cluster, ns: Namespace, image: tuple[str, str], tmp_path: Path
) -> None:
    """In ten new namespaces and one that exists: 20 of 20 pods are ready within 20 s."""
    source, digest = image
    with namespaces(cluster, 10) as new:
        items: list[Object] = []
        for number, namespace in enumerate(new):
            mine = within(namespace.name, stream("app", tag("1", source)), deployment_body("app", source))
            items += [*as_namespace(namespace.name), *mine]
            items += within(ns.name, stream(f"app{number}", tag("1", source)), deployment_body(f"app{number}", source))
        began = time.monotonic()
        apply(product, items, tmp_path)
        for namespace in new:
            found = wait_all_running(namespace, 1, seconds=30)
            assert [state.digests for state in found] == [{"c0": digest}]
        assert {*map(digest_of, wait_all_running(ns, 10, seconds=30))} == {digest}
        assert time.monotonic() - began < 20
        assert sum(state.restarts for namespace in (ns, *new) for state in pods(namespace)) == 0


def digest_of(state: PodState) -> str:
    """The digest that the first container runs."""
    return state.digests.get("c0", "")


def test_a_shared_stream_in_many_namespaces_at_once(
    product: Product, cluster: Cluster, ns: Namespace, image: tuple[str, str], tmp_path: Path
) -> None:
    """Twenty new namespaces with two replicas each: 40 of 40 are ready within 45 s."""
    source, digest = image
    with shared_stream(cluster, ns.name, source, digest), namespaces(cluster, 20) as new:
        items = [
            item
            for each in new
            for item in (*as_namespace(each.name), *within(each.name, deployment_body("app", source, replicas=2)))
        ]
        began = time.monotonic()
        apply(product, items, tmp_path)
        for namespace in new:
            assert {*map(digest_of, wait_all_running(namespace, 2, seconds=60))} == {digest}
        assert time.monotonic() - began < 45
        assert sum(state.restarts for namespace in new for state in pods(namespace)) == 0


@contextlib.contextmanager
def shared_stream(cluster: Cluster, name: str, source: str, digest: str) -> Iterator[None]:
    """A healed stream in the shared namespace `openshift`, from which everybody may pull, as the platform's bootstrap has it."""
    shared = Namespace(cluster, "openshift")
    grant(cluster.client, shared.name, f"puller-{name}", [PULL], group("system:authenticated"))
    shared.create(name, tag("1", source))
    try:
        shared.wait_healed(name, "1", digest)
        yield
    finally:
        shared.delete(name)


def test_an_account_and_its_pod_one_after_the_other(product: Product, ns: Namespace, image: tuple[str, str]) -> None:
    """The account has no pull secret yet when its pod comes, and a pod never gets one later: 60 of 60 within 45 s."""
    source, digest = healed(ns, image)
    count = 30
    began = time.monotonic()
    for number in range(count):
        ns.make("serviceaccounts", {"metadata": {"name": f"pod-{number}"}})
        spec = {
            "serviceAccountName": f"pod-{number}",
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "c0", "image": source}],
        }
        ns.make("pods", early=True, body={"metadata": {"name": f"pod-{number}", "labels": {"app": "pod"}}, "spec": spec})
        ns.make("serviceaccounts", {"metadata": {"name": f"job-{number}"}})
        ns.make("batch/v1/jobs", job_body(f"job-{number}", source, serviceAccountName=f"job-{number}"), early=True)
    running = wait_all_running(ns, count, "app=pod", seconds=60)
    assert {*map(digest_of, running)} == {digest}
    wait_for("all Jobs succeed", lambda: all(succeeded(ns, f"job-{number}") for number in range(count)), seconds=60)
    assert time.monotonic() - began < 45
    assert sum(state.restarts for state in running) == 0


def test_pods_that_were_created_while_the_webhook_was_away(product: Product, ns: Namespace, image: tuple[str, str]) -> None:
    """All run within 25 s of its return."""
    source, digest = healed(ns, image)
    with away(product, "webhook"):
        for number in range(5):
            ns.pod(f"pod-{number}", source, terminationGracePeriodSeconds=1)
        for number in range(5):
            assert wait_hanging(ns, f"pod-{number}")
            assert image_of(ns, f"pod-{number}") == source
    began = time.monotonic()
    assert {*map(digest_of, wait_all_running(ns, 5, seconds=40))} == {digest}
    assert time.monotonic() - began < 25


def test_what_hung_before_the_installation_runs_after_it(product: Product, ns: Namespace, image: tuple[str, str]) -> None:
    """A Deployment, and a Job that may not fail once: both within 40 s."""
    source, digest = image
    ns.allow_pulls()
    with away(product, "webhook", "controller"):
        ns.create("app", tag("1", source))
        ns.make("apps/v1/deployments", deployment_body("web", source))
        ns.make("batch/v1/jobs", job_body("job", source))
        wait_for("both hang", lambda: sum(state.hangs for state in pods(ns)) == 2, seconds=30)
    began = time.monotonic()
    (web,) = wait_all_running(ns, 1, "app=web", seconds=60)
    assert (web.digests, web.restarts) == ({"c0": digest}, 0)
    wait_for("the Job succeeds", lambda: succeeded(ns, "job"), seconds=60)
    assert time.monotonic() - began < 40


def test_a_pod_with_a_pull_secret_of_its_own_runs_by_the_digest(product: Product, ns: Namespace, image: tuple[str, str]) -> None:
    """It never gets its account's, so the node pulls from the mirror."""
    source, digest = image
    ns.allow_pulls()
    ns.create("app", tag("1", source))
    ns.pod("p", source, imagePullSecrets=[{"name": "mine"}], terminationGracePeriodSeconds=1)
    assert wait_running(ns, "p", seconds=20).digests == {"c0": digest}
    assert image_of(ns, "p") == f"{ns.source('app')}@{digest}"


def test_an_account_with_a_long_name_is_served_by_the_internal_registry(
    product: Product, ns: Namespace, image: tuple[str, str]
) -> None:
    """The platform shortens the name in its pull secret's."""
    source, digest = healed(ns, image)
    wait_known(ns, source)
    ns.make("serviceaccounts", {"metadata": {"name": LONG_ACCOUNT}})
    ns.wait_pull_secret(LONG_ACCOUNT)
    ns.pod("p", source, serviceAccountName=LONG_ACCOUNT, terminationGracePeriodSeconds=1)
    assert wait_running(ns, "p", seconds=15).digests == {"c0": digest}
    assert image_of(ns, "p") == f"{ns.get('app')['status']['dockerImageRepository']}@{digest}"


@pytest.mark.parametrize(("state", "seconds"), [(ABSENT, 30), (HANGING, 60)])
def test_the_internal_registry_is_down(
    state: str, seconds: float, product: Product, cluster: Cluster, ns: Namespace, image: tuple[str, str]
) -> None:
    """A pod that was pointed at it runs from the node's mirror; where it accepts and never answers, once the node gives up."""
    source, digest = healed(ns, image)
    wait_known(ns, source)
    with cluster.registry_state(state):
        ns.pod("p", source, terminationGracePeriodSeconds=1)
        assert wait_running(ns, "p", seconds=seconds).digests == {"c0": digest}
        assert image_of(ns, "p") == f"{ns.source('app')}@{digest}"
        assert pod(ns, "p").restarts == 0


def test_no_internal_registry_at_all(
    product: Product, cluster: Cluster, ns: Namespace, image: tuple[str, str], tmp_path: Path
) -> None:
    """A shared stream's pod within 15 s, and a stream with its pod in one apply within 30 s: both by the digest."""
    source, digest = image
    with cluster.registry_absent(), shared_stream(cluster, ns.name, source, digest):
        ns.pod("shared", source, terminationGracePeriodSeconds=1)
        assert wait_running(ns, "shared", seconds=15).digests == {"c0": digest}
        other, wanted = ns.source("other:1"), ns.put("good", "other:1")
        spec = {"containers": [{"name": "c0", "image": other}], "terminationGracePeriodSeconds": 1}
        own = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "own"}, "spec": spec}
        apply(product, within(ns.name, stream("other", tag("1", other)), own), tmp_path)
        assert wait_running(ns, "own", seconds=30).digests == {"c0": wanted}
        assert image_of(ns, "own") == f"{ns.source('other')}@{wanted}"


@pytest.mark.parametrize(
    ("containers", "spec", "metadata"),
    [
        pytest.param({"imagePullPolicy": "Never"}, {}, {}, id="never-pulled"),
        pytest.param({}, {"os": {"name": "windows"}}, {}, id="windows"),
        pytest.param({}, {"nodeName": "{node}"}, {"annotations": {"kubernetes.io/config.mirror": "x"}}, id="mirror-pod"),
    ],
)
def test_pods_that_are_left_alone(
    product: Product, node: NodeView, ns: Namespace, image: tuple[str, str], containers: Object, spec: Object, metadata: Object
) -> None:
    """Each beside one of the same image that is served; a Windows pod is never pointed at the internal registry."""
    source, _ = healed(ns, image)
    wait_known(ns, source)
    chosen = {name: value.format(node=node.name) if isinstance(value, str) else value for name, value in spec.items()}
    body = {
        "metadata": {"name": "p", **metadata},
        "spec": {"containers": [{"name": "c0", "image": source, **containers}], **chosen},
    }
    left = ns.make("pods", body, dry_run=True)["spec"]["containers"][0]["image"]
    repository = ns.get("app")["status"]["dockerImageRepository"]
    assert not left.startswith(repository)
    if "os" not in spec:
        assert left == source
