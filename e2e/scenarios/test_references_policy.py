"""What the design note on MutatingAdmissionPolicy says of CEL is so: each claim is tried with a policy in kube-apiserver.

Nothing of mirrorstream runs here.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from mirrorstream.kube.client import MERGE_PATCH, ApiError

from e2e.testbed import references_policy
from e2e.testbed.access import is_allowed
from e2e.testbed.cluster import Cluster, Namespace
from e2e.testbed.roles import PULL, grant, group
from e2e.testbed.support.waiting import wait_for

Object = dict[str, Any]
APP, TOOL, WAITING = "registry.example.com/team/app", "registry.example.com/team/tool", "registry.example.com/team/waiting:v1"
DIGEST = f"sha256:{7:064x}"
REGISTRY = "registry.test:5000"
REFERENCES = {
    f"{APP}:v1": f"app@{DIGEST}",
    f"{APP}@{DIGEST}": f"app@{DIGEST}",
    f"{TOOL}:v1": f"tool@{DIGEST}",
    WAITING: "waiting:v1",
}
ORIGINALS = "mirrorstream.github.io/original-images"
Apply = Callable[..., None]
SEEN = {
    "patchType": "ApplyConfiguration",
    "applyConfiguration": {"expression": "Object{metadata: Object.metadata{labels: {'seen': 'yes'}}}"},
}
CHECK = (
    "authorizer.serviceAccount(request.namespace, 'default').group('image.openshift.io').resource('imagestreams')"
    ".subresource('layers').namespace(request.namespace).name('app').check('get').allowed()"
)


@pytest.fixture
def policy(authorized: Cluster, ns: Namespace) -> Iterator[Apply]:
    """Put the note's policy in force for the namespace, changed by `change(policy, binding)`. Pods that it sees get a label."""
    references_policy.define(ns.client)
    body = references_policy.parameters("references", REGISTRY, REFERENCES)
    ns.client.request("POST", references_policy.path(ns.name), body=body)
    applied: list[str] = []

    def apply(change: Callable[[Object, Object], Any] = lambda policy, binding: None) -> None:
        def changed(policy: Object, binding: Object) -> None:
            policy["mutations"].append(SEEN)
            change(policy, binding)

        references_policy.apply(ns.client, ns.name, [ns.name], changed)
        applied.append(ns.name)
        wait_for("the policy is in force", lambda: seen(made(ns, f"{APP}:v1")), step=0.25)

    yield apply
    for name in applied:
        references_policy.remove(ns.client, name)


def seen(pod: Object) -> bool:
    """Whether the policy has seen it and decided about it, whatever it decided."""
    return "seen" in pod["metadata"].get("labels", {})


def made(ns: Namespace, *images: str, metadata: Object | None = None, **spec: Any) -> Object:
    """A pod as it would be created."""
    return ns.pod("app", *images, dry_run=True, metadata=metadata, **spec)


def images(pod: Object) -> list[str]:
    """Those of its containers."""
    return [container["image"] for container in pod["spec"]["containers"]]


def rewritten(ns: Namespace, *names: str, metadata: Object | None = None, **spec: Any) -> bool:
    """Whether all its containers' images become the internal registry's."""
    return all(image.startswith(REGISTRY) for image in images(made(ns, *names, metadata=metadata, **spec)))


def test_own_tags_get_their_digest(policy: Apply, ns: Namespace) -> None:
    """By tag and by digest, also of init containers; other images stay, and the pod keeps its originals."""
    ns.allow_pulls()
    policy()
    init = [{"name": "first", "image": f"{TOOL}:v1"}]
    pod = made(ns, f"{APP}:v1", "other:v1", f"{APP}@{DIGEST}", initContainers=init, metadata={"annotations": {"a": "b"}})
    mine = f"{REGISTRY}/{ns.name}"
    assert images(pod) == [f"{mine}/app@{DIGEST}", "other:v1", f"{mine}/app@{DIGEST}"]
    assert pod["spec"]["initContainers"][0]["image"] == f"{mine}/tool@{DIGEST}"
    originals = {"c0": f"{APP}:v1", "c2": f"{APP}@{DIGEST}", "first": f"{TOOL}:v1"}
    assert (json.loads(pod["metadata"]["annotations"].pop(ORIGINALS)), pod["metadata"]["annotations"]) == (originals, {"a": "b"})
    # A tag without an image can only be written down by who knows that it waits.
    assert images(made(ns, WAITING)) == [f"{mine}/waiting:v1"]


def test_the_sources_digest_can_be_served_too(policy: Apply, ns: Namespace) -> None:
    """To pods that cannot log in to the internal registry: the parameters need nothing more for it."""
    ns.allow_pulls()

    def change(policy: Object, binding: Object) -> None:
        patch = policy["mutations"][0]["jsonPatch"]
        # kube-apiserver calls the policy again with what it has made, which is one of the references.
        repository = "f.image.contains('@') ? f.image.split('@')[0] : f.image.substring(0, f.image.lastIndexOf(':'))"
        target = f"({repository}) + '@' + params.references[f.image].split('@')[1]"
        replaced = f"JSONPatch{{op: 'replace', path: f.path, value: {target}}}"
        patch["expression"] = f"!variables.logsIn ? variables.found.map(f, {replaced}) : ({patch['expression']})"

    policy(change)
    assert images(made(ns, f"{APP}:v1", imagePullSecrets=[{"name": "other"}])) == [f"{APP}@{DIGEST}"]
    assert rewritten(ns, f"{APP}:v1")


def test_pods_that_opt_out_or_cannot_log_in_stay(policy: Apply, ns: Namespace) -> None:
    """By label of the pod or the namespace, by pull policy, and without the account's own pull secret."""
    ns.allow_pulls()
    policy()
    disabled = {"labels": {"mirrorstream.github.io/rewrite": "disabled"}}
    never = [{"name": "c0", "image": f"{APP}:v1", "imagePullPolicy": "Never"}]
    assert rewritten(ns, f"{APP}:v1")
    assert not rewritten(ns, f"{APP}:v1", metadata=disabled)
    assert not rewritten(ns, containers=never)
    without = made(ns, f"{APP}:v1", imagePullSecrets=[{"name": "other"}])
    assert (images(without), seen(without)) == ([f"{APP}:v1"], True)
    ns.client.request("PATCH", f"/api/v1/namespaces/{ns.name}", body={"metadata": disabled}, content_type=MERGE_PATCH)
    wait_for("the namespace has opted out", lambda: not rewritten(ns, f"{APP}:v1"))


def test_the_right_to_pull_is_known_but_not_what_everybody_may(policy: Apply, ns: Namespace) -> None:
    """The authorizer's service account is in the groups of service accounts only; a registry also looks at system:authenticated."""
    ns.allow_pulls(everybody=True)
    attributes = {
        "namespace": ns.name,
        "verb": "get",
        "group": "image.openshift.io",
        "resource": "imagestreams",
        "subresource": "layers",
    }
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{ns.name}", "system:authenticated"]
    spec = {
        "user": f"system:serviceaccount:{ns.name}:default",
        "groups": groups,
        "resourceAttributes": {**attributes, "name": "app"},
    }
    wait_for("everybody may pull", lambda: is_allowed(ns.client, spec))
    policy()
    assert not rewritten(ns, f"{APP}:v1")
    grant(ns.client, ns.name, "own-image-puller", [PULL], group(f"system:serviceaccounts:{ns.name}"))
    wait_for("the account's own right counts", lambda: rewritten(ns, f"{APP}:v1"))


def test_an_expression_asks_about_two_streams_at_most(policy: Apply, ns: Namespace) -> None:
    """Variables have a limit each. A policy that comes to a limit keeps no pod from being created."""
    ns.allow_pulls()

    def change(policy: Object, binding: Object) -> None:
        (may_pull,) = (variable for variable in policy["variables"] if variable["name"] == "mayPull")
        together = f"lists.range(int(object.metadata.annotations['together'])).all(i, {CHECK})"
        apart = " && ".join(f"variables.check{number}" for number in range(5))
        may_pull["expression"] = f"'together' in object.metadata.?annotations.orValue({{}}) ? {together} : {apart}"
        policy["variables"][:0] = [{"name": f"check{number}", "expression": CHECK} for number in range(5)]

    policy(change)
    asked = {number: made(ns, f"{APP}:v1", metadata={"annotations": {"together": str(number)}}) for number in (2, 3)}
    assert [images(pod)[0].startswith(REGISTRY) for pod in asked.values()] == [True, False]
    assert seen(asked[3])
    assert rewritten(ns, f"{APP}:v1")


def test_without_parameters_pods_are_created_unchanged(policy: Apply, ns: Namespace) -> None:
    """Nobody has to be there for it: what is not written down is not decided."""
    ns.allow_pulls()
    policy()
    ns.client.request("DELETE", references_policy.path(ns.name, "references"))
    wait_for("the parameters are gone", lambda: not seen(made(ns, f"{APP}:v1")))
    assert images(made(ns, f"{APP}:v1")) == [f"{APP}:v1"]


def test_a_policy_has_one_kind_of_parameters_and_no_audit_annotations(authorized: Cluster, ns: Namespace) -> None:
    """So it cannot read mirror sets or signature policies beside its references, and cannot say why it left an image alone."""
    kind = "MutatingAdmissionPolicy"
    document = references_policy.documents()[kind]
    image_policies = {"apiVersion": "config.openshift.io/v1", "kind": "ImagePolicy"}
    annotations = [{"key": "images", "valueExpression": "'rewritten'"}]
    path, strict = references_policy.KINDS[kind], {"dryRun": "All", "fieldValidation": "Strict"}
    for field, value in (("paramKind", [document["spec"]["paramKind"], image_policies]), ("auditAnnotations", annotations)):
        body = {**document, "spec": {**document["spec"], field: value}}
        with pytest.raises(ApiError, match=field) as caught:
            ns.client.request("POST", path, body=body, params=strict)
        assert caught.value.status == 400
