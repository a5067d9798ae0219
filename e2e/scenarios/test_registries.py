"""A mirror as administrators run it: TLS with an authority of their own, a password, and both known to the platform only."""

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Protocol

import pytest

from e2e.scenarios.conftest import Start
from e2e.testbed.cluster import Cluster, Namespace
from e2e.testbed.programs.hooks import registered, wait_asked
from e2e.testbed.programs.installed import rewrites
from e2e.testbed.programs.program import Webhook, running
from e2e.testbed.registries.docker_registry import PROGRAM, DockerRegistry
from e2e.testbed.registries.registry import Registry
from e2e.testbed.streams import tag
from e2e.testbed.support.certificates import Authority, Pair, serving_context
from e2e.testbed.support.waiting import wait_for

CREDENTIALS = ("puller", "correct horse")


class Mirror(Protocol):
    """A registry that takes images."""

    @property
    def host(self) -> str:
        """`localhost:PORT`."""

    def put(self, repository: str, tag: str, kind: str = "docker", seed: str = "") -> str:
        """Put an image; its digest."""


MakeMirror = Callable[[Pair, Path], Mirror]


@pytest.fixture
def make_mirror(tmp_path: Path, record_property: Callable[[str, object], None]) -> Iterator[MakeMirror]:
    """Make a mirror that serves with a certificate; which one it was is in the run's summary."""
    with ExitStack() as stack:

        def make(serving: Pair, authority: Path) -> Mirror:
            record_property(
                "mirror", "Debian's docker-registry" if PROGRAM else "the small registry: no docker-registry is installed"
            )
            if PROGRAM:
                return stack.enter_context(DockerRegistry(tmp_path / "docker-registry", serving, authority, CREDENTIALS))
            return stack.enter_context(Registry(credentials=CREDENTIALS, context=serving_context(serving)))

        yield make


@pytest.fixture
def ours(cluster: Cluster) -> Cluster:
    """A cluster whose Image config trusts an authority that we have."""
    if cluster.trusted is None:
        pytest.skip("the cluster's settings are not ours to change")
    return cluster


def add_pull_secret(ns: Namespace, host: str) -> None:
    """What `oc create secret docker-registry` makes."""
    encoded = base64.b64encode(":".join(CREDENTIALS).encode()).decode()
    content = json.dumps({"auths": {host: {"auth": encoded}}})
    data = {".dockerconfigjson": base64.b64encode(content.encode()).decode()}
    body = {"metadata": {"name": "mirror"}, "type": "kubernetes.io/dockerconfigjson", "data": data}
    ns.client.request("POST", f"/api/v1/namespaces/{ns.name}/secrets", body=body)


def mirrored(ns: Namespace, mirror: Mirror, image: str, kind: str = "docker") -> str:
    """Put `repo:tag` into the mirror and make a rule for the namespace; its digest."""
    repository, _, name = image.partition(":")
    ns.digest_mirrors(f"{mirror.host}/{ns.name}")
    return mirror.put(f"{ns.name}/{repository}", name, kind, f"{ns.name}/{image}")


@pytest.mark.parametrize("kind", ["docker", "oci", "list", "index"])
def test_password_and_authority_are_the_platforms_business(
    ns: Namespace, ours: Cluster, start: Start, make_mirror: MakeMirror, kind: str
) -> None:
    """The pull secret lies in the stream's namespace, the CA in the Image config: mirrorstream needs, and reads, neither."""
    assert ours.trusted
    mirror = make_mirror(ours.trusted.serving, ours.trusted.authority)
    digest = mirrored(ns, mirror, "app:v1", kind)
    add_pull_secret(ns, mirror.host)
    mark = ours.log.mark() if ours.log else 0
    start()
    whole = kind in ("list", "index")
    ns.create("app", tag("v1", ns.source("app:v1"), importPolicy={"importMode": "PreserveOriginal"} if whole else {}))
    ns.wait_healed("app", "v1", digest)
    assert not [r for r in (ours.requests(mark) if ours.log else []) if "/secrets" in r.path or "/configmaps" in r.path]


def test_without_the_password_nothing_heals_until_it_is_there(
    ns: Namespace, ours: Cluster, start: Start, make_mirror: MakeMirror
) -> None:
    """The Event says what is missing; with the secret the tag heals by itself."""
    assert ours.trusted
    mirror = make_mirror(ours.trusted.serving, ours.trusted.authority)
    digest = mirrored(ns, mirror, "app:v1")
    start()
    ns.create("app", tag("v1", ns.source("app:v1")))
    ns.wait_event("app", "MirrorImportFailed", "(?i)you may not have access|no basic auth credentials|unauthorized")
    add_pull_secret(ns, mirror.host)
    ns.wait_healed("app", "v1", digest)


def test_an_authority_that_nobody_trusts_is_named(
    ns: Namespace, ours: Cluster, start: Start, make_mirror: MakeMirror, tmp_path: Path
) -> None:
    """No setting of ours makes the platform accept the certificate of a stranger."""
    stranger = Authority(tmp_path / "stranger", "stranger")
    mirror = make_mirror(stranger.issue("mirror", hosts=("localhost",)), stranger.certificate)
    mirrored(ns, mirror, "app:v1")
    add_pull_secret(ns, mirror.host)
    start()
    ns.create("app", tag("v1", ns.source("app:v1")))
    ns.wait_event("app", "MirrorImportFailed", "x509")
    ns.stays("failed", lambda: ns.failure("app", "v1"))


def test_credentials_of_another_namespace_are_never_used(
    ns: Namespace, ours: Cluster, start: Start, make_mirror: MakeMirror
) -> None:
    """Two tenants name the same private image; the one with the pull secret gets it, the other does not, although we run both."""
    assert ours.trusted
    mirror = make_mirror(ours.trusted.serving, ours.trusted.authority)
    digest = mirrored(ns, mirror, "app:v1")
    with ours.namespace() as other:
        add_pull_secret(ns, mirror.host)
        running = start(namespaces={"include": [ns.name, other.name]})
        other.create("app", tag("v1", ns.source("app:v1")))
        ns.create("app", tag("v1", ns.source("app:v1")))
        ns.wait_healed("app", "v1", digest)
        other.wait_event("app", "MirrorImportFailed")
        wait_for("it was tried again", lambda: running.metric("mirrorstream_imports_total", result="failed") >= 2)
        assert other.failure("app", "v1")
        assert not other.tag_status("app", "v1").get("items")


@pytest.mark.parametrize("listed", ["host", "path"])
def test_a_mirror_that_is_insecure_for_nodes_only(
    own_cluster: Callable[..., Cluster], start: Start, tmp_path: Path, listed: str
) -> None:
    """The registry never reads insecureRegistries: pods get the mirror's digest until the tag sets importPolicy.insecure."""
    cluster = own_cluster()
    with ExitStack() as stack:
        ns = stack.enter_context(cluster.namespace())
        scope = ns.mirror() if listed == "path" else ns.mirror().partition("/")[0]
        cluster.change_image_config(lambda spec: spec["registrySources"].update(insecureRegistries=[scope]))
        ns.allow_pulls()
        digest = ns.put("good", "app:v1")
        ns.tag_mirrors()
        start(on=cluster, namespaces={})
        source, by_mirror = ns.source("app:v1"), f"{ns.mirror()}/app@{digest}"
        ns.create("app", tag("v1", source))
        assert ns.wait_healed("app", "v1", digest)["dockerImageReference"] == by_mirror
        webhook = stack.enter_context(running(Webhook(cluster.webhook, tmp_path, {"webhook": {"pendingPods": "report"}})))
        stack.enter_context(registered(webhook, cluster.client, [ns.name]))
        wait_asked(webhook, ns)
        wait_for("the mirror's digest", partial(rewrites, ns, source, by_mirror))
        repository = ns.get("app")["status"]["dockerImageRepository"]
        ns.change("app", lambda stream: stream["spec"]["tags"][0].update(importPolicy={"insecure": True}))
        wait_for("the internal registry", partial(rewrites, ns, source, f"{repository}@{digest}"))
