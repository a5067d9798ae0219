"""What the account that mends pending pods may change, on a real API server: every other change is refused by the policies."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mirrorstream.kube.client import JSON_PATCH, ApiError, Client, load_client

from e2e.testbed.backends import SIMULATOR, Choice
from e2e.testbed.cluster import Cluster, Namespace
from e2e.testbed.installation import PENDING_PODS, WEBHOOK, Installation
from e2e.testbed.support.waiting import wait_for

Object = dict[str, Any]
ANNOTATION = "mirrorstream.github.io/original-images"
ANNOTATED = f"/metadata/annotations/{ANNOTATION.replace('/', '~1')}"
LABEL = "mirrorstream.github.io/repaired"
LABELLED = f"/metadata/labels/{LABEL.replace('/', '~1')}"
DIGEST = f"sha256:{7:064x}"
APP = "registry.example.com/team/app"
IMAGE = "/spec/containers/0/image"


class Account:
    """The webhook's service account, bounded, and a pod that hangs."""

    def __init__(self, ns: Namespace, client: Client) -> None:
        self.ns, self.client = ns, client
        config = ns.client.get("/apis/config.openshift.io/v1/images/cluster")
        self.registry: str = config["status"]["internalRegistryHostname"]

    def path(self, name: str) -> str:
        """A pod's."""
        return f"/api/v1/namespaces/{self.ns.name}/pods/{name}"

    def repair(self, name: str, *operations: Object) -> Object:
        """Changes together with the label; nothing is kept of them."""
        return self.patch(name, *operations, REPAIRED)

    def patch(self, name: str, *operations: Object) -> Object:
        """What the account sends; nothing is kept of it."""
        found: Object = self.client.request(
            "PATCH", self.path(name), body=list(operations), content_type=JSON_PATCH, params={"dryRun": "All"}
        )
        return found

    def refusal(self, name: str, *operations: Object) -> str:
        """Why a policy refuses a patch."""
        with pytest.raises(ApiError) as caught:
            self.patch(name, *operations)
        assert caught.value.status == 403, caught.value.message
        assert "ValidatingAdmissionPolicy 'mirrorstream-pending-pods" in caught.value.message
        return caught.value.message


def put(path: str, value: Any) -> Object:
    """An operation."""
    return {"op": "add", "path": path, "value": value}


REPAIRED = put(LABELLED, "true")


def originals(**entries: str) -> str:
    """As the webhook writes it."""
    return json.dumps(entries, separators=(",", ":"))


@pytest.fixture
def account(ns: Namespace, authorized: Cluster, tmp_path: Path) -> Iterator[Account]:
    """The account, with the policies in force."""
    with Installation(ns.client, ns.name, None, WEBHOOK, (PENDING_PODS,)) as installation:
        installation.wait_effective()
        kubeconfig = installation.kubeconfig(tmp_path / "webhook.kubeconfig", authorized.kubeconfig)
        found = Account(ns, load_client(str(kubeconfig), in_cluster=False, user_agent="an attacker with the account's token"))
        ns.pod("probe", f"{APP}:v1", metadata={"labels": {"app": "probe"}})

        def in_force(*operations: Object) -> bool:
            try:
                found.patch("probe", *operations)
            except ApiError as error:
                return error.status == 403
            return False

        wait_for("the policy is in force", lambda: in_force(put("/metadata/labels/a", "b")))
        # While it cannot resolve paramKind, the server says 422.
        wait_for("the policy of images is in force", lambda: in_force(put(IMAGE, "evil.example.com/a"), REPAIRED))
        yield found


ALLOWED: dict[str, tuple[str, Callable[[Account], str]]] = {
    "the pod's own namespace's stream": (f"{APP}:v1", lambda a: f"{a.registry}/{a.ns.name}/app@{DIGEST}"),
    "a shared namespace's stream": (f"{APP}:v1", lambda a: f"{a.registry}/openshift/app@{DIGEST}"),
    "a digest of the same repository": (f"{APP}:v1", lambda a: f"{APP}@{DIGEST}"),
    "a digest where there is a port": ("mirror.corp:5000/app", lambda a: f"mirror.corp:5000/app@{DIGEST}"),
    "an original without registry": ("busybox:1", lambda a: f"docker.io/library/busybox@{DIGEST}"),
    "one with a path": ("team/app", lambda a: f"docker.io/team/app@{DIGEST}"),
    "docker.io without library": ("docker.io/busybox", lambda a: f"docker.io/library/busybox@{DIGEST}"),
    "its other name": ("index.docker.io/library/busybox:1", lambda a: f"docker.io/library/busybox@{DIGEST}"),
    "localhost": ("localhost/app:1", lambda a: f"localhost/app@{DIGEST}"),
    "another digest": (f"{APP}:v1@sha256:{1:064x}", lambda a: f"{APP}@{DIGEST}"),
}


@pytest.mark.parametrize("case", ALLOWED)
def test_what_the_account_changes_is_allowed(case: str, account: Account) -> None:
    """A pod that hangs, also without annotations and labels, gets a digest of the internal registry's or its own repository."""
    image, target = ALLOWED[case]
    account.ns.pod("app", image, metadata={"annotations": {"a": "b"}, "labels": {"a": "b"}})
    account.ns.pod("bare", image)
    wanted = target(account)
    changed = account.repair("app", put(IMAGE, wanted), put(ANNOTATED, originals(c0=image)))
    assert changed["spec"]["containers"][0]["image"] == wanted
    added = put("/metadata/annotations", {ANNOTATION: originals(c0=image)}), put("/metadata/labels", {LABEL: "true"})
    account.patch("bare", put(IMAGE, wanted), *added)


@pytest.mark.parametrize("original", ["busybox:1", "docker.io/library/busybox:1", "busybox"])
def test_from_the_registry_to_the_repository_of_the_original(original: str, account: Account) -> None:
    """The next way: the old object's annotation says what it was."""
    present = f"{account.registry}/openshift/busybox@{DIGEST}"
    annotations = {ANNOTATION: json.dumps({"c0": original, "x": "y"}, indent=1)}
    account.ns.pod("app", present, metadata={"annotations": annotations, "labels": {LABEL: "true"}})
    account.patch("app", put(IMAGE, f"docker.io/library/busybox@{DIGEST}"))
    account.patch("app", put(IMAGE, f"docker.io/library/busybox@{DIGEST}"), put(ANNOTATED, originals(c0=original)))
    account.refusal("app", put(IMAGE, f"docker.io/library/other@{DIGEST}"))


REFUSED: dict[str, Callable[[Account], list[Object]]] = {
    "another namespace's stream": lambda a: [put(IMAGE, f"{a.registry}/kube-system/app@{DIGEST}")],
    "a longer path in the registry": lambda a: [put(IMAGE, f"{a.registry}/{a.ns.name}/app/more@{DIGEST}")],
    "a shorter path in the registry": lambda a: [put(IMAGE, f"{a.registry}/{a.ns.name}@{DIGEST}")],
    "a tag of the registry": lambda a: [put(IMAGE, f"{a.registry}/{a.ns.name}/app:v1")],
    "a tag and a digest": lambda a: [put(IMAGE, f"{a.registry}/{a.ns.name}/app:v1@{DIGEST}")],
    "another registry": lambda a: [put(IMAGE, f"evil.example.com/{a.ns.name}/app@{DIGEST}")],
    "a registry whose name begins alike": lambda a: [put(IMAGE, f"{a.registry}.example.com/{a.ns.name}/app@{DIGEST}")],
    "another repository": lambda a: [put(IMAGE, f"registry.example.com/team/other@{DIGEST}")],
    "a longer repository": lambda a: [put(IMAGE, f"{APP}/more@{DIGEST}")],
    "a repository that begins alike": lambda a: [put(IMAGE, f"{APP}2@{DIGEST}")],
    "another tag of the same repository": lambda a: [put(IMAGE, f"{APP}:v2")],
    "a digest that is none": lambda a: [put(IMAGE, f"{APP}@sha256:abc")],
    "another image of an init container": lambda a: [put("/spec/initContainers/0/image", f"evil.example.com/a@{DIGEST}")],
    "a label": lambda a: [put("/metadata/labels/app", "x")],
    "a label's value": lambda a: [put("/metadata/labels/a", "c")],
    "a label that goes": lambda a: [{"op": "remove", "path": "/metadata/labels/a"}],
    "an annotation": lambda a: [put("/metadata/annotations/b", "c")],
    "an annotation's value": lambda a: [put("/metadata/annotations/a", "c")],
    "an annotation that goes": lambda a: [{"op": "remove", "path": "/metadata/annotations/a"}],
    "a finalizer": lambda a: [put("/metadata/finalizers", ["example.com/x"])],
    "an owner": lambda a: [
        put("/metadata/ownerReferences", [{"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "1"}]),
    ],
    "a toleration": lambda a: [put("/spec/tolerations/-", {"key": "x", "operator": "Exists"})],
    "a deadline": lambda a: [put("/spec/activeDeadlineSeconds", 1)],
    "another original": lambda a: [put(ANNOTATED, originals(c0="evil.example.com/a:v1"))],
    "an original of another container": lambda a: [put(ANNOTATED, originals(init=f"{APP}:v1"))],
    "two in one": lambda a: [put(ANNOTATED, '{"c0":"registry.example.com/team/app:v1","c0":"evil.example.com/a:v1"}')],
    "an image and a label": lambda a: [put(IMAGE, f"{APP}@{DIGEST}"), put("/metadata/labels/app", "x")],
}


@pytest.mark.parametrize("case", REFUSED)
def test_every_other_change_is_refused(case: str, account: Account) -> None:
    """Under that very account, with the label and without it: RBAC would let it pass."""
    init = [{"name": "init", "image": "registry.example.com/team/init:v1"}]
    account.ns.pod("app", f"{APP}:v1", metadata={"annotations": {"a": "b"}, "labels": {"a": "b"}}, initContainers=init)
    account.refusal("app", *REFUSED[case](account))
    account.refusal("app", *REFUSED[case](account), REPAIRED)
    account.repair("app", put(IMAGE, f"{APP}@{DIGEST}"))


def test_without_the_label_no_image_is_changed(account: Account) -> None:
    """The policy that bounds images sees only pods with it. It is there before the change, or comes with it, and it stays."""
    change = put(IMAGE, f"{APP}@{DIGEST}")
    for name, label in (("plain", {}), ("repaired", {LABEL: "true"}), ("another-value", {LABEL: "no"})):
        account.ns.pod(name, f"{APP}:v1", metadata={"annotations": {"a": "b"}, "labels": {"a": "b", **label}})
    for operations in ([change], [change, put(LABELLED, "false")], [change, put(LABELLED, "")]):
        assert f"only of pods with the label {LABEL}" in account.refusal("plain", *operations)
    account.refusal("another-value", change)
    account.refusal("repaired", change, {"op": "remove", "path": LABELLED})
    account.refusal("repaired", change, put(LABELLED, "false"))
    account.patch("repaired", change)
    account.repair("plain", change)
    account.repair("another-value", change)
    for name in ("plain", "repaired"):
        for operation in (put(LABELLED, "false"), put(LABELLED, ""), put(ANNOTATED, originals(c0=f"{APP}:v1"))):
            account.refusal(name, operation)
        account.refusal(name, {"op": "remove", "path": "/metadata/labels"})
    account.refusal("plain", REPAIRED)
    account.refusal("repaired", {"op": "remove", "path": LABELLED})


def test_the_gates_of_scheduling_stay(account: Account) -> None:
    """Of a gated pod more may be changed than of others: where it may run."""
    account.ns.pod("app", f"{APP}:v1", schedulingGates=[{"name": "example.com/wait"}])
    for change in (put("/spec/nodeSelector", {"a": "b"}), {"op": "remove", "path": "/spec/schedulingGates"}):
        account.refusal("app", change)
        account.refusal("app", change, put("/metadata/labels", {LABEL: "true"}))


def status(account: Account, name: str, value: Object) -> None:
    """What a kubelet would write."""
    account.ns.client.request(
        "PATCH", f"{account.path(name)}/status", body={"status": value}, content_type="application/merge-patch+json"
    )


def test_what_has_started_is_refused(account: Account) -> None:
    """A running pod whole, and in a pending one the containers that ran."""
    change = put(IMAGE, f"{APP}@{DIGEST}")
    account.ns.pod("app", f"{APP}:v1", "registry.example.com/team/side:v1", metadata={"labels": {LABEL: "true"}})
    status(account, "app", {"phase": "Running"})
    assert "pending pods only" in account.refusal("app", change)
    running = {"name": "c0", "ready": True, "restartCount": 0, "image": "x", "imageID": "x"}
    started = {"startedAt": "2026-01-01T00:00:00Z"}
    for state in (
        {**running, "state": {"running": started}},
        {**running, "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "restartCount": 1},
    ):
        status(account, "app", {"phase": "Pending", "containerStatuses": [state]})
        assert "has started" in account.refusal("app", change)
        account.patch("app", put("/spec/containers/1/image", f"registry.example.com/team/side@{DIGEST}"))


def test_pods_are_neither_created_nor_deleted(account: Account) -> None:
    """RBAC does not grant it."""
    pod = {"metadata": {"name": "x"}, "spec": {"containers": [{"name": "a", "image": "b"}]}}
    for method, path, body in (("POST", account.path("").rstrip("/"), pod), ("DELETE", account.path("probe"), None)):
        with pytest.raises(ApiError, match=r"is forbidden: User .* cannot (create|delete) resource") as caught:
            account.client.request(method, path, body=body)
        assert caught.value.status == 403


def test_a_kube_apiserver_that_starts_denies_only_updates_of_repaired_pods(
    own_cluster: Callable[..., Cluster], chosen: Choice, record_property: Callable[[str, object], None]
) -> None:
    """It cannot resolve paramKind at first, and denies all requests that the policy of images matches, by any user."""
    if chosen.backend == SIMULATOR:
        pytest.skip("the simulator evaluates no policies")
    cluster = own_cluster()
    assert cluster.plane
    with cluster.namespace() as ns, Installation(ns.client, ns.name, None, WEBHOOK, (PENDING_PODS,)):
        ns.pod("before", "example.com/app:v1")
        ns.pod("repaired", "example.com/app:v1", metadata={"labels": {LABEL: "true"}})
        denied = []  # where a policy matches, many starts deny requests, but not every one
        for _ in range(3):
            cluster.plane.restart("kube-apiserver")
            end = time.monotonic() + 5
            while time.monotonic() < end:
                for name in ("before", "repaired"):
                    create_and_delete(ns, name)
                change(ns, "before")
                try:
                    change(ns, "repaired")
                except ApiError as error:
                    denied.append(error.message)
        record_property("updates of a repaired pod that were denied", len(denied))
        assert [message for message in denied if "failed to configure" not in message] == []


def test_without_an_image_config_only_updates_of_repaired_pods_are_denied(
    own_cluster: Callable[..., Cluster], chosen: Choice
) -> None:
    """By parameterNotFoundAction, to any user."""
    if chosen.backend == SIMULATOR:
        pytest.skip("the simulator evaluates no policies")
    with own_cluster().namespace() as ns, Installation(ns.client, ns.name, None, WEBHOOK, (PENDING_PODS,)):
        ns.pod("plain", "example.com/app:v1")
        ns.pod("repaired", "example.com/app:v1", metadata={"labels": {LABEL: "true"}})
        ns.client.request("DELETE", "/apis/config.openshift.io/v1/images/cluster")

        def denied() -> bool:
            try:
                change(ns, "repaired")
            except ApiError as error:
                return "no params found" in error.message
            return False

        wait_for("the policy of images is in force", denied)
        change(ns, "plain")
        for name in ("plain", "repaired"):
            create_and_delete(ns, name)


def change(ns: Namespace, name: str) -> None:
    """Update a pod as any user may; nothing is kept of it."""
    ns.client.request(
        "PATCH",
        f"/api/v1/namespaces/{ns.name}/pods/{name}",
        params={"dryRun": "All"},
        body=[put("/metadata/annotations", {"a": "b"})],
        content_type=JSON_PATCH,
    )


def create_and_delete(ns: Namespace, name: str) -> None:
    """Create a pod like another one, and delete that one, as any user may; nothing is kept of it."""
    path, dry = f"/api/v1/namespaces/{ns.name}/pods", {"dryRun": "All"}
    found = ns.client.get(f"{path}/{name}")
    metadata = {"name": "new", "labels": found["metadata"].get("labels", {})}
    ns.client.request("POST", path, params=dry, body={"metadata": metadata, "spec": found["spec"]})
    ns.client.request("DELETE", f"{path}/{name}", params=dry)


def test_two_hundred_containers_are_within_the_policys_budget(account: Account) -> None:
    """The API server stops an expression that costs too much, and failurePolicy Fail refuses then."""
    images = [f"registry.example.com/a-team-with-a-long-name/an-application-{number}:v1.2.3" for number in range(200)]
    account.ns.pod("app", *images, metadata={"annotations": {"a": "b"}, "labels": {LABEL: "true"}})
    changes = [
        put(f"/spec/containers/{n}/image", f"{account.registry}/{account.ns.name}/application-{n}@{DIGEST}") for n in range(200)
    ]
    account.patch("app", *changes, put(ANNOTATED, originals(**{f"c{n}": image for n, image in enumerate(images)})))
    account.refusal("app", *changes, put(IMAGE, f"evil.example.com/a@{DIGEST}"))
