"""A cluster whose control plane is hosted (HyperShift, ROSA HCP): the platform alone writes mirror rules, for digests only.

Nothing in the cluster names the CA of the mirror: its API server has it from outside. Nothing of mirrorstream's requests is
refused.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from e2e.testbed.backends import CONTROLPLANE, SIMULATOR, Choice
from e2e.testbed.cluster import Cluster, Namespace
from e2e.testbed.hosted import REFUSAL, refusal, settings_from_outside
from e2e.testbed.mirrorsets import CONTENT_SOURCES, MIRROR_SETS
from e2e.testbed.owncluster import new_cluster
from e2e.testbed.programs.commands import Commands
from e2e.testbed.programs.hooks import registered, wait_asked
from e2e.testbed.programs.installed import rewrites
from e2e.testbed.programs.program import Controller, Webhook, running
from e2e.testbed.registries.registry import Registry
from e2e.testbed.streams import tag
from e2e.testbed.support.certificates import Authority, serving_context
from e2e.testbed.support.waiting import wait_for

SHIPPED = (50, 170, 101)
"""Streams of the samples operator for x86_64, and their tags from registry.redhat.io and from registry.access.redhat.com."""
FEWER = (5, 17, 10)
"""A tenth of them, where each costs more."""
SETS = [f"/apis/{version}/{plural}" for version, plural, _ in MIRROR_SETS.values()]
CONFIGURED = (*SETS, "/apis/config.openshift.io/v1/images", "/apis/config.openshift.io/v1/infrastructures")
QUICK = {"controller": {"retry": {"initialSeconds": 0.5, "maximumSeconds": 2}}}


@dataclass(frozen=True)
class Hosted:
    """The cluster, and a mirror over TLS that no object in it tells how to trust."""

    cluster: Cluster
    mirror: Registry
    tags: tuple[int, int, int]

    def put(self, ns: Namespace, image: str) -> str:
        """Put `repo:tag` of the dead source into the mirror; its digest."""
        repository, _, name = image.partition(":")
        return self.mirror.put(f"redhat/{ns.name}/{repository}", name)

    def mirrored(self, ns: Namespace) -> None:
        """Have the platform add a rule for the namespace's images at the dead source."""
        ns.digest_mirrors(f"{self.mirror.host}/redhat/{ns.name}")


@pytest.fixture(scope="module")
def hosted(chosen: Choice, built: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosted]:
    """One for all scenarios here."""
    if chosen.backend not in (SIMULATOR, CONTROLPLANE):
        pytest.skip("only a simulated image API can be told which CAs it trusts")
    folder = tmp_path_factory.mktemp("hosted")
    authority = Authority(folder / "outside", "outside")
    serving = serving_context(authority.issue("mirror", hosts=("localhost",)))
    change = partial(settings_from_outside, authorities=authority.certificate.read_text(encoding="ascii"))
    with ExitStack() as stack:
        mirror = stack.enter_context(Registry(context=serving))
        cluster = new_cluster(stack, chosen, folder, change, hosted=True)
        yield Hosted(cluster, mirror, SHIPPED if chosen.backend == SIMULATOR else FEWER)


@pytest.fixture
def ns(hosted: Hosted) -> Iterator[Namespace]:
    """A user's namespace there. In the end nothing of mirrorstream's was refused, and it wrote no rules."""
    log = hosted.cluster.log
    assert log
    mark = log.mark()
    with hosted.cluster.namespace() as namespace:
        yield namespace
        namespace.check_untouched()
    requests = log.since(mark)
    assert any(request.verb == "create" for request in requests), "the log does not have mirrorstream's requests"
    # A policy's refusal is Invalid; RBAC's would be Forbidden.
    assert [request for request in requests if request.forbidden or request.status == 422] == []
    written = [r for r in requests if r.path.startswith(CONFIGURED) and r.verb not in ("get", "list", "watch")]
    assert written == []


@pytest.fixture(scope="module")
def controller(hosted: Hosted, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    """The controller, for all namespaces."""
    with running(
        Controller(hosted.cluster.program, tmp_path_factory.mktemp("controller"), QUICK, "--no-leader-election")
    ) as program:
        yield program


@pytest.fixture(scope="module")
def webhook(hosted: Hosted, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Webhook]:
    """The webhook, not registered yet."""
    settings = {"webhook": {"pendingPods": "report"}}
    with running(Webhook(hosted.cluster.webhook, tmp_path_factory.mktemp("webhook"), settings)) as program:
        yield program


@pytest.mark.usefixtures("controller")
def test_the_shipped_tags_heal(hosted: Hosted, ns: Namespace) -> None:
    """All 271 on the simulator, a tenth elsewhere, from two sources, with no mirror set but the platform's one for digests."""
    streams, *counts = hosted.tags
    dead = hosted.cluster.host("dead")
    hosts = (f"{dead}/{ns.name}", f"127.0.0.1:{dead.rpartition(':')[2]}/{ns.name}")
    wanted: dict[tuple[str, str], str] = {}
    sources: dict[str, list[tuple[str, str]]] = {f"stream{number}": [] for number in range(streams)}
    for host, path, count in zip(hosts, ("redhat", "access"), counts, strict=True):
        ns.digest_mirrors(f"{hosted.mirror.host}/{path}/{ns.name}", source=host)
        for number in range(count):
            stream, name = f"stream{number % streams}", f"{path}-{number}"
            wanted[stream, name] = hosted.mirror.put(f"{path}/{ns.name}/{stream}", name)
            sources[stream].append((name, f"{host}/{stream}:{name}"))
    for stream, tags in sources.items():
        ns.create(stream, *(tag(name, source) for name, source in tags))

    def healed() -> bool:
        found = {
            (stream["metadata"]["name"], status["tag"]): status["items"][0]["image"]
            for stream in ns.streams()
            for status in stream["status"].get("tags") or []
            if status.get("items") and not status.get("conditions")
        }
        return found == wanted

    wait_for(f"all {len(wanted)} tags heal", healed, step=0.2)
    names = [f"{path}/{item['metadata']['name']}" for path in SETS for item in ns.client.get(path)["items"]]
    assert names == [CONTENT_SOURCES]


@pytest.mark.usefixtures("controller")
@pytest.mark.parametrize("registry", [True, False], ids=["with an internal registry", "without an internal registry"])
def test_a_pod_gets_the_image_of_a_healed_tag(registry: bool, hosted: Hosted, webhook: Webhook, ns: Namespace) -> None:
    """From the internal registry; without one by the digest, which a node finds through the platform's mirrors."""
    with ExitStack() as stack:
        if not registry:
            stack.enter_context(hosted.cluster.registry_absent())
        stack.enter_context(registered(webhook, hosted.cluster.client, [ns.name]))
        wait_asked(webhook, ns)
        ns.allow_pulls()
        digest, source = hosted.put(ns, "app:v1"), ns.source("app:v1")
        hosted.mirrored(ns)
        ns.create("app", tag("v1", source))
        ns.wait_healed("app", "v1", digest)
        repository = ns.get("app")["status"].get("dockerImageRepository") if registry else ns.source("app")
        wait_for("a pod gets the digest", partial(rewrites, ns, source, f"{repository}@{digest}"))


@pytest.mark.usefixtures("controller")
def test_suggest_says_that_nobody_may_create_mirror_sets(hosted: Hosted, ns: Namespace, tmp_path: Path) -> None:
    """A scheduled tag fails at every turn, and heals; what would end that cannot be had here, so it is not printed."""
    digest = hosted.put(ns, "app:v1")
    hosted.mirrored(ns)
    ns.create("app", tag("v1", ns.source("app:v1"), importPolicy={"scheduled": True}))
    ns.wait_healed("app", "v1", digest)
    done = Commands(hosted.cluster.kubeconfig, tmp_path)("suggest", "-n", ns.name)
    assert (done.status, done.err) == (0, "")
    assert "in a hosted cluster" in done.out
    assert f"{ns.name}/app:v1" in done.out
    assert "kind:" not in done.out


def test_an_administrators_mirror_sets_are_refused(hosted: Hosted) -> None:
    """Where policies are evaluated: else these scenarios would show nothing. The platform's are not."""
    if hosted.cluster.backend == SIMULATOR:
        pytest.skip("the simulator evaluates no policies")
    assert hosted.cluster.platform
    for kind in MIRROR_SETS:
        assert REFUSAL in refusal(hosted.cluster.client, kind)
        assert refusal(hosted.cluster.platform, kind) == ""
