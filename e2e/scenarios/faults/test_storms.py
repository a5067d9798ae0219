"""Masses of streams that fail at once: the API server is asked at a bounded rate, and who asks for something is served at once.

A storm is as fast as the simulator's importer, the registries and mirrorstream together get done on one machine: what is asserted
are counts and the two seconds of the promise.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
from mirrorstream.kube.ratelimit import BURST_SECONDS
from mirrorstream_controller.stream_state import PART_SECONDS

from e2e.scenarios.conftest import Start
from e2e.scenarios.faults.conftest import Saw, allow
from e2e.testbed.audit import Request
from e2e.testbed.backends import SIMULATOR
from e2e.testbed.cluster import Cluster, Namespace
from e2e.testbed.faults.reliability import often
from e2e.testbed.programs.program import Controller
from e2e.testbed.registries.registry import Failure, Registry
from e2e.testbed.streams import IMAGE_API, tag
from e2e.testbed.support.waiting import wait_for

pytestmark = pytest.mark.timeout(often(1200, 150))
RETRY = "mirrorstream.github.io/retry"
STREAMS = often(2000, 300)
EDITED = often(2000, 150)
TAGS = often(300, 100)
"""The platform needs half a second for each until all have failed."""
SCHEDULED = often(300, 40)
ROUNDS = often(10, 3)
"""How often a user asks for something in the middle of a storm, in each of two ways."""
SERVED_SECONDS = 2.0
DEFAULT_RATE = 200.0
UNDER_WAY = 40
"""Requests that may arrive later than they were let go: at most one for each thread of the controller."""
MEGABYTES, KILOBYTES_PER_STREAM = 30, 20
"""How much the controller's memory may grow in a storm: in all, and for each stream."""
BOUNDED = "The API server is asked at apiRequestsPerSecond at most, after a burst of three seconds' worth; memory stays bounded"
SERVED = "what a user asks for in the middle (an import-image of a healed tag, a retry) is there within 2 s"


def each(numbers: Sequence[int], do: Callable[[int], Any]) -> None:
    """Do something for each number, four at a time."""
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(do, numbers))


def status_of(stream: dict[str, Any]) -> dict[str, Any]:
    """What a stream's status says of its first tag."""
    tags = (stream.get("status") or {}).get("tags") or []
    return next((t for t in tags if t["tag"] == "v1"), {})


def healed(stream: dict[str, Any]) -> bool:
    """Whether all tags of a stream that is given as the API server lists it are well."""
    tags = (stream.get("status") or {}).get("tags") or []
    wanted = stream["spec"].get("tags") or []
    return len(tags) == len(wanted) and all(t.get("items") and not t.get("conditions") for t in tags)


def excess(times: Sequence[float], rate: float) -> float:
    """By how many requests a storm exceeded `rate` and its burst, looked at over every stretch of time; negative: it did not."""
    worst, level, before = -rate * BURST_SECONDS, 0.0, None
    for at in sorted(times):
        # A bucket that every request fills by one, and time empties: how full it was at most is the largest stretch's excess.
        level = max(0.0, level - (rate * (at - before) if before is not None else 0.0)) + 1
        before = at
        worst = max(worst, level - rate * BURST_SECONDS)
    return worst


def busiest(times: Sequence[float]) -> int:
    """The most requests in any second."""
    ordered, first, most = sorted(times), 0, 0
    for last, at in enumerate(ordered):
        while at - ordered[first] >= 1:
            first += 1
        most = max(most, last - first + 1)
    return most


@dataclass
class Storm:
    """A user among failing streams: one stream that is healed, and some that no mirror has an image for."""

    ns: Namespace
    saw: Saw
    rate: float = DEFAULT_RATE
    mark: int = 0
    took: dict[str, list[float]] = field(default_factory=lambda: {"import-image": [], "retry": []})
    memory: float = 0
    began: float = 0
    in_the_middle: int = 0
    """How many of the rounds began while imports were waiting or running."""

    def settle(self) -> None:
        """What there is before the storm, with a controller that runs: the healed stream, and those that wait for an image."""
        digest = self.ns.put("good", "mine:v1", seed="before")
        self.ns.create("mine", tag("v1", self.ns.source("mine:v1")))
        for number in range(ROUNDS):
            self.ns.create(f"asked-{number}", tag("v1", self.ns.source(f"asked-{number}:v1")))
        self.ns.wait_healed("mine", "v1", digest)
        for number in range(ROUNDS):
            self.ns.wait_event(f"asked-{number}", "MirrorImportFailed")

    def begin(self, running: Controller) -> None:
        """The storm begins: count from here on."""
        assert self.ns.cluster.log
        self.memory, self.began = running.memory(), time.monotonic()
        self.mark = self.ns.cluster.log.mark()

    def ask(self, running: Controller, number: int) -> None:
        """A user asks in both ways, and waits for both."""
        ns = self.ns
        self.in_the_middle += busy(running)
        digest = ns.put("good", "mine:v1", seed=f"in the storm {number}")
        ns.import_image("mine", "v1", ns.source("mine:v1"))
        self._served("import-image", "mine", digest)
        digest = ns.put("good", f"asked-{number}:v1")
        ns.annotate(f"asked-{number}", RETRY, "1")
        self._served("retry", f"asked-{number}", digest)

    def _served(self, how: str, name: str, digest: str) -> None:
        began = time.monotonic()
        end = began + 60

        def there() -> bool:
            status = status_of(self.ns.get(name))
            return not status.get("conditions") and (status.get("items") or [{}])[0].get("image") == digest

        wait_for(f"{name} heals after {how}", there, seconds=end - began, step=0.05)
        self.took[how].append(time.monotonic() - began)

    def check(self, running: Controller, streams: int) -> list[Request]:
        """What the promise says, of the whole storm; the requests that were made in it."""
        for how, took in self.took.items():
            self.saw[f"{how} served after"] = f"{max(took):.2f} s at most, of {len(took)}"
        self.saw["asked in the middle"] = f"{self.in_the_middle} of {ROUNDS} times"
        # The scenario's own, and those of its namespaces: on a shared cluster others have a controller, too.
        requests = [r for r in self.ns.cluster.requests(self.mark) if f"/namespaces/{self.ns.name}" in r.path]
        times = [r.at for r in requests if "/leases" not in r.path and "/events" not in r.path]
        self.saw["streams"] = str(streams)
        self.saw["took"] = f"{time.monotonic() - self.began:.0f} s"
        self.saw["requests"] = f"{len(times)}, at most {busiest(times)} in a second"
        grown = running.memory() - self.memory
        self.saw["memory grew by"] = f"{grown:.0f} MB"
        print(self.saw)
        assert excess(times, self.rate) <= UNDER_WAY
        assert grown < MEGABYTES + streams * KILOBYTES_PER_STREAM / 1000
        assert self.in_the_middle, "the storm was over before anybody asked"
        assert max(max(took) for took in self.took.values()) <= SERVED_SECONDS, self.took
        return requests


def busy(running: Controller) -> bool:
    """Whether imports wait or run."""
    return running.metric("mirrorstream_running_imports") > 0


def wait_all(ns: Namespace, what: str, condition: Callable[[dict[str, Any]], Any]) -> None:
    """Wait until every stream of the storm is as it should be."""

    def all_are() -> bool:
        return all(condition(stream) for stream in ns.streams() if stream["metadata"]["name"].startswith("storm"))

    wait_for(f"all streams are {what}", all_are, seconds=often(900, 100), step=0.5)


def failed(stream: dict[str, Any]) -> bool:
    """Whether all tags of a stream have failed."""
    tags = (stream.get("status") or {}).get("tags") or []
    return len(tags) == len(stream["spec"]["tags"]) and all(t.get("conditions") for t in tags)


def create_failing(ns: Namespace, count: int, below: str = "") -> None:
    """Streams with a tag each whose upstream is lost, and whose image a mirror has; returns when all have failed."""
    names = [f"storm-{number}" for number in range(count)]
    for name in names:
        ns.put("good", f"{below}{name}:v1")
    each(range(count), lambda number: ns.create(names[number], tag("v1", ns.source(f"{below}{names[number]}:v1"))))
    wait_all(ns, "failed", failed)


def status_writes(requests: list[Request], name: str = "") -> int:
    """How often the status of a stream, or of all, was written, conflicts not counted: those changed nothing."""
    return sum(r.verb == "update" and r.path.endswith(f"{name}/status") and r.status < 300 for r in requests)


@pytest.mark.fault("Storms", "2,000 streams fail at once", f"{BOUNDED}; {SERVED}; everything is healed, by one write each")
def test_streams_that_fail_at_once(ns: Namespace, observed: Cluster, start: Start, saw: Saw) -> None:
    """With the default rate; a controller that comes when all have failed sees them in the same moment."""
    storm = Storm(ns, saw)
    ns.digest_mirrors()
    before = start()
    storm.settle()
    assert before.stop() == 0
    create_failing(ns, STREAMS)
    running = start()
    storm.begin(running)
    wait_for("it is in the middle", lambda: running.metric("mirrorstream_running_imports") > STREAMS / 4)
    for number in range(ROUNDS):
        storm.ask(running, number)
    wait_all(ns, "healed", healed)
    requests = storm.check(running, STREAMS)
    assert status_writes(requests) <= STREAMS + 2 * ROUNDS, "one write a heal"


@pytest.mark.fault("Storms", "300 tags of one stream fail at once", f"{BOUNDED}; {SERVED}, and before all of the stream's tags are")
def test_a_stream_with_masses_of_tags(ns: Namespace, observed: Cluster, start: Start, saw: Saw) -> None:
    """All of them in the user's own namespace; the stream is written in parts, not once for each tag."""
    storm = Storm(ns, saw)
    ns.digest_mirrors()
    before = start()
    storm.settle()
    assert before.stop() == 0
    for number in range(TAGS):
        ns.put("good", f"many:v{number}")
    ns.create("storm", *(tag(f"v{number}", ns.source(f"many:v{number}")) for number in range(TAGS)))
    wait_all(ns, "failed", failed)
    running = start()
    storm.begin(running)
    wait_for("it is in the middle", lambda: running.metric("mirrorstream_running_imports") > TAGS / 4)
    for number in range(ROUNDS):
        storm.ask(running, number)
    wait_all(ns, "healed", healed)
    lasted = time.monotonic() - storm.began
    requests = storm.check(running, TAGS)
    writes = status_writes(requests, "/storm")
    saw["status writes of the stream"] = str(writes)
    assert writes <= lasted / PART_SECONDS + 3


@pytest.mark.fault(
    "Storms",
    "The upstream is lost and back every 10 s, with scheduled imports",
    f"{BOUNDED}; {SERVED}; no tag goes back and forth, and no stream is written more often than its import failed",
)
def test_an_upstream_that_comes_and_goes(ns: Namespace, observed: Cluster, start: Start, saw: Saw) -> None:
    """The mirror has what the upstream has; how many streams the platform's schedule gets to is the platform's business."""
    with Registry() as upstream:
        # By number: for the sources in specs the allow-list counts, which has every port of that.
        host = upstream.host.replace("localhost", "127.0.0.1")
        allow(observed, host)
        storm = Storm(ns, saw)
        ns.digest_mirrors()
        ns.digest_mirrors(source=f"{host}/{ns.name}")
        running = start()
        storm.settle()
        for number in range(SCHEDULED):
            seed = f"{ns.name}/storm-{number}:v1"
            assert upstream.put(f"{ns.name}/storm-{number}", "v1", seed=seed) == ns.put("good", f"storm-{number}:v1")
            source = f"{host}/{ns.name}/storm-{number}:v1"
            ns.create(f"storm-{number}", tag("v1", source, importPolicy={"scheduled": True}))
        wait_all(ns, "imported by the platform", healed)
        storm.begin(running)
        upstream.failure = Failure(503, flapping=often(10, 3))
        end = time.monotonic() + often(60, 12)
        for number in range(ROUNDS):
            wait_for("it is in the middle", lambda: busy(running), seconds=30)
            storm.ask(running, number)
        wait_for("the storm is over", lambda: time.monotonic() > end, seconds=often(120, 60), step=0.2)
        upstream.failure = None
        wait_all(ns, "healed", healed)
        requests = storm.check(running, SCHEDULED)
        for number in range(SCHEDULED):
            stream = ns.get(f"storm-{number}")
            assert len(status_of(stream)["items"]) == 1, "the same image all the while"
            failures = stream["spec"]["tags"][0]["generation"] - 1
            assert status_writes(requests, f"/storm-{number}") <= failures
        saw["status writes"] = f"{sum(status_writes(requests, f'/storm-{n}') for n in range(SCHEDULED))}"


@contextlib.contextmanager
def every_second(do: Callable[[int], Any]) -> Iterator[list[int]]:
    """Do something again and again, once a second; what was done so far."""
    stop, done = threading.Event(), list[int]()

    def run() -> None:
        while not stop.wait(1.0):
            do(len(done))
            done.append(len(done))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield done
    finally:
        stop.set()
        thread.join(30)


@pytest.mark.fault(
    "Storms",
    "A mirror rule of failing streams is edited once a second",
    f"{BOUNDED}, also when it is set lower; {SERVED}; the last rule counts, and everything is healed by it",
)
def test_a_rule_that_is_edited_all_the_time(ns: Namespace, observed: Cluster, start: Start, saw: Saw) -> None:
    """Each edit makes every failed stream worth another try, and what waits of the rules before is dropped."""
    rate = 100
    storm = Storm(ns, saw, rate)
    ns.digest_mirrors()
    rule = ns.digest_mirrors(f"{observed.host('good')}/nowhere-{ns.name}", source=ns.source("edited"))
    running = start(controller={"apiRequestsPerSecond": rate})
    storm.settle()
    create_failing(ns, EDITED, "edited/")
    storm.begin(running)
    with every_second(
        lambda n: ns.change_mirrors(rule, f"{observed.host(('good', 'other')[n % 2])}/nowhere-{n}-{ns.name}")
    ) as edits:
        for number in range(ROUNDS):
            wait_for("it is edited", lambda number=number: len(edits) > number)  # type: ignore[misc]
            wait_for("it is in the middle", lambda: busy(running), seconds=30)
            storm.ask(running, number)
        wait_for("it was edited for long enough", lambda: len(edits) >= often(60, 5), seconds=120)
    saw["edits"] = str(len(edits))
    ns.change_mirrors(rule, f"{ns.mirror()}/edited")
    wait_all(ns, "healed", healed)
    storm.check(running, EDITED)


@pytest.mark.fault("Storms", "A stream fails in each of 5,000 namespaces", f"{BOUNDED}; {SERVED}; everything is healed")
def test_masses_of_namespaces(ns: Namespace, observed: Cluster, start: Start, saw: Saw) -> None:
    """Fair turns of so many must not become a turn that never comes. Behind a real kube-apiserver, 500 are made."""
    count = often(5000, 500) if observed.backend == SIMULATOR else often(500, 60)
    names = [f"{ns.name}-{number}" for number in range(count)]
    storm = Storm(ns, saw)
    ns.digest_mirrors()
    included = {"include": [ns.name, f"{ns.name}-*"]}
    before = start(namespaces=included)
    storm.settle()
    assert before.stop() == 0
    ns.put("good", "app:v1")
    body = {"metadata": {"name": "storm"}, "spec": {"tags": [tag("v1", ns.source("app:v1"))]}}

    def create(number: int) -> None:
        ns.client.request("POST", "/api/v1/namespaces", body={"metadata": {"name": names[number]}})
        ns.client.request("POST", f"{IMAGE_API}/namespaces/{names[number]}/imagestreams", body=body)

    def remove(number: int) -> None:
        ns.client.request("DELETE", f"{IMAGE_API}/namespaces/{names[number]}/imagestreams/storm")
        ns.client.request("DELETE", f"/api/v1/namespaces/{names[number]}")

    def all_are(condition: Callable[[dict[str, Any]], bool]) -> bool:
        found = [s for s in ns.client.get(f"{IMAGE_API}/imagestreams")["items"] if s["metadata"]["namespace"] in known]
        return len(found) == count and all(condition(stream) for stream in found)

    known = set(names)
    each(range(count), create)
    try:
        wait_for("all have failed", lambda: all_are(failed), seconds=often(600, 60), step=1)
        running = start(namespaces=included)
        storm.begin(running)
        wait_for("it is in the middle", lambda: running.metric("mirrorstream_running_imports") > count / 4)
        for number in range(ROUNDS):
            storm.ask(running, number)
        wait_for("all are healed", lambda: all_are(healed), seconds=often(600, 60), step=1)
        storm.check(running, count)
    finally:
        each(range(count), remove)
