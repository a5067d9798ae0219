"""What the controller keeps goes with what it is about: a process runs for months, while tags, streams and rules come and go."""

import gc
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mirrorstream.imagestream.model import imagestream_from
from mirrorstream.kube.workqueue import WorkQueue
from mirrorstream.rules.policy import MirrorPolicy
from mirrorstream.runtime.settings import SettingsFile
from mirrorstream_controller.import_queue import ImportQueue
from mirrorstream_controller.manager import WORKERS, Manager
from mirrorstream_controller.metrics import ControllerMetrics

from e2e.testbed.simulator.simulator import Simulator
from e2e.testbed.support.waiting import wait_for
from tests.controller.bed import FAILED, KEY, WELL, Bed, held
from tests.controller.builders import POLICY, Object, failure, item, stream


def sizes(bed: Bed) -> dict[str, int]:
    """How much is kept of streams."""
    queue, reconciler = bed.queue, bed.reconciler
    return {
        "streams": len(reconciler._states),
        "failing": len(reconciler.failing._streams),
        "delays": len(queue._delayed),
        "due": len(queue._due),
        "failures": len(queue._failures),
        "waiting": len(queue._dirty),
        "turns": len(queue._turns) + len(queue._priority),
        "processing": len(queue._processing) + len(queue._priority_after),
    }


def test_of_streams_that_are_gone_nothing_is_left() -> None:
    """However they were when they went: failing, held, well, pending, opted out, left out."""
    bed = Bed(controller={"namespaces": {"exclude": ["not"]}})
    bed.platform.digest = "sha256:bb"
    bed.reconciler.on_policy(POLICY)
    before = sizes(bed)
    opted_out = imagestream_from(stream({"conditions": [failure()]}, annotations={"mirrorstream.github.io/import": "disabled"}))
    asked = imagestream_from(stream({"items": [item()]}, annotations={"mirrorstream.github.io/retry": "now"}))
    for number in range(50):
        for kind, found in enumerate((FAILED, held(), WELL, imagestream_from(stream()), opted_out, asked)):
            for namespace in (f"ns{number}", "not"):
                bed.see((namespace, f"app{number}-{kind}"), found)
    bed.work()
    assert sizes(bed)["streams"] > 100
    bed.pool.imports.pop()()
    for key in list(bed.streams.known):
        bed.see(key, None)
    bed.settle()
    after = sizes(bed)
    assert after.pop("delays") <= 4 * 50 + 64, "what counts no more may stay until its time, but never more than that"
    assert after == {name: size for name, size in before.items() if name != "delays"}
    bed.time += 100_000
    bed.work()
    assert sizes(bed) == before


def test_a_replica_that_stands_by_keeps_nothing_of_streams_that_are_gone() -> None:
    """It has no workers: what waits for one waits until it leads, perhaps for months."""
    bed = Bed(controller={"namespaces": {"exclude": ["not"]}})
    bed.reconciler.on_policy(POLICY)
    before = sizes(bed) | {"priority": len(bed.reconciler._priority)}
    asked = imagestream_from(stream({"conditions": [failure()]}, annotations={"mirrorstream.github.io/retry": "now"}))
    for number in range(200):
        for namespace in (f"ns{number % 7}", "not"):
            key = (namespace, f"app{number}")
            for found in (FAILED, asked, held(), None):
                bed.see(key, found)
    assert sizes(bed) | {"priority": len(bed.reconciler._priority)} == before
    bed.see(KEY, FAILED)
    bed.see(KEY, None)
    bed.see(KEY, FAILED)
    assert bed.work() == [KEY], "the new leader reconciles a stream that was created again"


def build(number: int, *, failed: bool) -> Any:
    """A stream with a tag that always fails, and one that is there for one build only."""
    document = stream({"conditions": [failure()]})
    name = f"build-{number}"
    tag = {**document["spec"]["tags"][0], "name": name}
    document["spec"]["tags"].append(tag)
    status: Object = {"conditions": [failure(message=f"port {number}")]} if failed else {"items": [item()]}
    document["status"]["tags"].append({"tag": name, **status})
    return imagestream_from(document)


def test_of_tags_that_are_gone_nothing_is_left() -> None:
    """A stream may have a tag for each build for years, and one that fails all the while."""
    bed = Bed()
    bed.reconciler.on_policy(POLICY)
    kept = []
    for number in range(200):
        bed.see(KEY, build(number, failed=True))
        bed.settle()
        bed.see(KEY, build(number, failed=False))
        bed.settle()
        kept.append(len(bed.reconciler._states[KEY]._tags))
    assert max(kept) == kept[1], kept
    assert len(bed.queue._delayed) <= 64 + 2


def test_delays_that_another_replaced_do_not_pile_up() -> None:
    """A tag that is held for a week, in a stream with one that is tried every few seconds."""
    now = [0.0]
    queue = WorkQueue(clock=lambda: now[0])
    longest = 0
    for _ in range(5000):
        queue.add_after(KEY, 604_800 - now[0])
        queue.add_after(KEY, 5)
        now[0] += 5
        assert queue.get(timeout=0) == KEY
        queue.done(KEY)
        longest = max(longest, len(queue._delayed))
    assert longest <= 68
    queue.add_after(KEY, 604_800 - now[0])
    assert queue.get(timeout=0) is None
    now[0] = 604_800
    assert queue.get(timeout=0) == KEY, "the one that counts is kept"


def test_what_nobody_wants_any_more_is_not_imported() -> None:
    """Each edit of a tag makes another import; a mirror that takes a minute would be asked for all of them, one after the other."""
    bed = Bed()
    bed.reconciler.on_policy(POLICY)
    for generation in range(2, 102):
        bed.see(
            KEY, imagestream_from(stream({"conditions": [failure(generation, f"port {generation}")]}, {"generation": generation}))
        )
        bed.work()
    assert len(bed.pool.imports) == 100
    bed.pool.run()
    assert len(bed.platform.asked) == 1
    bed.time += 1000
    bed.work()
    bed.see(KEY, None)
    bed.work()
    bed.pool.run()
    assert len(bed.platform.asked) == 1, "nor for a stream that is gone"


def test_mirrors_that_no_rule_names_any_more_have_no_series() -> None:
    """Rules come and go; a label for each mirror that there ever was would never go."""
    bed = Bed()
    seen: ControllerMetrics = bed.reconciler._metrics
    series = []
    for number in range(100):
        rule = {"source": "src.io", "mirrors": [f"m{number}.io/x"]}
        objects = [{"kind": "ImageDigestMirrorSet", "metadata": {"name": "m"}, "spec": {"imageDigestMirrors": [rule]}}]
        bed.reconciler.on_policy(MirrorPolicy.from_objects(objects))
        bed.see(KEY, FAILED)
        bed.time += 1000
        assert bed.settle() == 1
        series.append([sample.labels["mirror"] for metric in seen.answers.collect() for sample in metric.samples])
    assert series == [[f"m{number}.io"] for number in range(100)]


class Rules:
    """What a job is about."""


def test_a_thread_that_waits_holds_nothing_of_its_last_job() -> None:
    """Sixteen threads would hold sixteen sets of mirror rules that are no longer in force, of megabytes each."""
    pool, rules, done = ImportQueue(1), Rules(), threading.Event()
    gone = weakref.ref(rules)
    pool.submit("ns", "m.io", lambda rules=rules: done.set())  # type: ignore[misc]
    del rules
    assert done.wait(60)
    wait_for("it is let go", lambda: gone() is None)
    assert len(pool._threads) == 1
    pool.stop()


# Threads.


@pytest.fixture
def unstarted(tmp_path: Path) -> Iterator[Manager]:
    """A controller for a simulated cluster, in this process, without election."""
    with Simulator() as simulator:
        kubeconfig = simulator.write_kubeconfig(tmp_path / "kubeconfig")
        yield Manager(SettingsFile(None), kubeconfig=str(kubeconfig), metrics_port=0, leader_election=False)


@pytest.fixture
def manager(unstarted: Manager) -> Iterator[Manager]:
    """A controller that leads, in this process."""
    unstarted.start()
    yield unstarted
    unstarted.stop()
    gc.collect()


@pytest.mark.parametrize("where", ["get", "done"])
def test_a_worker_that_fails_ends_the_process_with_an_error(manager: Manager, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """One worker less, eight times, and nothing heals any more while everything looks well."""

    def fail(*_: Any) -> Any:
        raise MemoryError("no")

    assert len(manager._workers) == WORKERS
    monkeypatch.setattr(manager._queue, where, fail)
    manager._queue.add(("ns", "app"))
    if where == "get":
        manager._queue.add(("ns", "b"))
    wait_for("the end is asked for", manager._ended.is_set)
    assert manager._exit_status == 1


def test_the_end_may_come_while_workers_start(unstarted: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM right after the lease was acquired: everything ends, without an error."""
    start = threading.Thread.start

    def start_after_the_end(thread: threading.Thread) -> None:
        if thread.name == "worker-1":
            unstarted.stop()
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_after_the_end)
    unstarted.start()
    wait_for("all workers have ended", lambda: not any(worker.is_alive() for worker in unstarted._workers))
    assert len(unstarted._workers) == WORKERS


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_is_lost_leaves_its_slot_to_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ended it: a mirror's slot is not lost with it."""
    pool, done = ImportQueue(1), []

    def end() -> None:
        raise SystemExit

    pool.submit("ns", "m.io", end)
    wait_for("it has ended", lambda: not pool._threads)
    pool.submit("ns", "m.io", lambda: done.append(1))
    wait_for("another ran", lambda: bool(done))
    pool.stop()
