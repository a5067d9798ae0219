"""Pods whose image belongs to a Local tag get its digest, as they can pull it, on every back end; all others stay as they are."""

from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest
from mirrorstream.kube.client import ApiError

from e2e.scenarios.conftest import Hook, Start
from e2e.testbed.backends import CONTROLPLANE, SIMULATOR, Choice
from e2e.testbed.cluster import Cluster, Namespace
from e2e.testbed.programs.hooks import SIGNATURES, signature_policy
from e2e.testbed.programs.installed import healed, rewrites, settled
from e2e.testbed.programs.program import Webhook
from e2e.testbed.streams import tag
from e2e.testbed.support.waiting import wait_for
from e2e.testbed.workloads import images, originals

Object = dict[str, Any]
LABEL = {"mirrorstream.github.io/rewrite": "disabled"}


def test_a_pod_that_names_the_upstream_runs_from_the_internal_registry(ns: Namespace, start: Start, hook: Hook) -> None:
    """From the tag's failure to the pod: nobody wrote anything but the upstream's reference."""
    ns.allow_pulls()
    source, wanted = healed(ns, start)
    webhook = hook()
    settled(ns, source, wanted)
    by_digest = f"{ns.source('app')}@{wanted.partition('@')[2]}"
    pod = ns.pod("app", source, by_digest, "example.com/other:v1", initContainers=[{"name": "init", "image": source}])
    assert images(pod) == [wanted, wanted, "example.com/other:v1"]
    assert pod["spec"]["initContainers"][0]["image"] == wanted
    assert originals(pod) == {"c0": source, "c1": by_digest, "init": source}
    stored = ns.client.get(f"/api/v1/namespaces/{ns.name}/pods/app")
    assert stored["spec"]["containers"][0]["image"] == wanted
    assert webhook.metric("mirrorstream_webhook_images_total", result="rewritten") >= 3


def test_updates_change_only_what_changed(ns: Namespace, start: Start, hook: Hook) -> None:
    """The API server calls the webhook only if an image changes. If the same image is set again, nothing restarts."""
    ns.allow_pulls()
    source, wanted = healed(ns, start)
    webhook = hook()
    settled(ns, source, wanted)
    ns.pod("app", source, "example.com/other:v1", initContainers=[{"name": "init", "image": "example.com/init:v1"}])
    path = f"/api/v1/namespaces/{ns.name}/pods/app"
    examined = webhook.metric("mirrorstream_webhook_images_total")

    def patch(body: Object) -> Object:
        answer: Object = ns.client.request("PATCH", path, body=body, content_type="application/strategic-merge-patch+json")
        return answer

    if ns.cluster.backend == SIMULATOR:
        pytest.skip("the simulator knows no strategic merge")
    reviews = webhook.metric("mirrorstream_webhook_reviews_total")
    labelled = patch({"metadata": {"labels": {"a": "b"}}})
    assert images(labelled) == [wanted, "example.com/other:v1"]
    assert webhook.metric("mirrorstream_webhook_reviews_total") == reviews, "the API server does not even ask"
    assert webhook.metric("mirrorstream_webhook_images_total") == examined
    changed = patch({"spec": {"containers": [{"name": "c1", "image": source}]}})
    assert images(changed) == [wanted, wanted]
    assert originals(changed) == {"c0": source, "c1": source}
    init = patch({"spec": {"initContainers": [{"name": "init", "image": source}]}})
    assert init["spec"]["initContainers"][0]["image"] == wanted
    again = patch({"spec": {"containers": [{"name": "c0", "image": source}]}})
    assert images(again) == [wanted, wanted]
    away = patch({"spec": {"containers": [{"name": "c0", "image": "example.com/another:v1"}]}})
    assert images(away) == ["example.com/another:v1", wanted]
    assert originals(away) == {"c1": source, "init": source}


def test_a_shared_namespace_serves_those_who_may_pull_from_it(ns: Namespace, start: Start, hook: Hook, cluster: Cluster) -> None:
    """A stream of another namespace is used only if that namespace is shared, and the pod's account may pull there."""
    with ExitStack() as stack:
        other, stranger = (stack.enter_context(cluster.namespace()) for _ in range(2))
        source, wanted = healed(ns, start)
        webhook = hook(other, stranger, webhook={"sharedNamespaces": [ns.name]})
        ns.deny_pulls(f"{stranger.name}:default")
        ns.allow_pulls(everybody=True)
        wait_for("it is rewritten", lambda: rewrites(other, source, wanted))
        if cluster.backend == SIMULATOR:
            assert images(stranger.pod("app", source)) == [source]
            assert webhook.metric("mirrorstream_webhook_images_total", result="no-access") >= 1
        webhook.configure({"webhook": {"sharedNamespaces": []}})
        wait_for("it is shared no more", lambda: rewrites(other, source, source))


def test_without_the_right_to_pull_a_pod_is_not_pointed_at_the_internal_registry(ns: Namespace, start: Start, hook: Hook) -> None:
    """In its own namespace, too: it could not pull from there. The node pulls the digest from its mirror."""
    source, wanted = healed(ns, start)
    ns.deny_pulls(f"{ns.name}:default")
    webhook = hook(webhook={"serveFrom": ["registry"]})
    wait_for("it has been looked at", lambda: _counted(webhook, ns, source, "no-access"))
    assert images(ns.pod("app", source)) == [source]
    webhook.configure({})
    settled(ns, source, by_digest(ns, wanted))
    if ns.cluster.backend != SIMULATOR:
        ns.allow_pulls()
        settled(ns, source, wanted)


def by_digest(ns: Namespace, wanted: str) -> str:
    """The digest that the internal registry would serve, as nodes pull it from the mirror."""
    return f"{ns.source('app')}@{wanted.partition('@')[2]}"


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"imagePullSecrets": [{"name": "mine"}]}, id="pull-secrets-of-its-own"),
        pytest.param({"nodeSelector": {"kubernetes.io/os": "windows"}}, id="windows"),
    ],
)
def test_a_pod_that_cannot_use_the_internal_registry_gets_the_digest(ns: Namespace, start: Start, hook: Hook, spec: Object) -> None:
    """Beside one that can; applied again it keeps what it has."""
    ns.allow_pulls()
    source, wanted = healed(ns, start)
    hook()
    settled(ns, source, wanted)
    pod = ns.pod("app", source, **spec)
    assert images(pod) == [by_digest(ns, wanted)]
    assert originals(pod) == {"c0": source}


def test_a_pod_whose_account_has_no_pull_secret_yet_gets_the_digest(
    ns: Namespace, start: Start, hook: Hook, cluster: Cluster
) -> None:
    """ServiceAccount admission runs before the webhook, and a pod's list of secrets never changes."""
    if cluster.backend not in (SIMULATOR, CONTROLPLANE):
        pytest.skip("the platform's own controllers take as long as they take")
    ns.allow_pulls(everybody=True)
    source, wanted = healed(ns, start)
    with cluster.namespace(secrets_after=(3600, 0)) as new:
        hook(new, webhook={"sharedNamespaces": [ns.name]})
        settled(ns, source, wanted)
        wait_for("it is served", lambda: images(new.pod("seen", source, dry_run=True, early=True)) == [by_digest(ns, wanted)])


def test_a_version_bump_never_gets_the_version_before(ns: Namespace, start: Start, hook: Hook) -> None:
    """The tag's `from` goes from app:v1 to app:v2 while the upstream is dead: v2 is not served before it is imported."""
    ns.allow_pulls()
    source, wanted = healed(ns, start)
    second = ns.put("good", "app:v2")
    hook()
    settled(ns, source, wanted)
    new = ns.source("app:v2")

    def bump(stream: Object) -> None:
        (entry,) = [entry for entry in stream["spec"]["tags"] if entry["name"] == "v1"]
        entry["from"]["name"] = new

    ns.change("app", bump)
    seen = set()
    repository = wanted.partition("@")[0]

    def served() -> bool:
        (image,) = images(ns.pod("seen", new, dry_run=True))
        seen.add(image)
        return image == f"{repository}@{second}"

    wait_for("the new version is served", served)
    assert seen <= {new, f"{repository}@{second}"}


def test_the_internal_registry_comes_and_goes(ns: Namespace, start: Start, hook: Hook, cluster: Cluster) -> None:
    """Its name in the Image config decides, at once, though no stream changes."""
    if cluster.backend != SIMULATOR:
        pytest.skip("other scenarios need the registry of a cluster that they share; the node's have one where there is none")
    source, wanted = healed(ns, start)
    hook()
    settled(ns, source, wanted)
    with cluster.registry_absent():
        settled(ns, source, by_digest(ns, wanted))
    settled(ns, source, wanted)


def _counted(webhook: Webhook, ns: Namespace, source: str, result: str) -> bool:
    """Whether an image of a dry run came to this result."""
    before = webhook.metric("mirrorstream_webhook_images_total", result=result)
    ns.pod("seen", source, dry_run=True)
    return webhook.metric("mirrorstream_webhook_images_total", result=result) > before


@pytest.mark.parametrize(
    ("metadata", "spec", "result"),
    [
        pytest.param({"labels": LABEL}, {}, "", id="opted-out"),
        pytest.param(
            {"annotations": {"kubernetes.io/config.mirror": "0123"}},
            {"nodeName": "elsewhere"},
            "static-pod",
            id="a-static-pods-mirror-pod",
        ),
        pytest.param(
            {"ownerReferences": [{"apiVersion": "example.com/v1", "kind": "Database", "name": "db", "uid": "1"}]},
            {},
            "excluded-owner",
            id="an-owner-that-compares-images",
        ),
    ],
)
def test_pods_that_are_left_alone(ns: Namespace, start: Start, hook: Hook, metadata: Object, spec: Object, result: str) -> None:
    """Each beside one of the same image that is rewritten."""
    ns.allow_pulls()
    source, wanted = healed(ns, start)
    webhook = hook(webhook={"excludeOwners": ["Database.example.com"]})
    settled(ns, source, wanted)
    reviews = webhook.metric("mirrorstream_webhook_reviews_total")
    left = ns.pod("left", source, metadata=metadata, **spec)
    assert images(left) == [source]
    assert originals(left) is None
    if result:
        assert webhook.metric("mirrorstream_webhook_images_total", result=result) == 1
    else:
        assert webhook.metric("mirrorstream_webhook_reviews_total") == reviews, "the API server does not even ask"


def test_a_namespace_opts_out_by_its_label(ns: Namespace, start: Start, hook: Hook) -> None:
    """And back in."""
    ns.allow_pulls()
    source, wanted = healed(ns, start)
    hook()
    settled(ns, source, wanted)
    path = f"/api/v1/namespaces/{ns.name}"
    for labels, expected in ((LABEL, source), ({"mirrorstream.github.io/rewrite": None}, wanted)):
        ns.client.request("PATCH", path, body={"metadata": {"labels": labels}}, content_type="application/merge-patch+json")
        wait_for("the label counts", partial(rewrites, ns, source, expected))


def test_what_guards_the_upstream_image_is_never_walked_around(ns: Namespace, start: Start, hook: Hook) -> None:
    """A signature policy that appears, and one that goes: the pod's reference decides at that moment."""
    ns.allow_pulls()
    source, wanted = healed(ns, start)
    webhook = hook()
    settled(ns, source, wanted)
    path = f"{SIGNATURES}/namespaces/{ns.name}/imagepolicies"
    ns.client.request("POST", path, body=signature_policy("ImagePolicy", "signed", ns.source("app")))
    wait_for("the policy counts", lambda: rewrites(ns, source, source))
    assert webhook.metric("mirrorstream_webhook_images_total", result="signature-policy") >= 1
    ns.client.request("DELETE", f"{path}/signed")
    settled(ns, source, wanted)


def test_a_registry_that_is_blocked_later_is_respected(ns: Namespace, start: Start, hook: Hook, cluster: Cluster) -> None:
    """The node would refuse the image: so it stays refused."""
    if not cluster.is_ours:
        pytest.skip("the Image config is not ours")
    ns.allow_pulls()
    source, wanted = healed(ns, start)
    webhook = hook()
    settled(ns, source, wanted)
    blocked = ns.source("app")
    cluster.change_image_config(lambda spec: spec["registrySources"]["blockedRegistries"].append(blocked))
    try:
        wait_for("it is left alone", lambda: rewrites(ns, source, source))
        assert webhook.metric("mirrorstream_webhook_images_total", result="blocked") >= 1
    finally:
        cluster.change_image_config(lambda spec: spec["registrySources"]["blockedRegistries"].remove(blocked))


def test_only_what_a_mirror_set_covers_until_all_is_wanted(ns: Namespace, start: Start, hook: Hook) -> None:
    """A Local tag that the platform imported itself: the node pulls it as ever, unless scope is all; observe changes nothing."""
    ns.allow_pulls()
    ns.cluster.put("good", f"{ns.name}/app", "v1")
    source = ns.source("app:v1", "good")
    ns.create("app", tag("v1", source, importPolicy={"insecure": True}))
    item = ns.wait_healed("app", "v1")
    wanted = f"{ns.get('app')['status']['dockerImageRepository']}@{item['image']}"
    webhook = hook()
    wait_for("the webhook knows the tag", lambda: _counted(webhook, ns, source, "not-mirrored"))
    assert images(ns.pod("app", source)) == [source]
    webhook.configure({"webhook": {"scope": "all"}})
    settled(ns, source, wanted)
    webhook.configure({"webhook": {"scope": "all"}, "mode": "observe"})
    wait_for("it only observes", lambda: _counted(webhook, ns, source, "observed"))
    assert images(ns.pod("observed", source)) == [source]


def test_a_pod_before_its_tag_is_healed_waits_for_the_tag(ns: Namespace, start: Start, hook: Hook) -> None:
    """The pod gets the tag of the internal registry, which resolves once the controller has healed it."""
    ns.allow_pulls()
    digest = ns.put("good", "app:v1")
    ns.digest_mirrors()
    source = ns.source("app:v1")
    ns.create("app", tag("v1", source))
    ns.wait_failed("app", "v1")
    repository = ns.get("app")["status"]["dockerImageRepository"]
    webhook = hook()
    wait_for("the webhook knows the failure", lambda: rewrites(ns, source, f"{repository}:v1"))
    pod = ns.pod("app", source)
    assert images(pod) == [f"{repository}:v1"]
    assert originals(pod) == {"c0": source}
    start()
    ns.wait_healed("app", "v1", digest)
    # What the internal registry resolves `repository:v1` by.
    found = ns.client.get(f"/apis/image.openshift.io/v1/namespaces/{ns.name}/imagestreamtags/app:v1")
    assert found["image"]["metadata"]["name"] == digest
    settled(ns, source, f"{repository}@{digest}")
    webhook.configure({"webhook": {"pendingTags": "leave"}})
    settled(ns, source, f"{repository}@{digest}")


def test_a_pod_of_a_failed_tag_is_left_alone_where_that_is_wanted(ns: Namespace, hook: Hook) -> None:
    """pendingTags: leave: the node may reach what the API server does not."""
    ns.allow_pulls()
    ns.digest_mirrors()
    source = ns.source("app:v1")
    ns.create("app", tag("v1", source))
    ns.wait_failed("app", "v1")
    webhook = hook(webhook={"pendingTags": "leave"})
    wait_for("the webhook knows the failure", lambda: _counted(webhook, ns, source, "not-imported"))
    assert images(ns.pod("app", source)) == [source]


def test_a_webhook_that_is_down_keeps_no_pod_from_being_made(ns: Namespace, start: Start, hook: Hook) -> None:
    """FailurePolicy Ignore: the pod goes on as it is."""
    ns.allow_pulls()
    source, wanted = healed(ns, start)
    webhook = hook()
    settled(ns, source, wanted)
    webhook.process.kill()
    assert images(ns.pod("app", source)) == [source]


def test_what_the_api_server_refuses_it_still_refuses(ns: Namespace, start: Start, hook: Hook) -> None:
    """A pod that is no pod gets the API server's own answer."""
    source, _ = healed(ns, start)
    hook()
    if ns.cluster.backend == SIMULATOR:
        pytest.skip("the simulator validates no pods")
    with pytest.raises(ApiError) as refused:
        ns.pod("app", source, restartPolicy="Sometimes")
    assert refused.value.status == 422


def test_bare_names_are_the_platforms_to_resolve(ns: Namespace, start: Start, hook: Hook, chosen: Choice) -> None:
    """lookupPolicy.local: what the built-in admission makes of `stream:tag` is the same with and without the webhook.

    In pods it is OpenShift's own kube-apiserver that resolves them; on OpenShift's API server here a DeploymentConfig shows it.
    """
    ns.allow_pulls()
    digest = ns.put("good", "app:v1")
    ns.digest_mirrors()
    start()
    ns.create("app", tag("v1", ns.source("app:v1")), lookupPolicy={"local": True})
    ns.wait_healed("app", "v1", digest)
    wanted = f"{ns.get('app')['status']['dockerImageRepository']}@{digest}"
    template = {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c0", "image": "app:v1"}]}}
    config = {"metadata": {"name": "x"}, "spec": {"replicas": 0, "selector": {"app": "x"}, "template": template}}

    def resolved() -> list[str]:
        found = images(ns.pod("seen", "app:v1", dry_run=True))
        if chosen.openshift_programs:
            found += images(ns.make("apps.openshift.io/v1/deploymentconfigs", config, dry_run=True)["spec"]["template"])
        return found

    before = resolved()
    hook()
    settled(ns, ns.source("app:v1"), wanted)
    assert resolved() == before
    assert images(ns.pod("resolved", wanted)) == [wanted], "what the platform has resolved already"
