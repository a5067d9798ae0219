"""The loop that mends pods that hang: one replica, at a bounded rate, each pod told of once, whatever the API server answers."""

import itertools
import json
import threading
import tracemalloc

import pytest
from mirrorstream.kube.client import ApiError, ApiUnreachable, ClientError
from mirrorstream.kube.informer import Change
from mirrorstream_webhook.pending_pods.hangs import read_pending
from mirrorstream_webhook.pending_pods.repair import AGAIN_SECONDS

from e2e.testbed.support.waiting import wait_for
from tests.webhook.builders import AT_SOURCE, HEALED, OURS, SOURCE, Bed, hanging, imported, stream, tag
from tests.webhook.pending_loop import KEY, Loop, images


def test_a_pod_that_hangs_is_mended_and_told() -> None:
    """One patch, one Event, one count; and no second one until the watch has shown the first."""
    loop = Loop()
    loop.see(hanging(f"{SOURCE}:v1"))
    loop.evaluate()
    ((path, operations),) = loop.api.patches
    assert path == "/api/v1/namespaces/team/pods/pod"
    assert images(operations) == [OURS]
    ((_, reason, message),) = loop.recorder.events
    assert reason == "PendingPodRepaired"
    assert OURS in message
    loop.evaluate()
    assert len(loop.api.patches) == 1
    assert loop.counted() == {"repaired": 1}


def test_a_tag_that_heals_is_noticed() -> None:
    """By the version of the decider, without an event of the pod's own."""
    loop = Loop(Bed())
    loop.see(hanging(f"{SOURCE}:v1"))
    assert loop.loop._queue.take(loop.now) == KEY
    loop.evaluate()
    assert not loop.api.patches
    loop.bed.index.apply(None, HEALED)
    loop.now += 1
    loop.loop.tick()
    assert loop.loop._queue.take(loop.now) == KEY
    loop.evaluate()
    assert images(loop.api.patches[0][1]) == [OURS]


def test_a_pod_that_was_admitted_without_an_answer_is_mended_once_there_is_one() -> None:
    """The API server was slow to say whether its account may pull; until it answers, nothing is done."""
    loop = Loop(Bed(stream("app", tag("v1", f"{SOURCE}:v1", imported(1)))))
    loop.bed.unknown = True
    assert loop.bed.image(f"{SOURCE}:v1")[::2] == ("access-unknown", "")
    loop.see(hanging(f"{SOURCE}:v1"))
    assert loop.evaluate() <= AGAIN_SECONDS
    assert not loop.api.patches
    loop.bed.unknown = False
    loop.evaluate()
    assert len(images(loop.api.patches[0][1])) == 1


def test_nobody_but_the_leader_acts() -> None:
    """Neither before the lease is there, nor when it is lost in the middle of a repair, nor after this thread stood still."""
    loop = Loop(lead=False)
    loop.see(hanging(f"{SOURCE}:v1"))
    loop.evaluate()
    assert not loop.api.patches
    loop.loop.election.attempt()
    loop.loop.tick()
    loop.now += 11.5  # a machine that was suspended: nobody has noticed yet
    loop.evaluate()
    assert not loop.api.patches
    assert not loop.loop.election.leading
    loop.loop.election.attempt()
    loop.loop.tick()
    loop.evaluate()
    assert len(loop.api.patches) == 1


def test_the_next_way_is_taken_once_and_then_later() -> None:
    """Back and forth ever more slowly, while everything is down."""
    loop = Loop()
    present = OURS
    taken = []
    for _ in range(4):
        loop.see(hanging(present, originals={"c0": f"{SOURCE}:v1"}, reason="ErrImagePull"))
        began = loop.now
        while len(loop.api.patches) == len(taken):
            loop.now += 0.5
            loop.loop.election.attempt()
            loop.evaluate()
        present = images(loop.api.patches[-1][1])[0]
        taken.append((present, loop.now - began))
        # The new one fails as well.
        loop.see(hanging(present, originals={"c0": f"{SOURCE}:v1"}))
    assert [image for image, _ in taken] == [AT_SOURCE, OURS, AT_SOURCE, OURS]
    assert [seconds for _, seconds in taken][:2] == [3.0, 6.0]
    assert taken[3][1] >= 24


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (ApiError(409, "Conflict", "the object has been modified"), "conflict"),
        (ApiError(422, "Invalid", "the server rejected our request due to an error in our request"), "conflict"),
        (ApiError(500, "InternalError", "etcdserver: leader changed"), "failed"),
        (ApiError(429, "TooManyRequests", "", retry_after=7.0), "failed"),
        (ApiUnreachable("no answer"), "failed"),
    ],
    ids=["409", "422", "500", "429", "no answer"],
)
def test_what_fails_is_tried_again_later_each_time(error: ClientError, result: str) -> None:
    """Nothing is lost, and nothing loops, whatever events come of the pod between."""
    loop = Loop()
    attempts: list[float] = []

    def fail(path: str) -> None:
        attempts.append(loop.now)
        raise error

    loop.api.on_patch = fail
    loop.see(hanging(f"{SOURCE}:v1"))
    for _ in range(600):
        loop.evaluate()
        loop.see(hanging(f"{SOURCE}:v1"))
        loop.now += 0.5
        loop.loop.election.attempt()
    gaps = [later - earlier for earlier, later in itertools.pairwise(attempts)]
    assert gaps == sorted(gaps)
    assert gaps[0] >= max(0.5, getattr(error, "retry_after", None) or 0)
    assert 60.0 in gaps
    assert len(attempts) < 50
    assert not loop.recorder.events
    assert set(loop.counted()) == {result}
    loop.api.on_patch = lambda path: None
    loop.now += 60
    loop.loop.election.attempt()
    loop.evaluate()
    assert len(loop.api.patches) == 1


def test_a_conflict_is_answered_with_the_pod_as_it_is_then() -> None:
    """What changed came by the watch."""
    loop = Loop()
    loop.see(hanging("elsewhere.example.com/app:v1", f"{SOURCE}:v1"))

    def conflict(path: str) -> None:
        raise ApiError(409, "Conflict", "")

    loop.api.on_patch = conflict
    loop.evaluate()
    loop.api.on_patch = lambda path: None
    loop.see(hanging(f"{SOURCE}:v1", f"{SOURCE}:v1"))
    loop.evaluate()
    assert images(loop.api.patches[0][1]) == [OURS, OURS]


@pytest.mark.parametrize("away", ["before", "while"])
def test_a_pod_that_was_deleted_is_forgotten(away: str) -> None:
    """Before it is patched, and while it is."""
    loop = Loop()
    loop.see(hanging(f"{SOURCE}:v1"))

    def gone(path: str) -> None:
        loop.see(None)
        raise ApiError(404, "NotFound", 'pods "pod" not found')

    if away == "before":
        loop.see(None)
    loop.api.on_patch = gone
    loop.evaluate()
    assert not loop.api.patches
    assert not loop.recorder.events
    assert not loop.loop._states


@pytest.mark.parametrize(
    "left",
    ["namespace", "namespace unknown", "pod", "system", "owner"],
)
def test_what_opted_out_is_left_alone(left: str) -> None:
    """Repairs pass by the webhook's namespaceSelector, so the labels are looked at here."""
    loop = Loop(Bed(HEALED, excludeOwners=["Cluster.postgresql.cnpg.io"]))
    document = hanging(f"{SOURCE}:v1")
    name = "team"
    if left == "namespace":
        loop.api.labels = {"mirrorstream.github.io/rewrite": "disabled"}
    elif left == "namespace unknown":
        loop.api.problems = {"/namespaces/team": ApiUnreachable("no answer")}
    elif left == "pod":
        document["metadata"]["labels"] = {"mirrorstream.github.io/rewrite": "disabled"}
    elif left == "owner":
        document["metadata"]["ownerReferences"] = [{"apiVersion": "postgresql.cnpg.io/v1", "kind": "Cluster"}]
    else:
        name = "openshift-ingress"
    found = read_pending(json.dumps(document).encode())
    loop.loop.pods._objects[(name, "pod")] = ("1", found)
    loop.loop.on_pod(Change((name, "pod"), None, found))
    assert loop.loop.evaluate((name, "pod")) >= 5
    assert not loop.api.patches
    assert not loop.recorder.events


def test_a_namespace_is_not_asked_for_each_pod() -> None:
    """And a label that comes or goes is noticed soon."""
    loop = Loop()
    for number in range(20):
        loop.see(hanging(f"{SOURCE}:v1"), f"pod-{number}")
        loop.evaluate(f"pod-{number}")
    assert loop.api.asked.count("/api/v1/namespaces/team") == 1
    loop.api.labels = {"mirrorstream.github.io/rewrite": "disabled"}
    loop.now += 10
    loop.see(hanging(f"{SOURCE}:v1"))
    loop.evaluate()
    assert len(loop.api.patches) == 20


def test_an_image_volume_is_told_once() -> None:
    """It cannot be changed; the pod has to be made again."""
    loop = Loop()
    document = hanging("elsewhere.example.com/x:1", volumes=[{"name": "data", "image": {"reference": f"{SOURCE}:v1"}}])
    for _ in range(3):
        loop.see(document)
        loop.evaluate()
    ((_, reason, text),) = loop.recorder.events
    assert (reason, "volume/data" in text) == ("PendingPodNotRepaired", True)


def test_two_hundred_containers_make_one_short_event() -> None:
    """And one patch."""
    loop = Loop()
    loop.see(hanging(*[f"{SOURCE}:v1"] * 200))
    loop.evaluate()
    assert len(images(loop.api.patches[0][1])) == 200
    assert len(loop.recorder.events[0][2]) < 1024


def test_the_time_of_day_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that is set back an hour keeps nothing from being mended, and hurries nothing."""
    loop = Loop()
    monkeypatch.setattr("time.time", lambda: -3600.0)
    loop.see(hanging(OURS, originals={"c0": f"{SOURCE}:v1"}, reason="ErrImagePull"))
    loop.evaluate()
    assert not loop.api.patches
    loop.now += 3
    loop.evaluate()
    assert images(loop.api.patches[0][1]) == [AT_SOURCE]


def test_the_gauges_are_the_leaders() -> None:
    """How many pods hang only the leader tells."""
    loop = Loop()
    loop.see(hanging(f"{SOURCE}:v1"))
    found = {name: values[()] for name, _, _, values in loop.loop.gauges()}
    assert found == {"mirrorstream_webhook_hanging_pods": 1.0, "mirrorstream_webhook_pending_pods_repairing": 1.0}
    waiting = Loop(lead=False)
    assert {name: values[()] for name, _, _, values in waiting.loop.gauges()} == {
        "mirrorstream_webhook_pending_pods_repairing": 0.0
    }


def test_a_thousand_pods_are_mended_at_the_rate_and_in_little_memory() -> None:
    """A storm would take down nodes and the API server; and with everything else the webhook has they must fit."""
    document = hanging(f"{SOURCE}:v1", originals={"c0": "x" * 1000, "gone": "y" * 200_000})
    raw = json.dumps(document).encode()
    tracemalloc.start()
    loop = Loop(rate=500.0)
    before = tracemalloc.get_traced_memory()[0]
    for number in range(1000):
        found = read_pending(raw)
        key = (f"team-{number % 7}", f"pod-{number}")
        loop.loop.pods._objects[key] = (found.version, found)
        loop.loop.on_pod(Change(key, None, found))
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 8e6
    times: list[float] = []
    loop.api.on_patch = lambda path: times.append(loop.now)
    loop.loop._stopped.wait = loop.pass_time  # type: ignore[assignment]
    loop.loop._evaluate_all()
    worker = threading.Thread(target=loop.loop._work, daemon=True)
    worker.start()
    wait_for("all are mended", lambda: len(loop.api.patches) == 1000)
    loop.loop._stopped.set()
    worker.join(60)
    assert len({path for path, _ in loop.api.patches}) == 1000
    # A second's worth may come at once.
    assert max(times) - min(times) == pytest.approx(499 / 500)
