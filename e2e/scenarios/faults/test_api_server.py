"""What an API server does to requests: afterwards everything heals, with one status write each, by the same process."""

import base64
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import yaml
from mirrorstream.kube.client import THROTTLE_LIMIT

from e2e.scenarios.conftest import Start, configuration
from e2e.scenarios.faults.conftest import Saw
from e2e.testbed.cluster import Namespace
from e2e.testbed.faults.actions import cut_answer, delay, lose_answer, refuse
from e2e.testbed.faults.backoff import most_requests
from e2e.testbed.faults.hasty import ABSENT_SECONDS, HastyController
from e2e.testbed.faults.reliability import SOAK, often
from e2e.testbed.interceptor import Action, Interceptor, intercepted
from e2e.testbed.programs.commands import Commands
from e2e.testbed.programs.program import Program, running
from e2e.testbed.streams import tag
from e2e.testbed.support.waiting import wait_for

pytestmark = pytest.mark.timeout(often(1800, 180))
SECONDS = often(60, 6)
STREAMS = "^/apis/image.openshift.io/v1/imagestreams$"
RULES = "^/apis/config.openshift.io/v1/imagedigestmirrorsets$"
IMAGES = "^/apis/image.openshift.io/v1/images$"
DRY_RUNS = "/imagestreamimports$"
LEASES = "/leases(/|$)"
ABSENT = refuse(404, "NotFound", "the server could not find the requested resource")
PATIENCE = 60 + 1.5 * ABSENT_SECONDS
"""How long anything may take in the end, in seconds."""
LEASE_RETRY = 1.8
"""The least time between two attempts at the lease, in seconds."""
THROTTLED_FOR = 2
"""What Retry-After says all the while, in seconds."""
Requests = list[tuple[str, str]]


def fault(what: str, promise: str) -> pytest.MarkDecorator:
    """A row of the table."""
    return pytest.mark.fault("API server", what, promise)


@pytest.fixture
def between_leader(own_account: Path, tmp_path: Path) -> Iterator[Interceptor]:
    """As `between`, for a controller that may have a Lease in the scenario's namespace."""
    with intercepted(own_account, tmp_path) as found:
        yield found


def stream(ns: Namespace, name: str = "app") -> str:
    """The path of a stream, as a regular expression."""
    return f"/namespaces/{ns.name}/imagestreams/{name}$"


def status(ns: Namespace, name: str = "app") -> str:
    """The path of its status."""
    return f"/namespaces/{ns.name}/imagestreams/{name}/status$"


def heals(ns: Namespace, between: Interceptor, digest: str, name: str = "app", *, refused: int = 0) -> None:
    """Wait for it; there is one entry in the history, and one status write but for those that were refused."""
    ns.wait_healed(name, "v1", digest, seconds=PATIENCE)
    assert [item["image"] for item in ns.tag_status(name, "v1")["items"]] == [digest]
    ns.stays("written once", lambda: between.count("update", status(ns, name)) == refused + 1, seconds=0.5)


@contextmanager
def befalling(between: Interceptor, requests: Requests, action: Action) -> Iterator[None]:
    """Let `action` decide about the next one of each of these requests; all of them must have come by the end."""
    with ExitStack() as stack:
        rules = {(verb, path): stack.enter_context(between.when(verb, path, action, times=1)) for verb, path in requests}
        yield
        assert {request: rule.hits for request, rule in rules.items()} == dict.fromkeys(rules, 1)


def pauses(between: Interceptor, requests: Requests) -> dict[tuple[str, str], float]:
    """How long after the first of these requests, which was refused, the next one came, in seconds."""
    found = {}
    for verb, path in requests:
        seen = sorted(s.at for s in between.seen(verb, path))
        found[verb, path] = seen[1] - seen[0]
    return found


@fault("429 with Retry-After, of 2 s, and of more than a request waits for", "no request is repeated earlier; one status write")
@pytest.mark.parametrize("seconds", [2, often(32, int(THROTTLE_LIMIT) + 1)])
def test_too_many_requests(ns: Namespace, start: Start, between: Interceptor, saw: dict[str, str], seconds: int) -> None:
    """Whatever is asked for: lists, watches, dry runs, Images, streams and their status."""
    digest = ns.put("good", "app:v1")
    ns.digest_mirrors()
    refused: Requests = [("watch", RULES), ("create", DRY_RUNS)]
    if SOAK or seconds < THROTTLE_LIMIT:  # one after the other
        refused += [("list", STREAMS), ("watch", STREAMS), ("create", IMAGES), ("get", stream(ns, "second"))]
        refused.append(("update", status(ns, "second")))
    with befalling(between, refused, refuse(429, "TooManyRequests", retry_after=seconds)):
        ns.create("app", tag("v1", ns.source("app:v1")))
        start(program=between.kubeconfig)
        heals(ns, between, digest)
        ns.create("second", tag("v1", ns.source("app:v1")))
        heals(ns, between, digest, "second", refused=int(("update", status(ns, "second")) in refused))
        wait_for(
            "each has been repeated", lambda: all(len(between.seen(*request)) > 1 for request in refused), seconds=seconds + 15
        )
    waited = pauses(between, refused)
    assert min(waited.values()) >= seconds, waited
    saw["repeated after"] = f"{min(waited.values()):.1f} s or more, when {seconds} s were asked for"


@fault(
    "500s for a minute, to every request",
    "no tight loop; the same process, or, without the lease, an end with status 1 and one line",
)
def test_internal_errors(ns: Namespace, start: Start, between_leader: Interceptor, saw: dict[str, str]) -> None:
    """A leader that cannot renew for 11 s ends; whatever happens, nothing is lost."""
    ns.digest_mirrors()
    program = start("--namespace", ns.name, program=between_leader.kubeconfig)
    wait_for("it leads", lambda: program.metric("mirrorstream_leader") == 1)
    ns.create("app", tag("v1", ns.source("app:v1")))
    ns.wait_event("app", "MirrorImportFailed")
    began = time.monotonic()
    with between_leader.when("*", "", refuse(500, "InternalError")):
        between_leader.drop()
        digest = ns.put("good", "app:v1")
        ns.create("new", tag("v1", ns.source("app:v1")))
        time.sleep(SECONDS)
        lasted = time.monotonic() - began
        asked = {
            request: between_leader.count(*request, began) for request in (("watch", STREAMS), ("watch", RULES), ("list", STREAMS))
        }
        leases, dry_runs = between_leader.count("*", LEASES, began), between_leader.count("create", DRY_RUNS, began)
    assert max(asked.values()) <= most_requests(lasted), asked
    assert leases <= 2 * (lasted / LEASE_RETRY + 1)
    assert dry_runs <= most_requests(lasted) + lasted  # one stream's back-off is 0.5 to 2 s here
    assert dry_runs, "a stream that was known to fail"
    saw["requests"] = f"{sum(asked.values()) + leases + dry_runs} in {lasted:.0f} s"
    if program.process.ended is not None or lasted > 15:
        assert program.process.wait(5) == 1
        assert [line["reason"] for line in program.lines("lost leader lease, exiting")] == [
            "the lease could not be renewed for 11 s"
        ]
        saw["the leader"] = "ended"
        start("--namespace", ns.name, program=between_leader.kubeconfig)
    for name in ("app", "new"):
        heals(ns, between_leader, digest, name)


@fault(
    "429 with Retry-After to every request for five minutes",
    "no request is repeated earlier; `status` lists the tags as failing; everything heals afterwards, by the same process",
)
def test_throttled_for_minutes(ns: Namespace, start: Start, between: Interceptor, tmp_path: Path, saw: Saw) -> None:
    """One tag that failed before, and one that comes in between, of which the program cannot know."""
    ns.digest_mirrors()
    program = start(program=between.kubeconfig)
    ns.create("app", tag("v1", ns.source("app:v1")))
    ns.wait_event("app", "MirrorImportFailed")
    began = time.monotonic()
    with between.when("*", "", refuse(429, "TooManyRequests", retry_after=THROTTLED_FOR)):
        between.drop()
        digest = ns.put("good", "app:v1")
        ns.create("new", tag("v1", ns.source("app:v1")))
        ns.wait_failed("new", "v1")
        time.sleep(often(300, 6))
        status = Commands(ns.cluster.kubeconfig, tmp_path)("status", "-n", ns.name, "-o", "json")
        lasted = time.monotonic() - began
        asked = Counter((seen.verb, seen.path) for seen in between.requests if seen.at >= began)
    states = {f"{found['stream']}:{found['tag']}": found["state"] for found in status.document["tags"]}
    assert (status.status, states) == (3, {"app:v1": "failing", "new:v1": "failing"})
    # Where two threads ask for the same, each has its own wait.
    assert max(asked.values()) <= 2 * (lasted / THROTTLED_FOR + 1), asked
    saw["requests"] = f"{asked.total()} in {lasted:.0f} s"
    for name in ("app", "new"):
        heals(ns, between, digest, name)
    assert program.process.ended is None


@fault("its TLS certificate and authority changed", "the same process goes on, and keeps its lease, once it can read the authority")
@pytest.mark.parametrize("embedded", [False, True], ids=["file", "kubeconfig"])
def test_another_certificate(ns: Namespace, start: Start, between_leader: Interceptor, tmp_path: Path, embedded: bool) -> None:
    """Whether the kubeconfig names a file with the authority, as in a pod, or has the authority inside."""
    if not between_leader.authority_file.exists():
        pytest.skip("this API server speaks plain HTTP")
    kubeconfig = between_leader.kubeconfig
    document = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))
    if embedded:
        kubeconfig = tmp_path / "embedded.kubeconfig"

    def tell() -> None:
        if embedded:
            cluster = document["clusters"][0]["cluster"]
            cluster.pop("certificate-authority", None)
            cluster["certificate-authority-data"] = base64.b64encode(between_leader.authority_file.read_bytes()).decode()
            kubeconfig.write_text(yaml.safe_dump(document), encoding="utf-8")

    tell()
    digest = ns.put("good", "app:v1")
    ns.digest_mirrors()
    program = start("--namespace", ns.name, program=kubeconfig)
    wait_for("it leads", lambda: program.metric("mirrorstream_leader") == 1)
    between_leader.renew()
    between_leader.disconnect()
    if embedded:
        wait_for("it is refused", lambda: "certificate verify failed" in program.log())
    tell()
    ns.create("app", tag("v1", ns.source("app:v1")))
    heals(ns, between_leader, digest)
    began = time.monotonic()
    wait_for("the lease is renewed", lambda: between_leader.count("update", LEASES, began))
    assert program.metric("mirrorstream_leader") == 1
    assert not program.lines("lost leader lease, exiting")


@fault("the connection reset in the middle of a body", "what was cut is asked for again; one status write")
def test_cut_bodies(ns: Namespace, start: Start, between: Interceptor) -> None:
    """Of lists, dry runs, Images, streams, and of the answer to the status write, which had taken effect."""
    digest = ns.put("good", "app:v1")
    ns.digest_mirrors()
    cut = [
        ("list", STREAMS),
        ("list", RULES),
        ("create", DRY_RUNS),
        ("create", IMAGES),
        ("get", stream(ns)),
        ("update", status(ns)),
    ]
    with befalling(between, cut, cut_answer):
        program = start(program=between.kubeconfig)
        ns.create("app", tag("v1", ns.source("app:v1")))
        heals(ns, between, digest)
    assert program.metric("mirrorstream_status_writes_total", outcome="written") == 1


@fault("slow: 5 s for each answer", "the lease is acquired and kept, streams heal, one status write")
def test_slow(ns: Namespace, between_leader: Interceptor, start: Start, saw: dict[str, str]) -> None:
    """From the start on: two answers until it leads, four for a heal."""
    digest = ns.put("good", "app:v1")
    ns.digest_mirrors()
    ns.create("app", tag("v1", ns.source("app:v1")))
    with between_leader.when("*", "", delay(5)):
        began = time.monotonic()
        program = start("--namespace", ns.name, program=between_leader.kubeconfig)
        wait_for("it leads", lambda: program.metric("mirrorstream_leader") == 1, seconds=30)
        leading = time.monotonic()
        heals(ns, between_leader, digest)
        saw["healed"] = f"{time.monotonic() - began:.0f} s after the start"
        time.sleep(max(0, leading + often(120, 17) - time.monotonic()))  # longer than a lease lasts
        assert program.metric("mirrorstream_leader") == 1
        assert program.process.ended is None
        assert between_leader.count("update", LEASES, leading) >= 2


@fault("image.openshift.io absent at start, appearing later", "it waits, asking every 6 s, and then heals")
def test_no_image_api_at_first(ns: Namespace, between: Interceptor, tmp_path: Path) -> None:
    """A cluster that is being installed: never ready before, never ended."""
    digest = ns.put("good", "app:v1")
    ns.digest_mirrors()
    ns.create("app", tag("v1", ns.source("app:v1")))
    program = HastyController(between.kubeconfig, tmp_path, configuration(ns), "--no-leader-election")
    try:
        with between.when("*", "^/apis/image.openshift.io/", ABSENT):
            wait_for("it answers", lambda: _answers(program))
            wait_for("readiness names the kind", lambda: "does not serve imagestreams" in program.get("/readyz")[1])
            time.sleep(SECONDS)
            asked = between.count("*", "^/apis/image.openshift.io/")
            assert asked <= SECONDS / (0.8 * ABSENT_SECONDS) + 2
        wait_for("it is ready", program.ready, seconds=PATIENCE)
        with running(program):
            heals(ns, between, digest)
    finally:
        program.process.kill()


def _answers(program: Program) -> bool:
    try:
        return program.get("/healthz")[0] == 200
    except OSError:
        return False


@fault("mirror set kinds that appear later", "rules count from then on, within 10 s")
def test_no_mirror_sets_at_first(ns: Namespace, between: Interceptor, tmp_path: Path) -> None:
    """Ready without them, as on a release that does not have them; an upgrade needs no restart."""
    digest = ns.put("good", "app:v1")
    ns.digest_mirrors()
    ns.create("app", tag("v1", ns.source("app:v1")))
    with ExitStack() as stack:
        with between.when("*", RULES, ABSENT):
            program = HastyController(between.kubeconfig, tmp_path, configuration(ns), "--no-leader-election")
            stack.enter_context(running(program))
            ns.wait_failed("app", "v1")
            wait_for("it is known to fail", lambda: program.metric("mirrorstream_failing_tags", state="unmirrored") == 1)
        heals(ns, between, digest)


@fault("the resources 404 for a while", "what was known is not given up at once; afterwards all is known again, one status write")
def test_absent_for_a_while(ns: Namespace, between: Interceptor, tmp_path: Path) -> None:
    """An API server that is just starting may not know its own kinds yet."""
    digest = ns.put("good", "app:v1")
    ns.digest_mirrors()
    with running(HastyController(between.kubeconfig, tmp_path, configuration(ns), "--no-leader-election")) as program:
        ns.create("app", tag("v1", ns.source("app:v1")))
        heals(ns, between, digest)
        began = time.monotonic()
        with between.when("*", f"{STREAMS}|{RULES}", ABSENT):
            between.drop("watch")
            ns.create("new", tag("v1", ns.source("app:v1")))
            time.sleep(SECONDS)
            lasted = time.monotonic() - began
            asked = {path: between.count("*", path, began) for path in (STREAMS, RULES)}
        assert max(asked.values()) <= most_requests(lasted) + lasted / ABSENT_SECONDS, asked
        heals(ns, between, digest, "new")
        heals(ns, between, digest)
        assert program.ready()


@fault(
    "status writes that conflict 50 times in a row", "planned again with a back-off; one write in the end, one entry in the history"
)
def test_conflicts(ns: Namespace, start: Start, between: Interceptor, saw: dict[str, str]) -> None:
    """Five in a row are tried at once, from a fresh stream each; then the image is asked for again."""
    digest = ns.put("good", "app:v1")
    ns.digest_mirrors()
    program = start(program=between.kubeconfig, controller={"retry": {"initialSeconds": 0.4, "maximumSeconds": 0.4}})
    with between.when("update", status(ns), refuse(409, "Conflict"), times=50):
        ns.create("app", tag("v1", ns.source("app:v1")))
        heals(ns, between, digest, refused=50)
    assert between.count("get", stream(ns)) == 51
    dry_runs = between.count("create", DRY_RUNS)
    assert dry_runs <= 11
    assert program.metric("mirrorstream_status_writes_total", outcome="conflict") == 10
    saw["dry runs"] = str(dry_runs)


@fault("an answer lost: of the status write, an Image, a dry run", "no duplicate entry in the history, no second status write")
@pytest.mark.parametrize("what", ["status", "image", "dry-run"])
def test_lost_answers(ns: Namespace, start: Start, between: Interceptor, what: str) -> None:
    """The API server has done what it was asked for, and nobody knows."""
    digest = ns.put("good", "app:v1")
    ns.digest_mirrors()
    lost = {"status": ("update", status(ns)), "image": ("create", IMAGES), "dry-run": ("create", DRY_RUNS)}[what]
    program = start(program=between.kubeconfig)
    with befalling(between, [lost], lose_answer):
        ns.create("app", tag("v1", ns.source("app:v1")))
        heals(ns, between, digest)
    assert between.count(*lost) == (1 if what == "status" else 2)
    assert program.metric("mirrorstream_status_writes_total", outcome="written") == 1
