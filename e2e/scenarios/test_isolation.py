"""One namespace learns nothing of another through mirrorstream, and decides nothing for it."""

import json
import ssl
import urllib.request
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from mirrorstream.kube.client import ApiError

from e2e.scenarios.conftest import Hook, Start
from e2e.testbed.cluster import Cluster, Namespace
from e2e.testbed.programs.commands import Commands
from e2e.testbed.programs.installed import settled
from e2e.testbed.programs.program import Webhook
from e2e.testbed.streams import IMAGE_API, tag
from e2e.testbed.support.waiting import wait_for
from e2e.testbed.tenant import tenant
from e2e.testbed.workloads import images

Object = dict[str, Any]
IMAGES = f"{IMAGE_API}/namespaces"


def readable(ns: Namespace) -> str:
    """All that an owner of a namespace can read there of what mirrorstream writes or has a hand in, as one text."""
    streams = ns.streams()
    found: list[Any] = [*streams, ns.client.get(f"/api/v1/namespaces/{ns.name}/events")]
    found.append(ns.client.get(f"/api/v1/namespaces/{ns.name}/pods"))
    for stream in streams:
        name = stream["metadata"]["name"]
        for status in stream["status"].get("tags") or []:
            for item in status.get("items") or []:
                found.append(ns.client.get(f"{IMAGES}/{ns.name}/imagestreamtags/{name}:{status['tag']}"))
                shown = ns.client.get(f"{IMAGES}/{ns.name}/imagestreamimages/{name}@{item['image']}")
                # docs/security.md names this limit of the platform.
                del shown["image"]["dockerImageReference"]
                found.append(shown)
    return json.dumps(found)


def shown_audit(webhook: Webhook, ns: Namespace, image: str) -> Object:
    """What the audit annotation says of a pod of the default service account with one image: a review as the API server asks."""
    kind = {"group": "", "version": "v1", "kind": "Pod"}
    secrets = [{"name": "default-dockercfg-x7k2p"}]
    spec = {"containers": [{"name": "c0", "image": image}], "serviceAccountName": "default", "imagePullSecrets": secrets}
    pod = {"metadata": {}, "spec": spec}
    request = {"uid": "u1", "kind": kind, "operation": "CREATE", "namespace": ns.name, "object": pod}
    body = json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}).encode()
    trusted = ssl.create_default_context(cafile=str(webhook.authority.certificate))
    asked = urllib.request.Request(webhook.url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=10, context=trusted) as answer:
        response = json.load(answer)["response"]
    (audited,) = json.loads(response["auditAnnotations"]["images"])
    found: Object = audited
    return found


def _came_to(webhook: Webhook, ns: Namespace, image: str, result: str) -> bool:
    return bool(shown_audit(webhook, ns, image)["result"] == result)


def _import_from(name: str, source: str, stream: Object) -> None:
    """Have a tag import another image."""
    next(entry for entry in stream["spec"]["tags"] if entry["name"] == name)["from"]["name"] = source


def test_nothing_that_a_tenant_can_read_names_another_namespaces_images(ns: Namespace, start: Start, cluster: Cluster) -> None:
    """Not even of an image that both have, and that the other had first: the cluster has one Image for both.

    The exception is `dockerImageReference` in an ImageStreamImage: the platform shows the first importer's reference to everybody.
    """
    with cluster.namespace() as other:
        seed = f"the same for {ns.name}"
        digest = other.put("good", "secret-product:v1", seed=seed)
        assert ns.put("other", "app:v1", seed=seed) == digest
        hidden = other.put("good", "hidden:v1")
        other.digest_mirrors()
        ns.digest_mirrors(ns.mirror("other"))
        start(namespaces={"include": [ns.name, other.name]})
        other.create("secret-product", tag("v1", other.source("secret-product:v1")), tag("hidden", other.source("hidden:v1")))
        other.wait_healed("secret-product", "v1", digest)
        other.wait_healed("secret-product", "hidden", hidden)
        ns.create("app", tag("v1", ns.source("app:v1")), tag("missing", ns.source("missing:v1")))
        ns.create("whole", dockerImageRepository=ns.source("app"))
        ns.wait_healed("app", "v1", digest)
        ns.wait_event("app", "ImportedFromMirror")
        ns.wait_event("app", "MirrorImportFailed", "missing")
        text = readable(ns)
        assert digest in text
        assert ns.name in text
        for secret in (other.name, "secret-product", hidden):
            assert secret not in text, f"{secret} in {text}"


def test_a_tenants_stream_that_claims_anothers_source_changes_no_pod_of_the_other(
    ns: Namespace, start: Start, hook: Hook, cluster: Cluster
) -> None:
    """A stream decides for its own namespace, however it is called, whatever it imports, and whatever was there first."""
    with cluster.namespace() as victim:
        digest = victim.put("good", "app:v1")
        evil = ns.put("good", "evil:v1")
        ns.digest_mirrors()
        victim.digest_mirrors()
        ns.allow_pulls(everybody=True)
        victim.allow_pulls()
        start(namespaces={"include": [ns.name, victim.name]})
        source = victim.source("app:v1")
        ns.create("aaa", tag("v1", source), tag("swapped", ns.source("evil:v1")))
        ns.wait_healed("aaa", "v1", digest)
        ns.wait_healed("aaa", "swapped", evil)
        # What the tag has is the tenant's own image, while what it says that it imports is the other's.
        ns.change("aaa", partial(_import_from, "swapped", victim.source("gone:v1")))
        ns.wait_failed("aaa", "swapped")
        webhook = hook(victim)
        mine = f"{ns.get('aaa')['status']['dockerImageRepository']}@{digest}"
        settled(ns, source, mine)
        wanted = [source, f"{victim.source('app')}@{digest}", victim.source("gone:v1"), f"{victim.source('gone')}@{evil}"]
        assert images(victim.pod("before", *wanted)) == wanted
        assert shown_audit(webhook, victim, source)["result"] == "no-stream"
        assert images(ns.pod("swapped", victim.source("gone:v1"))) == [victim.source("gone:v1")], "an item of an earlier source"
        victim.create("zzz", tag("v1", source))
        victim.wait_healed("zzz", "v1", digest)
        theirs = f"{victim.get('zzz')['status']['dockerImageRepository']}@{digest}"
        settled(victim, source, theirs)
        assert images(ns.pod("mine", source)) == [mine]


def test_the_audit_annotation_names_no_stream_that_the_pod_may_not_pull_from(
    ns: Namespace, start: Start, hook: Hook, cluster: Cluster
) -> None:
    """Of a shared namespace: neither stream, tag, digest nor where they come from, unless the pod is served from there."""
    with cluster.namespace() as stranger:
        digest = ns.put("good", "app:v1")
        ns.digest_mirrors()
        start()
        names = ("secret-stream", "secret-tag", "secret-origin", digest)
        ns.create("secret-stream", tag("secret-tag", ns.source("app:v1")), tag("failing", ns.source("failing:v1")))
        ns.wait_healed("secret-stream", "secret-tag", digest)
        ns.wait_failed("secret-stream", "failing")
        ns.cluster.put("good", f"{ns.name}/secret-origin", "v1")
        ns.create("secret-unmirrored", tag("v1", ns.source("secret-origin:v1", "good")))
        unmirrored = str(ns.wait_healed("secret-unmirrored", "v1")["image"])
        ns.deny_pulls(f"{stranger.name}:default")
        webhook = hook(stranger, webhook={"sharedNamespaces": [ns.name], "pendingTags": "leave"})
        expected = {
            ns.source("app:v1"): "no-access",
            ns.source("failing:v1"): "not-imported",
            f"{ns.source('app')}@{digest}": "no-access",
        }
        for image, result in expected.items():
            wait_for(f"{image} is known", partial(_came_to, webhook, stranger, image, result))
            shown = shown_audit(webhook, stranger, image)
            assert shown["stream"] == ""
            told = shown["reason"] + shown.get("other", "")
            assert not [name for name in (*names, "failing", ns.source("app")) if name in told], told
        origin = f"{ns.source('secret-origin', 'good')}@{unmirrored}"
        wait_for("it is known", lambda: shown_audit(webhook, stranger, origin)["result"] == "not-mirrored")
        shown = shown_audit(webhook, stranger, origin)
        assert (shown["stream"], "secret" in shown["reason"]) == ("", False)
        # Who may pull is told.
        ns.allow_pulls()
        wait_for("it is served", lambda: shown_audit(webhook, ns, ns.source("app:v1"))["result"] == "rewritten")
        assert shown_audit(webhook, ns, ns.source("app:v1"))["stream"] == f"{ns.name}/secret-stream:secret-tag"
        assert shown_audit(webhook, ns, ns.source("failing:v1"))["stream"] == f"{ns.name}/secret-stream:failing"


def test_commands_show_a_tenant_what_its_token_shows(ns: Namespace, authorized: Cluster, start: Start, tmp_path: Path) -> None:
    """Status, missing, retry, explain and --as-pod about another namespace: a refusal, and nothing of what is there."""
    with authorized.namespace() as other, tenant(ns, tmp_path) as user:
        seed = f"the same for {ns.name}"
        digest = other.put("good", "secret-product:v1", seed=seed)
        ns.put("other", "app:v1", seed=seed)
        other.digest_mirrors()
        ns.digest_mirrors(ns.mirror("other"))
        start(namespaces={"include": [ns.name, other.name]})
        other.create("secret-product", tag("v1", other.source("secret-product:v1")), tag("v2", other.source("secret-product:v2")))
        other.wait_healed("secret-product", "v1", digest)
        other.wait_event("secret-product", "MirrorImportFailed", "v2")
        run = Commands(tmp_path / f"tenant-{ns.name}.kubeconfig", tmp_path)
        before = other.get("secret-product")
        asked: list[tuple[str, ...]] = [
            ("status", "-n", other.name),
            ("status", "-A"),
            ("missing", "-n", other.name),
            ("missing", "-A"),
            ("retry", "-n", other.name, "secret-product"),
            ("retry", "-n", other.name, "secret-product:v1"),
            ("explain", f"{other.name}/secret-product"),
            ("explain", other.source("secret-product:v1"), "--as-pod", "-n", other.name),
            ("explain", other.source("secret-product:v1"), "--as-pod", "-n", ns.name),
            ("explain", f"{other.source('secret-product')}@{digest}", "--as-pod", "-n", ns.name),
        ]
        for command in asked:
            found = run(*command)
            said = (found.out + found.err).replace(command[1], "")
            for secret in (digest, f"secret-product@{digest}", other.mirror(), f"{other.name}/secret-product:v", "name unknown"):
                assert secret not in said, (command, secret, found)
        assert other.get("secret-product") == before, "nothing was asked of the platform"
        ns.create("app", tag("v1", ns.source("app:v1")))
        ns.wait_healed("app", "v1", digest)
        for command in (("status", "-n", ns.name, "-o", "json"), ("explain", f"{ns.name}/app", "-o", "json")):
            found = run(*command)
            assert digest in found.out, found
            assert other.name not in found.out, found
            assert "secret-product" not in found.out, found
        _no_event_about_another(user, ns, other)


def _no_event_about_another(user: Any, ns: Namespace, other: Namespace) -> None:
    """Who may write Events may write them about objects of the own namespace only: nobody's status shows a stranger's."""
    involved = {"kind": "ImageStream", "namespace": other.name, "name": "secret-product"}
    body = {"metadata": {"name": "forged"}, "involvedObject": involved, "reason": "ImportedFromMirror", "message": "forged"}
    post = partial(user.request, "POST", f"/api/v1/namespaces/{ns.name}/events", body=body)
    with pytest.raises(ApiError) as refused:
        post()
    assert refused.value.status == 422, refused.value
