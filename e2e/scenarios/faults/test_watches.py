"""What becomes of watches: afterwards what is known agrees with a list, everything heals, and nobody was asked in a tight loop."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mirrorstream.kube.client import EVENT_LIMIT

from e2e.scenarios.conftest import Start, configuration
from e2e.testbed.cluster import Cluster, Namespace
from e2e.testbed.faults.actions import refuse, watch_lines
from e2e.testbed.faults.agreement import COLLECTIONS, agree
from e2e.testbed.faults.backoff import most_requests
from e2e.testbed.faults.hasty import OVERDUE_SECONDS, WATCH_SECONDS, HastyController, HastyWebhook
from e2e.testbed.faults.reliability import often
from e2e.testbed.interceptor import Action, Exchange, Interceptor, Reset, intercepted
from e2e.testbed.programs.hooks import registered, wait_asked
from e2e.testbed.programs.program import Program, running
from e2e.testbed.streams import tag
from e2e.testbed.support.waiting import wait_for

pytestmark = pytest.mark.timeout(often(1800, 180))
SECONDS = often(60, 5)
"""How long a fault lasts."""
BOTH = f"^({'|'.join(COLLECTIONS.values())})$"
AGREES = "streams and rules that were created, changed and deleted during the fault are known, one status write for each heal, {}"
MB = 1024 * 1024
Lines = Iterator[bytes]


def fault(what: str, promise: str) -> pytest.MarkDecorator:
    """A row of the table."""
    return pytest.mark.fault("Watch", what, promise)


class Story:
    """Streams and rules of a namespace, some there before a fault, some that come, change and go in it."""

    def __init__(self, ns: Namespace) -> None:
        self.ns = ns
        self.one, self.two = ns.put("good", "kept/one:v1"), ns.put("good", "kept/two:v1")
        self.later = ns.put("good", "later/one:v1")
        self._rule("kept")
        self.going = self._rule("going")

    def _rule(self, folder: str) -> str:
        return self.ns.digest_mirrors(f"{self.ns.mirror()}/{folder}", source=self.ns.source(folder))

    def begin(self) -> None:
        """What the controller knows when the fault begins."""
        for name in ("changed", "deleted"):
            self.ns.create(name, tag("v1", self.ns.source("kept/one:v1")))
        self.ns.create("waiting", tag("v1", self.ns.source("later/one:v1")))
        for name in ("changed", "deleted"):
            self.ns.wait_healed(name, "v1", self.one)
        self.ns.wait_failed("waiting", "v1")

    def go_on(self) -> None:
        """What happens in it."""
        self.ns.create("new", tag("v1", self.ns.source("kept/one:v1")))
        self.ns.change("changed", self.point_elsewhere)
        self.ns.delete("deleted")
        self._rule("later")
        self.ns.remove_mirror_set(self.going)

    def point_elsewhere(self, stream: Any) -> None:
        """What becomes of a stream that a user edits."""
        stream["spec"]["tags"][0]["from"]["name"] = self.ns.source("kept/two:v1")

    def end(self, program: Program, between: Interceptor) -> None:
        """What must hold in the end."""
        for name, digest in (("new", self.one), ("changed", self.two), ("waiting", self.later)):
            self.ns.wait_healed(name, "v1", digest, seconds=40)
        agree(program, self.ns.cluster)
        wait_for("nothing is left to do", lambda: not program.metric("mirrorstream_queue_depth"))
        assert not program.metric("mirrorstream_running_imports")
        written = {name: between.count("update", f"/{self.ns.name}/imagestreams/{name}/status$") for name in self._expected()}
        assert written == self._expected()

    @staticmethod
    def _expected() -> dict[str, int]:
        return {"new": 1, "changed": 2, "waiting": 1, "deleted": 1}


def failing(program: Program) -> float:
    """How many failing tags it manages; the namespaces of others on a shared cluster are left out."""
    found = program.series("mirrorstream_failing_tags")
    return sum(value for series, value in found.items() if 'state="opted-out"' not in series)


@contextmanager
def befallen(between: Interceptor, action: Action, path: str = BOTH, *, times: int | None = None) -> Iterator[Callable[[], int]]:
    """Let `action` decide about watches, those that run are ended for it; what is given back counts how many there were."""
    with between.when("watch", path, action, times=times) as rule:
        between.drop("watch", path)
        wait_for("the watches start again", lambda: rule.hits >= (2 if path == BOTH else 1))
        yield lambda: rule.hits
    between.drop("watch", path)


def chunk(data: bytes) -> bytes:
    """A part of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def begin_watch(exchange: Exchange) -> None:
    """The head of a watch's answer, of the test's own."""
    exchange.start({"Content-Type": "application/json", "Transfer-Encoding": "chunked"})


def line_of(kind: str, content: Any) -> bytes:
    """A watch's line."""
    return json.dumps({"type": kind, "object": content}).encode() + b"\n"


def gone_inside(exchange: Exchange) -> None:
    """A watch that begins well and says 410 in its first event."""
    begin_watch(exchange)
    status = {"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old resource version"}
    exchange.send(chunk(line_of("ERROR", status)) + b"0\r\n\r\n")


def silent(exchange: Exchange) -> None:
    """A watch that begins well, and then neither a byte nor an end."""
    begin_watch(exchange)
    while not exchange.gone():
        pass
    raise Reset


def only_bookmarks(exchange: Exchange) -> None:
    """A watch that says again and again that nothing has happened since it began."""
    begin_watch(exchange)
    mark = chunk(line_of("BOOKMARK", {"kind": "Any", "metadata": {"resourceVersion": exchange.params["resourceVersion"]}}))
    while not exchange.gone():
        exchange.send(mark)
        threading.Event().wait(0.1)
    raise Reset


def truncated(lines: Lines) -> Lines:
    """The connection is cut in the middle of the first event."""
    for line in lines:
        yield line[: len(line) // 2]
        raise Reset


def disordered(lines: Lines) -> Lines:
    """The first two events of a namespace change places, and with each one all earlier ones come again, the latest first."""
    seen: list[bytes] = []
    for line in lines:
        if json.loads(line)["type"] == "BOOKMARK":
            yield line
            continue
        seen.append(line)
        if len(seen) == 1:
            continue
        yield line
        yield from reversed(seen)
        yield line


@fault("dropped every second", AGREES.format("each dropped watch begun again once"))
def test_dropped_again_and_again(ns: Namespace, start: Start, between: Interceptor, saw: dict[str, str]) -> None:
    """It resumes where it was: nothing is listed again."""
    story = Story(ns)
    program = start(program=between.kubeconfig)
    story.begin()
    began, dropped = time.monotonic(), 0
    for second in range(SECONDS):
        dropped += between.drop("watch", BOTH)
        if second == 1:
            story.go_on()
        time.sleep(1)
    watches, lists = between.count("watch", BOTH, began), between.count("list", BOTH, began)
    story.end(program, between)
    assert watches <= dropped
    assert lists == 0
    saw["watches"] = f"{watches} in {SECONDS} s"


@pytest.mark.parametrize("action", [pytest.param(refuse(410, "Expired"), id="status"), pytest.param(gone_inside, id="event")])
@fault("410 at once and repeatedly, as a status and as an event", AGREES.format("lists and watches at growing intervals"))
def test_gone_at_once_and_repeatedly(
    ns: Namespace, start: Start, between: Interceptor, saw: dict[str, str], action: Action
) -> None:
    """Each list brings what happened; the intervals grow."""
    story = Story(ns)
    program = start(program=between.kubeconfig)
    story.begin()
    began = time.monotonic()
    with befallen(between, action):
        story.go_on()
        time.sleep(max(0, began + SECONDS - time.monotonic()))
        lasted = time.monotonic() - began
        asked = {
            (verb, path): between.count(verb, f"{path}$", began) for verb in ("list", "watch") for path in COLLECTIONS.values()
        }
    story.end(program, between)
    assert max(asked.values()) <= most_requests(lasted), asked
    saw["lists and watches of a resource"] = f"{max(asked.values())} in {lasted:.0f} s"


@fault("silent: neither a byte nor an end", AGREES.format(f"noticed within {WATCH_SECONDS[1] + OVERDUE_SECONDS:.0f} s"))
def test_silent(ns: Namespace, between: Interceptor, tmp_path: Path, saw: dict[str, str]) -> None:
    """A watch that was to end by itself and has not is dead, whatever its connection says; the next one resumes."""
    story = Story(ns)
    with running(HastyController(between.kubeconfig, tmp_path, configuration(ns), "--no-leader-election")) as program:
        story.begin()
        with befallen(between, silent) as watches:
            began = time.monotonic()
            story.go_on()
            wait_for("both are noticed", lambda: watches() >= 4, seconds=WATCH_SECONDS[1] + OVERDUE_SECONDS + 15)
            lasted = time.monotonic() - began
        assert ns.failure("waiting", "v1"), "nothing could be known of the rule"
        story.end(program, between)
        assert watches() <= 2 * most_requests(lasted)
        saw["noticed"] = f"{lasted:.1f} s, with watches of {WATCH_SECONDS[0]} to {WATCH_SECONDS[1]} s"


@fault("a truncated event", AGREES.format("nothing listed again"))
def test_truncated(ns: Namespace, start: Start, between: Interceptor) -> None:
    """What was whole is kept, and the event comes again."""
    story = Story(ns)
    program = start(program=between.kubeconfig)
    story.begin()
    began = time.monotonic()
    with befallen(between, watch_lines(truncated), times=4):
        story.go_on()
        story.end(program, between)
    assert between.count("list", BOTH, began) == 0


@pytest.mark.parametrize(
    ("size", "read"), [pytest.param(20 * MB, True, id="20MB"), pytest.param(3 * EVENT_LIMIT, False, id="96MB")]
)
@fault("an event of 20 MB, and of 96 MB", AGREES.format("read in bounded memory, or not read and everything listed again"))
def test_an_enormous_event(ns: Namespace, start: Start, between: Interceptor, saw: dict[str, str], size: int, read: bool) -> None:
    """No API server stores such an object: an answer with it must not fill our memory."""
    story = Story(ns)
    program = start(program=between.kubeconfig)
    story.begin()
    padding = b"x" * size

    def enlarged(lines: Lines) -> Lines:
        done = False
        for line in lines:
            if done or b'"name":"new"' not in line.replace(b'": "', b'":"'):
                yield line
                continue
            done = True
            event = json.loads(line)
            event["object"]["metadata"].setdefault("annotations", {})["giant"] = "@"
            first, _, last = json.dumps(event).encode().partition(b"@")
            yield first + padding + last + b"\n"

    streams = COLLECTIONS["imagestreams.image.openshift.io"]
    before, began = program.forget_peak(), time.monotonic()
    with befallen(between, watch_lines(enlarged), f"^{streams}$", times=1):
        story.go_on()
        story.end(program, between)
    grown = program.peak_memory() - before
    refused = [line for line in program.lines("the watch cannot be read, listing again") if "more than" in line["reason"]]
    assert (len(refused), between.count("list", f"^{streams}$", began)) == ((0, 0) if read else (1, 1))
    # An event is put together of its chunks, and its object taken out of it.
    largest = min(size, EVENT_LIMIT) / MB
    assert largest / 2 < grown < 4 * largest
    saw["memory"] = f"{grown} MiB more"


@fault(
    "bookmarks only, while things change",
    f"{AGREES.format('one watch')}; nothing is written for a tag or stream that is another",
)
def test_bookmarks_only(ns: Namespace, start: Start, between: Interceptor) -> None:
    """Nobody can know that something is missing: but what is known is not trusted, and the watch's own end brings the rest."""
    story = Story(ns)
    program = start(program=between.kubeconfig)
    story.begin()
    for name in ("edited", "removed"):
        ns.create(name, tag("v1", ns.source("kept/missing:v1")))
        ns.wait_event(name, "MirrorImportFailed")
    with befallen(between, only_bookmarks) as watches:
        story.go_on()
        ns.change("edited", story.point_elsewhere)
        ns.delete("removed")
        tried = between.count("create", f"/{ns.name}/imagestreamimports$")
        missing = ns.put("good", "kept/missing:v1")  # what the streams no longer ask for
        time.sleep(SECONDS)
        assert between.count("create", f"/{ns.name}/imagestreamimports$") > tried, "it goes on by what it knows"
        assert watches() == 2
        assert [between.count("update", f"/{ns.name}/imagestreams/{name}/status$") for name in ("edited", "removed")] == [0, 0]
    story.end(program, between)
    ns.wait_healed("edited", "v1", story.two)
    assert missing not in [item["image"] for item in ns.tag_status("edited", "v1")["items"]]


@fault("duplicate and out-of-order events", AGREES.format("nothing listed again"))
def test_disordered(ns: Namespace, start: Start, between: Interceptor) -> None:
    """The newest of each object counts, whatever comes after it."""
    story = Story(ns)
    program = start(program=between.kubeconfig)
    story.begin()
    began = time.monotonic()
    with befallen(between, watch_lines(disordered)):
        story.go_on()
        story.end(program, between)
        # What had been healed or deleted does not come back.
        assert between.count("create", f"/{ns.name}/imagestreamimports$", began) <= 3
        ns.stays("deleted", lambda: failing(program) == 0)
    assert between.count("list", BOTH, began) == 0


@pytest.mark.parametrize("action", [pytest.param(gone_inside, id="gone"), pytest.param(silent, id="silent")])
@fault(
    "the webhook's watches: 410 repeatedly, and silent",
    "pods get what the streams have now, none what a deleted stream had; growing intervals",
)
def test_the_webhooks_watches(
    ns: Namespace, cluster: Cluster, start: Start, tmp_path: Path, saw: dict[str, str], action: Action
) -> None:
    """The controller hears everything, the webhook nothing for a while."""
    ns.allow_pulls()
    story = Story(ns)
    start()
    story.begin()

    def rewritten(image: str) -> str:
        found: str = ns.pod("seen", ns.source(image), dry_run=True)["spec"]["containers"][0]["image"]
        return found.partition("@")[2]

    with (
        intercepted(cluster.webhook, tmp_path) as between,
        running(HastyWebhook(between.kubeconfig, tmp_path, {})) as webhook,
        registered(webhook, ns.client, [ns.name]),
    ):
        wait_asked(webhook, ns)
        wait_for("it knows the stream", lambda: rewritten("kept/one:v1") == story.one)
        with befallen(between, action) as watches:
            began = time.monotonic()
            story.go_on()
            ns.delete("new")
            ns.wait_healed("changed", "v1", story.two)
            ns.wait_healed("waiting", "v1", story.later)
            wait_for("the watches are begun again", lambda: watches() >= 4, seconds=WATCH_SECONDS[1] + OVERDUE_SECONDS + 15)
            time.sleep(max(0, began + SECONDS / 2 - time.monotonic()))
            asked, lasted = watches(), time.monotonic() - began
        for image, digest in (("kept/two:v1", story.two), ("later/one:v1", story.later)):
            wait_for(f"{image} is known", lambda image=image, digest=digest: rewritten(image) == digest, seconds=30)  # type: ignore[misc]
        agree(webhook, cluster)
        assert asked <= 2 * most_requests(lasted)
        saw["watches of two resources"] = f"{asked} in {lasted:.0f} s"
