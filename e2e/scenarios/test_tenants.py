"""What a user of one namespace can make mirrorstream do: nothing that the platform would not do for that user."""

from pathlib import Path
from typing import Any

import pytest
from mirrorstream.kube.client import ApiError, Client

from e2e.scenarios.conftest import Start
from e2e.testbed.cluster import Cluster, Namespace
from e2e.testbed.controlplane.arguments import OWN_NAMESPACE
from e2e.testbed.mirrorsets import MIRROR_SETS
from e2e.testbed.streams import IMAGE_API, tag
from e2e.testbed.tenant import tenant


def _create(client: Client, ns: Namespace, name: str, *tags: Any, **metadata: Any) -> None:
    body = {"metadata": {"name": name, **metadata}, "spec": {"tags": list(tags)}}
    client.request("POST", f"{IMAGE_API}/namespaces/{ns.name}/imagestreams", body=body)


def test_a_tenants_own_streams_heal(ns: Namespace, authorized: Cluster, start: Start, tmp_path: Path) -> None:
    """The user needs no right that users of streams do not have anyway."""
    digest = ns.put("good", "app:v1")
    ns.digest_mirrors()
    start()
    with tenant(ns, tmp_path) as user:
        _create(user, ns, "app", tag("v1", ns.source("app:v1")))
        ns.wait_healed("app", "v1", digest)


def test_installing_mirrorstream_gives_tenants_nothing(ns: Namespace, authorized: Cluster, tmp_path: Path) -> None:
    """The owner of a namespace can write no rule, no Image, no status and no Lease, and reads none of our tokens."""
    ns.create("app", tag("v1", ns.source("app:v1")))
    with tenant(ns, tmp_path) as user:
        stream = user.get(f"{IMAGE_API}/namespaces/{ns.name}/imagestreams/app")
        forbidden: list[tuple[str, str, Any]] = [
            ("POST", f"{IMAGE_API}/images", {"metadata": {"name": "sha256:" + "0" * 64}}),
            ("PUT", f"{IMAGE_API}/namespaces/{ns.name}/imagestreams/app/status", stream),
            ("GET", f"/apis/coordination.k8s.io/v1/namespaces/{OWN_NAMESPACE}/leases/mirrorstream-controller", None),
            ("POST", f"/api/v1/namespaces/{OWN_NAMESPACE}/serviceaccounts/mirrorstream-controller/token", {"spec": {}}),
            ("GET", f"/api/v1/namespaces/{OWN_NAMESPACE}/secrets", None),
            ("GET", "/apis/config.openshift.io/v1/images/cluster", None),
        ]
        forbidden += [("POST", f"/apis/{v}/{plural}", {"metadata": {"name": ns.name}}) for v, plural, _ in MIRROR_SETS.values()]
        for method, path, body in forbidden:
            with pytest.raises(ApiError) as refused:
                user.request(method, path, body=body)
            assert refused.value.status == 403, (method, path, refused.value)


def test_an_image_of_another_namespace_is_not_reached(ns: Namespace, authorized: Cluster, start: Start, tmp_path: Path) -> None:
    """Naming the internal registry, or a digest that only another namespace has, gets a tenant what it got before: nothing."""
    digest = ns.put("good", "private:v1", prefix="private")
    with authorized.namespace() as other:
        ns.digest_mirrors()
        # The other namespace's own rule and image: an administrator mirrors its prefix, and only that.
        ns.mirror_set("ImageDigestMirrorSet", other.source("private"), f"{ns.mirror(prefix='private')}/private")
        start(namespaces={"include": [ns.name, other.name]})
        other.create("private", tag("v1", other.source("private:v1")))
        other.wait_healed("private", "v1", digest)
        internal = other.get("private")["status"]["dockerImageRepository"]
        with tenant(ns, tmp_path) as user:
            wanted = {
                "internal": f"{internal}:v1",
                "internal-digest": f"{internal}@{digest}",
                "by-digest": f"{ns.source('private')}@{digest}",
                "climbing": f"{ns.source('app')}@{digest}",
            }
            _create(user, ns, "greedy", *(tag(name, source) for name, source in wanted.items()))
            for name in wanted:
                ns.wait_failed("greedy", name)
            ns.wait_event("greedy", "MirrorImportFailed", "by-digest")
            ns.stays("failed", lambda: all(ns.failure("greedy", name) for name in wanted))
            assert not any(ns.tag_status("greedy", name).get("items") for name in wanted)


def test_no_annotation_of_a_tenant_widens_what_is_imported(
    ns: Namespace, authorized: Cluster, start: Start, tmp_path: Path
) -> None:
    """A blocked source stays blocked, a source without rules stays unmirrored, whatever the stream says about itself."""
    ns.put("good", "app:v1")
    ns.digest_mirrors()
    ns.digest_mirrors(source=f"{ns.cluster.host('blocked')}/{ns.name}")
    start()
    annotations = {
        "mirrorstream.github.io/import": "enabled",
        "mirrorstream.github.io/retry": "1",
        "mirrorstream.github.io/imported-through": ns.mirror(),
        "openshift.io/image.insecureRepository": "true",
    }
    with tenant(ns, tmp_path) as user:
        sources = {"blocked": ns.source("app:v1", "blocked"), "unmirrored": f"{ns.cluster.host('dead')}/elsewhere/app:v1"}
        _create(user, ns, "app", *(tag(name, source) for name, source in sources.items()), annotations=annotations)
        for name in sources:
            ns.wait_failed("app", name)
        ns.wait_event("app", "MirrorImportRefused", "blocked")
        ns.stays("failed", lambda: all(ns.failure("app", name) for name in sources))
