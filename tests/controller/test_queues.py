"""Who is next: streams in the work queue, imports in the pool."""

import itertools
import threading
from typing import Any

import pytest
from mirrorstream.imagestream.model import RETRY_ANNOTATION, imagestream_from
from mirrorstream.kube.objects import Key
from mirrorstream.kube.workqueue import WorkQueue
from mirrorstream.rules.policy import MirrorPolicy
from mirrorstream_controller.import_queue import (
    MISSING_IN_A_ROW,
    NAMESPACE_BATCH,
    NEWCOMERS_IN_A_ROW,
    ImportQueue,
    MirrorQueue,
    QueuedImport,
)

from e2e.testbed.support.waiting import wait_for
from tests.controller.bed import FAILED, KEY, Bed
from tests.controller.builders import IDMS, failure, stream


def queue(now: list[float]) -> WorkQueue:
    """A queue with a clock of the test's."""
    return WorkQueue(initial=5, maximum=300, clock=lambda: now[0], uniform=lambda low, high: 1.0)


def drain(q: WorkQueue) -> list[Key]:
    """Everything that waits now, in its order."""
    found = []
    while (key := q.get(timeout=0)) is not None:
        found.append(key)
        q.done(key)
    return found


def test_a_key_is_processed_once_at_a_time_and_never_lost() -> None:
    """What is added while it is processed comes once more."""
    q = queue([0.0])
    q.add(("a", "1"))
    q.add(("a", "1"))
    key = q.get(timeout=0)
    assert key == ("a", "1")
    q.add(("a", "1"))
    q.add(("a", "1"))
    assert q.get(timeout=0) is None
    q.done(key)
    assert drain(q) == [("a", "1")]


def test_namespaces_take_turns() -> None:
    """A tenant with a thousand failing streams delays nobody."""
    q = queue([0.0])
    for number in range(1000):
        q.add(("greedy", str(number)))
    q.add(("modest", "1"))
    assert ("modest", "1") in [q.get(timeout=0) for _ in range(2)]


def test_what_a_user_asked_for_comes_first() -> None:
    """Also when it was waiting already, or is being processed."""
    q = queue([0.0])
    for number in range(5):
        q.add(("a", str(number)))
    q.add(("a", "4"), priority=True)
    assert q.get(timeout=0) == ("a", "4")
    q.add(("a", "4"), priority=True)
    q.done(("a", "4"))
    assert q.get(timeout=0) == ("a", "4")


def test_who_asks_for_a_thousand_streams_again_and_again_delays_nobody() -> None:
    """Neither what others ask for, nor what just waits."""
    q = queue([0.0])
    for number in range(1000):
        q.add(("greedy", str(number)), priority=True)
    q.add(("modest", "asked-for"), priority=True)
    q.add(("modest", "waiting"))
    first = [q.get(timeout=0) for _ in range(5)]
    assert ("modest", "asked-for") in first
    assert ("modest", "waiting") in first


def test_a_stream_that_waits_and_is_asked_for_leaves_no_empty_turn_behind() -> None:
    """A worker that took it would end, and there are eight."""
    q = queue([0.0])
    q.add(("a", "1"))
    q.add(("a", "1"), priority=True)
    assert drain(q) == [("a", "1")]
    q.add(("b", "1"))
    assert drain(q) == [("b", "1")]


def test_delays_and_the_earliest_counts() -> None:
    """Of several waits for one key."""
    now = [0.0]
    q = queue(now)
    q.add_after(("a", "1"), 10)
    q.add_after(("a", "1"), 5)
    q.add_after(("a", "1"), 20)
    now[0] = 4.9
    assert drain(q) == []
    now[0] = 5
    assert drain(q) == [("a", "1")]
    now[0] = 30
    assert drain(q) == []


def test_back_off_grows_to_its_maximum_and_is_forgotten() -> None:
    """5 s to 5 min."""
    now = [0.0]
    q = queue(now)
    assert [q.backoff(n) for n in (1, 2, 3, 7, 100)] == [5, 10, 20, 300, 300]
    q.add_rate_limited(("a", "1"))
    now[0] = 5
    assert drain(q)
    q.add_rate_limited(("a", "1"))
    now[0] = 10
    assert not drain(q)
    q.forget(("a", "1"))


def test_a_closed_queue_lets_everybody_go() -> None:
    """Workers that wait are woken."""
    q = WorkQueue()
    got: list[Key | None] = []
    worker = threading.Thread(target=lambda: got.append(q.get()))
    worker.start()
    q.shut_down()
    worker.join(60)
    assert got == [None]
    q.add(("a", "1"))
    assert len(q) == 0


@pytest.mark.parametrize("concurrency", [1, 4, 16])
def test_half_of_the_pool_stays_free_for_other_mirrors(concurrency: int) -> None:
    """A slow mirror never has more than half of the slots, and the fast one is served beside it."""
    pool = ImportQueue(concurrency)
    release, running, done = threading.Event(), [], []  # type: ignore[var-annotated]

    def slow() -> None:
        running.append(1)
        release.wait(600)

    for number in range(20):
        pool.submit(f"ns{number}", "slow", slow)
    half = max(1, concurrency // 2)
    wait_for("the slow mirror is busy", lambda: len(running) == half)
    pool.submit("other", "fast", lambda: done.append(1))
    if concurrency > 1:
        wait_for("the fast one is served", lambda: done)
    assert len(running) == half
    release.set()
    wait_for("all end", lambda: len(pool) == 0)
    assert len(running) == 20
    pool.stop()


def test_a_failing_job_costs_no_slot() -> None:
    """Whatever happens inside."""
    pool = ImportQueue(2)
    done: list[int] = []

    def fails() -> None:
        raise ValueError("on purpose")

    for _ in range(10):
        pool.submit("ns", "host", fails)
    pool.submit("ns", "host", lambda: done.append(1))
    wait_for("it goes on", lambda: done)
    pool.stop()


def lane_of(waiting: dict[str, int]) -> tuple[MirrorQueue, list[str]]:
    """A lane with so many jobs of each namespace, one of each by turns, and the list in which a job that runs leaves its name."""
    lane, ran = MirrorQueue(), list[str]()
    for number in range(max(waiting.values())):
        for namespace, count in waiting.items():
            if number < count:
                lane.add(QueuedImport(namespace, "m", None, lambda namespace=namespace: ran.append(namespace)))  # type: ignore[misc]
    return lane, ran


def test_a_mirror_serves_every_namespace_and_loses_nothing() -> None:
    """Whatever the order, every import runs once."""
    waiting = {"one": 3 * NAMESPACE_BATCH + 1, "two": NAMESPACE_BATCH, "three": 1}
    lane, ran = lane_of(waiting)
    while lane:
        lane.take().job()
    assert {namespace: ran.count(namespace) for namespace in waiting} == waiting


def test_imports_of_a_namespace_stay_together() -> None:
    """What fails together is imported together, so that a stream of ten tags costs one status write, or two, and not ten."""
    namespaces = [f"ns{number}" for number in range(50)]
    lane, ran = lane_of(dict.fromkeys(namespaces, 10))
    while lane:
        lane.take().job()
    changes = sum(before != after for before, after in itertools.pairwise(ran))
    assert changes <= 3 * len(namespaces)


def test_who_has_just_come_waits_for_no_turn_of_others() -> None:
    """A tag that fails in the middle of a storm is imported next, not after all that have waited."""
    lane, ran = lane_of({f"ns{number}": 100 for number in range(200)})
    for _ in range(1000):
        lane.take().job()
    ran.clear()
    lane.add(QueuedImport("modest", "m", None, lambda: ran.append("modest")))
    for _ in range(2):
        lane.take().job()
    assert "modest" in ran


def renewals(lane: MirrorQueue, ran: list[str], count: int) -> None:
    """Let imports wait of as many namespaces' tags that have an image."""
    for number in range(count):
        lane.add(QueuedImport(f"hosted{number}", "m", number, lambda: ran.append("renewed"), renews=True))


def test_a_tag_without_an_image_waits_for_none_that_has_one() -> None:
    """Every hosted cluster's catalogs fail at the same turn of the schedule; pods wait for the application's image only."""
    lane, ran = lane_of({"before": 1})
    renewals(lane, ran, 300)
    lane.add(QueuedImport("team", "m", None, lambda: ran.append("team")))
    for _ in range(2):
        lane.take().job()
    assert ran == ["before", "team"]


def test_a_tag_that_has_an_image_has_its_turn_beside_those_that_have_none() -> None:
    """Some fail for ever, and are tried again and again."""
    lane, ran = lane_of({f"ns{number}": 10 for number in range(50)})
    renewals(lane, ran, 100)
    for _ in range(100 * (MISSING_IN_A_ROW + 1)):
        lane.take().job()
    assert ran.count("renewed") == 100


def test_a_renewal_that_a_user_asks_for_runs_once() -> None:
    """It comes first then, and its place among the others costs nobody a turn."""
    lane, ran = lane_of({"ns": 20})
    asked = QueuedImport("hosted", "m", "asked", lambda: ran.append("asked"), renews=True)
    lane.add(asked)
    renewals(lane, ran, 20)
    lane.raise_priority(asked)
    assert len(lane) == 41
    while lane:
        lane.take().job()
    assert ran[0] == "asked"
    assert {name: ran.count(name) for name in ("asked", "ns", "renewed")} == {"asked": 1, "ns": 20, "renewed": 20}


def test_those_who_come_again_and_again_delay_nobody() -> None:
    """A namespace that waits has its share, however many others come with one import each."""
    lane, ran = lane_of({"patient": 100})
    for number in range(100):
        for each in range(NEWCOMERS_IN_A_ROW):
            lane.add(QueuedImport(f"fresh-{number}-{each}", "m", None, lambda: ran.append("fresh")))
        for _ in range(NEWCOMERS_IN_A_ROW + 1):
            lane.take().job()
    assert ran.count("patient") >= 99


def test_a_long_turn_ends() -> None:
    """A namespace with thousands of failing tags gives way after its turn."""
    lane, ran = lane_of({"greedy": 1000, "modest": 2})
    for _ in range(NAMESPACE_BATCH + 4):
        lane.take().job()
    assert ran.count("modest") == 2


def one_at_a_time(pool: ImportQueue) -> tuple[threading.Event, list[str]]:
    """Keep a pool's only thread busy until the event is set; what runs afterwards says so in the list."""
    go, running = threading.Event(), threading.Event()

    def wait() -> None:
        running.set()
        go.wait(600)

    pool.submit("first", "host", wait)
    running.wait(60)
    return go, []


def test_an_import_that_a_user_asked_for_comes_first() -> None:
    """The newest first; what only waits has a turn after a few of those."""
    pool = ImportQueue(1)
    go, done = one_at_a_time(pool)
    for number in range(1000):
        pool.submit("ns", "host", lambda number=number: done.append(f"waits {number}"))  # type: ignore[misc]
    for number in range(6):
        pool.submit("ns", "host", lambda number=number: done.append(f"asked {number}"), priority=True)  # type: ignore[misc]
    go.set()
    wait_for("all end", lambda: len(pool) == 0)
    assert done[:8] == ["asked 5", "asked 4", "asked 3", "asked 2", "waits 0", "asked 1", "asked 0", "waits 1"]
    assert len(done) == 1006
    pool.stop()


def test_an_import_that_waits_already_can_be_raised() -> None:
    """Again and again, and yet it runs once."""
    pool = ImportQueue(1)
    go, done = one_at_a_time(pool)
    for number in range(10):
        pool.submit("ns", "host", lambda number=number: done.append(str(number)), name=number)  # type: ignore[misc]
    for _ in range(3):
        pool.raise_priority(7)
    pool.raise_priority("nobody")
    assert len(pool) == 11
    go.set()
    wait_for("all end", lambda: len(pool) == 0)
    assert done == ["7", "0", "1", "2", "3", "4", "5", "6", "8", "9"]
    pool.raise_priority(7)
    assert len(pool) == 0
    pool.stop()


def test_what_was_raised_costs_its_namespace_no_turn() -> None:
    """Whichever place it is taken from, it runs once, and the lane knows how many wait."""
    lane, ran = lane_of({"ns": 40, "other": 40})
    raised = [QueuedImport("ns", "m", number, lambda: ran.append("raised")) for number in range(20)]
    for waiting in raised:
        lane.add(waiting)
    for waiting in raised * 2:
        lane.raise_priority(waiting)
    assert len(lane) == 100
    for _ in range(25):
        lane.take().job()
    assert ran.count("raised") == 20
    while lane:
        lane.take().job()
    assert {name: ran.count(name) for name in ("ns", "other", "raised")} == {"ns": 40, "other": 40, "raised": 20}


def test_a_user_who_asks_during_a_fetch_has_priority_at_the_next_mirror() -> None:
    """The import has left the queue, and comes back to it for the next candidate."""
    bed = Bed()
    mirrors = {**IDMS, "spec": {"imageDigestMirrors": [{"source": "src.io", "mirrors": ["m.io/x", "n.io/x"]}]}}
    bed.reconciler.on_policy(MirrorPolicy.from_objects([mirrors]))
    bed.see(KEY, FAILED)
    bed.work()
    fetch = bed.platform.request

    def asked(*arguments: Any, **more: Any) -> Any:
        bed.see(KEY, imagestream_from(stream({"conditions": [failure()]}, annotations={RETRY_ANNOTATION: "1"})))
        bed.work()
        return fetch(*arguments, **more)

    bed.platform.request = asked  # type: ignore[method-assign]
    bed.pool.imports.pop(0)()
    assert bed.pool.priority == [False, True]
