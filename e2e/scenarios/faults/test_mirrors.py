"""Mirrors that fail: nothing wrong is recorded, what they hold up is theirs alone, and they are asked again until they are well.

The simulator's importer gives up on a registry after three seconds here (openshift-apiserver's does after 15), so a mirror that
takes a minute is one that times out; an importer that takes longer than mirrorstream waits for it is a fault of the API server.
"""

import itertools
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest

from e2e.scenarios.conftest import Start
from e2e.scenarios.faults.conftest import Saw, allow
from e2e.testbed.cluster import Cluster, Namespace
from e2e.testbed.faults.reliability import often
from e2e.testbed.interceptor import Exchange, Interceptor
from e2e.testbed.registries.registry import DeadPort, Failure, Registry
from e2e.testbed.registries.store import Store
from e2e.testbed.streams import tag
from e2e.testbed.support.ports import free_port
from e2e.testbed.support.waiting import wait_for

pytestmark = pytest.mark.timeout(often(400, 120))
INITIAL, MAXIMUM = 0.2, 0.8
"""The back-off of these tests, in seconds."""
JITTER = 0.8
SLOW_STREAMS = 100
DELAY_SECONDS = 2.0


@dataclass
class DryRun:
    """An import that mirrorstream asked for: of what, since when and until when (monotonic; 0 while it runs)."""

    reference: str
    began: float
    ended: float = 0


@dataclass
class DryRuns:
    """All of them, each image's, as the interceptor saw them, and the names of the Images that were created."""

    all: list[DryRun] = field(default_factory=list)
    images: set[str] = field(default_factory=set)

    def watch(self, between: Interceptor, stack: ExitStack) -> None:
        """Take note from now on."""
        stack.enter_context(between.when("create", "/imagestreamimports$", self._dry_run))
        stack.enter_context(between.when("create", "/image.openshift.io/v1/images$", self._image))

    def of(self, part: str, since: float = 0) -> list[DryRun]:
        """Those of a reference with that part, which have ended."""
        return [d for d in self.all if part in d.reference and d.began >= since and d.ended]

    def waits(self, part: str, since: float) -> list[float]:
        """How long mirrorstream waited between them."""
        found = self.of(part, since)
        return [later.began - earlier.ended for earlier, later in itertools.pairwise(found)]

    def _dry_run(self, exchange: Exchange) -> None:
        images = [DryRun(image["from"]["name"], time.monotonic()) for image in exchange.json()["spec"]["images"]]
        self.all += images
        try:
            exchange.pass_on()
        finally:  # mirrorstream may have given up, so that nobody takes the answer
            for image in images:
                image.ended = time.monotonic()

    def _image(self, exchange: Exchange) -> None:
        self.images.add(exchange.json()["metadata"]["name"])
        exchange.pass_on()


class Mirror:
    """A registry that fails, and that can be made well at the same place; without a failure it is dead."""

    def __init__(self, stack: ExitStack, failure: Failure | None) -> None:
        self._stack = stack
        self._port = free_port()
        self._dead = stack.enter_context(ExitStack())
        if failure is None:
            self._dead.enter_context(DeadPort(self._port))
        self._registry = Registry(port=self._port, failure=failure) if failure else None
        if self._registry:
            stack.enter_context(self._registry)
        self.store = self._registry.store if self._registry else Store()
        self.host = f"localhost:{self._port}"

    def recover(self) -> None:
        """From now on it serves."""
        if self._registry:
            self._registry.failure = None
            return
        self._dead.close()
        registry = Registry(port=self._port)
        registry.store = self.store
        self._stack.enter_context(registry)


@dataclass(frozen=True)
class Fault:
    """How a mirror fails, what the Event says of it, and how many further tries are waited for."""

    failure: Failure | None
    says: str
    tries: int = 3
    by_digest: bool = False


FAULTS = {
    "dead": Fault(None, "unreachable: .*connection refused"),
    # Its imports end when the mirror answers, a minute for each of two requests, long after mirrorstream has given up.
    "slow": Fault(Failure(seconds=60), "timeout: ", tries=0),
    "401": Fault(Failure(401, "UNAUTHORIZED"), "unauthorized: "),
    "404": Fault(Failure(404, "MANIFEST_UNKNOWN"), "not-found: "),
    "429": Fault(Failure(429, "TOOMANYREQUESTS"), "throttled: "),
    "500": Fault(Failure(500), "server-error: "),
    "html": Fault(Failure(html=True), "not-a-registry: "),
    "wrong-digest": Fault(Failure(wrong_digest=True), "integrity: .*content integrity error", by_digest=True),
    "redirect-loop": Fault(Failure(redirect=True), "redirects"),
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.fault(
    "Mirrors",
    "A mirror is dead, slow (60 s), answers 401, 404, 429, 500, a page of HTML, other content than the digest says, or redirects "
    "in a loop",
    "The Event names the mirror and what it answered; nothing of it is recorded; other tags of the stream, other streams and what "
    "a second mirror has heal in that time; imports follow the backoff; the tag heals once the mirror is well",
)
def test_a_mirror_that_fails(ns: Namespace, cluster: Cluster, start: Start, between: Interceptor, saw: Saw, name: str) -> None:
    """The tag keeps the platform's own condition, which is about its source, until it is healed."""
    fault, runs = FAULTS[name], DryRuns()
    with ExitStack() as stack:
        mirror = Mirror(stack, fault.failure)
        allow(cluster, mirror.host)
        bad = mirror.store.put(f"{ns.name}/bad", "v1", seed=f"{ns.name}/bad")
        second = ns.put("good", "second:v1", seed=f"{ns.name}/second")
        assert mirror.store.put(f"{ns.name}/second", "v1", seed=f"{ns.name}/second") == second
        good = ns.put("good", "good:v1")
        ns.digest_mirrors(f"{mirror.host}/{ns.name}/bad", source=ns.source("bad"))
        ns.digest_mirrors(f"{ns.mirror()}/good", source=ns.source("good"))
        ns.digest_mirrors(f"{mirror.host}/{ns.name}/second", f"{ns.mirror()}/second", source=ns.source("second"))
        runs.watch(between, stack)
        start(program=between.kubeconfig, controller={"retry": {"initialSeconds": INITIAL, "maximumSeconds": MAXIMUM}})
        wanted = {"bad": bad, "second": second} if fault.by_digest else {}
        tags = [tag(repo, ns.source(f"{repo}@{wanted[repo]}" if repo in wanted else f"{repo}:v1")) for repo in ("bad", "second")]
        ns.create("app", *tags, tag("good", ns.source("good:v1")))
        ns.create("other", tag("v1", ns.source("good:v1")))
        ns.wait_failed("app", "bad")
        failed = time.monotonic()
        ns.wait_healed("other", "v1", good)
        ns.wait_healed("app", "good", good)
        saw["another tag of the stream healed after"] = f"{time.monotonic() - failed:.1f} s"
        ns.wait_healed("app", "second", second)
        event = ns.wait_event("app", "MirrorImportFailed", fault.says)
        assert f"{mirror.host}/{ns.name}/bad" in event
        since = time.monotonic()
        wait_for("it is tried again", lambda: len(runs.of("/bad", since)) > fault.tries, seconds=300)
        waits = runs.waits("/bad", since)
        for number, wait in enumerate(waits):
            assert wait >= JITTER * min(MAXIMUM, INITIAL * 2**number), waits
        condition = ns.failure("app", "bad")
        assert condition
        assert ns.source("bad").partition("/")[0] in condition["message"]
        assert not ns.tag_status("app", "bad").get("items")
        assert runs.images <= {good, second}
        mirror.recover()
        well = time.monotonic()
        ns.wait_healed("app", "bad", bad)
        saw["healed after the mirror was well"] = f"{time.monotonic() - well:.1f} s"
        assert runs.images <= {good, second, bad}


@pytest.mark.fault("Mirrors", "A mirror redirects to another registry, which has the image", "The tag heals")
def test_a_mirror_that_redirects(ns: Namespace, cluster: Cluster, start: Start) -> None:
    """The platform follows; what is recorded is the source's reference as ever."""
    with Registry(failure=Failure(redirect_to=f"http://{cluster.host('good')}")) as mirror:
        allow(cluster, mirror.host)
        digest = cluster.put("good", f"{ns.name}/app", "v1", seed=ns.name)
        ns.digest_mirrors(f"{mirror.host}/{ns.name}")
        start()
        ns.create("app", tag("v1", ns.source("app:v1")))
        item = ns.wait_healed("app", "v1", digest)
        assert item["dockerImageReference"] == f"{ns.source('app')}@{digest}"
        assert mirror.requests[f"{ns.name}/app"]


@pytest.mark.fault(
    "Mirrors",
    "A mirror fails every other second",
    "Everything heals in that time; imports follow the backoff; nothing wrong is recorded",
)
def test_a_mirror_that_flaps(ns: Namespace, cluster: Cluster, start: Start, between: Interceptor, saw: Saw) -> None:
    """Whichever second a tag meets."""
    runs, digests = DryRuns(), dict[str, str]()
    with ExitStack() as stack:
        mirror = stack.enter_context(Registry(failure=Failure(500, flapping=1)))
        allow(cluster, mirror.host)
        ns.digest_mirrors(f"{mirror.host}/{ns.name}")
        runs.watch(between, stack)
        start(program=between.kubeconfig)
        end = time.monotonic() + often(60, 6)
        while time.monotonic() < end:
            name = f"app-{len(digests)}"
            digests[name] = mirror.put(f"{ns.name}/{name}", "v1", seed=f"{ns.name}/{name}")
            ns.create(name, tag("v1", ns.source(f"{name}:v1")))
            mirror.stopping.wait(0.3)
        for name, digest in digests.items():
            ns.wait_healed(name, "v1", digest, seconds=30)
            assert all(wait >= JITTER * min(2, 0.5 * 2**number) for number, wait in enumerate(runs.waits(f"/{name}:", 0)))
        assert runs.images <= set(digests.values())
        again = len(runs.all) - len(digests)
        saw["streams"], saw["tries"] = str(len(digests)), str(len(runs.all))
        assert again > 0, "the mirror was always well when it was asked"


@pytest.mark.fault(
    "Mirrors",
    "100 streams fail whose mirror takes 60 s",
    "A stream of the same namespace on a fast mirror heals at most 2 s later than alone",
)
def test_a_slow_mirror_delays_nobody_else(ns: Namespace, cluster: Cluster, start: Start, between: Interceptor, saw: Saw) -> None:
    """Half of the slots are always left to other mirrors."""
    runs = DryRuns()
    with ExitStack() as stack:
        slow = stack.enter_context(Registry(failure=Failure(seconds=60)))
        allow(cluster, slow.host)
        ns.digest_mirrors(f"{slow.host}/{ns.name}/slow", source=ns.source("slow"))
        ns.digest_mirrors(f"{ns.mirror()}/fast", source=ns.source("fast"))
        digest = ns.put("good", "fast:v1")
        runs.watch(between, stack)
        start(program=between.kubeconfig)

        def heal(name: str) -> float:
            """From the creation to the heal, in seconds; the platform's own try is in it."""
            created = time.monotonic()
            ns.create(name, tag("v1", ns.source("fast:v1")))
            ns.wait_healed(name, "v1", digest)
            return time.monotonic() - created

        alone = max(heal(f"alone-{number}") for number in range(3))
        for number in range(SLOW_STREAMS):
            ns.create(f"slow-{number}", tag("v1", ns.source(f"slow:v{number}")))
        wait_for("the slow mirror has all that it may have", lambda: _running(runs) == 8)
        beside = []
        for number in range(often(20, 5)):
            beside.append(heal(f"beside-{number}"))
            assert 0 < _running(runs) <= 8
        saw["alone"], saw["beside them"] = f"{alone:.2f} s", f"{max(beside):.2f} s at most, of {len(beside)}"
        assert max(beside) - alone <= DELAY_SECONDS
        assert ns.failure("slow-0", "v1")


@pytest.mark.fault(
    "Mirrors",
    "900 tags, three of a stream, fail whose mirror has them and takes long for each",
    "Each is asked for once, at most eight at a time; all heal; a stream on a fast mirror waits for none of them",
)
def test_a_mirror_that_takes_long(ns: Namespace, cluster: Cluster, start: Start, between: Interceptor, saw: Saw) -> None:
    """The catalogs of hosted clusters, say."""
    runs, streams = DryRuns(), [f"hosted-{number}" for number in range(often(300, 16))]
    with ExitStack() as stack:
        slow = stack.enter_context(Registry(failure=Failure(seconds=often(2, 1))))
        allow(cluster, slow.host)
        ns.digest_mirrors(f"{slow.host}/{ns.name}/slow", source=ns.source("slow"))
        ns.digest_mirrors(f"{ns.mirror()}/fast", source=ns.source("fast"))
        digest = ns.put("good", "fast:v1")
        names = {f"{stream}-{number}" for stream in streams for number in range(3)}
        for name in names:
            slow.put(f"{ns.name}/slow", name, seed=name)
        runs.watch(between, stack)
        start(program=between.kubeconfig)
        for stream in streams:
            ns.create(stream, *[tag(f"v{number}", ns.source(f"slow:{stream}-{number}")) for number in range(3)])
        wait_for("the slow mirror has all that it may have", lambda: _running(runs) == 8)
        ns.create("beside", tag("v1", ns.source("fast:v1")))
        ns.wait_healed("beside", "v1", digest)
        asked = len(runs.of("/slow"))
        saw["before the stream on the fast mirror"] = f"{asked} of {len(names)} tags were answered"
        assert asked < len(names)
        for stream in streams:
            for number in range(3):
                ns.wait_healed(stream, f"v{number}")
        assert sorted(run.reference.rpartition(":")[2] for run in runs.all if "/slow" in run.reference) == sorted(names)


def _running(runs: DryRuns, of: Callable[[DryRun], bool] = lambda run: "/slow" in run.reference) -> int:
    return sum(of(run) and not run.ended for run in list(runs.all))
