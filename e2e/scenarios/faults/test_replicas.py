"""Several replicas: one acts, another takes over in time, and what a leader of before still does changes nothing."""

import signal
import time
from contextlib import ExitStack

import pytest
from mirrorstream.kube.leaderelection import LEASE_SECONDS, RENEW_SECONDS, RETRY_SECONDS

from e2e.scenarios.faults.conftest import Saw
from e2e.testbed.cluster import Namespace
from e2e.testbed.faults.actions import Hold, hang, refuse
from e2e.testbed.faults.reliability import SOAK, chance, often
from e2e.testbed.faults.team import Replica, Team
from e2e.testbed.interceptor import Action, Exchange
from e2e.testbed.support.waiting import wait_for

pytestmark = pytest.mark.timeout(often(1800, 180))

MOMENT_SECONDS = RENEW_SECONDS - 3 * RETRY_SECONDS
"""For how long a leader must be able to do without its lease, whenever that begins and ends between two attempts."""
STOPPED_SECONDS = 3.0
"""How soon another leads after SIGTERM."""


NUMBERS = (2, 3)


def _replicas(*bounded: int) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("number", NUMBERS if SOAK else bounded, ids=lambda number: f"{number} replicas")


@pytest.mark.fault(
    "Replicas",
    "The leader is killed with SIGKILL, at a random moment between two renewals of its lease",
    f"Another leads within the lease's {LEASE_SECONDS:.0f} s, only one, and everything heals",
)
@_replicas(2)
def test_the_leader_is_killed(team: Team, saw: Saw, number: int) -> None:
    """A node that dies costs a quarter of a minute."""
    luck, took = chance(), []
    team.add(number)
    for turn in range(often(10, 1)):
        team.create(f"before-{turn}")
        leader = team.wait_leader()
        time.sleep(luck.uniform(0, RETRY_SECONDS))  # a moment by chance is what is tested
        leader.program.process.kill()
        killed = time.monotonic()
        team.without(leader)
        team.create(f"after-{turn}")
        team.wait_leader()
        took.append(time.monotonic() - killed)
        assert took[-1] < LEASE_SECONDS
        team.add()
    team.check()
    saw["handover"] = _range(took)


@pytest.mark.fault(
    "Replicas",
    "The leader gets SIGTERM, with imports under way",
    f"Another leads within {STOPPED_SECONDS:.0f} s, and everything heals; the old leader ends with 0",
)
@_replicas(2)
def test_the_leader_is_stopped(team: Team, saw: Saw, number: int) -> None:
    """An update of the Deployment costs a moment."""
    took = []
    team.add(number)
    for turn in range(often(10, 2)):
        leader = team.wait_leader()
        imports = Hold()
        with leader.between.when("create", "/imagestreamimports$", imports):
            team.create(f"stream-{turn}")
            assert imports.arrived.wait(10)
            leader.program.process.send(signal.SIGTERM)
            stopped = time.monotonic()
            team.without(leader)
            team.wait_leader()
            took.append(time.monotonic() - stopped)
            assert leader.program.process.wait(10) == 0
        assert took[-1] < STOPPED_SECONDS
        team.add()
    team.check()
    saw["handover"] = _range(took)


@pytest.mark.fault(
    "Replicas",
    "The leader is frozen (SIGSTOP) amid its work at a random moment, and continued after longer than the lease",
    "Another takes over; in the order of the API server's log no status and no Image is written by anyone but the lease's holder;"
    " the old leader ends itself; every tag has one entry in its history",
)
@_replicas(3)
def test_the_leader_is_frozen_and_continued(team: Team, saw: Saw, number: int) -> None:
    """A machine that stands still for a while, a virtual one above all, does no harm when it goes on."""
    luck, ended = chance(), []
    team.add(number)
    for turn in range(often(8, 1)):
        leader = team.wait_leader()
        team.create(*(f"before-{turn}-{n}" for n in range(6)))
        time.sleep(luck.uniform(0, 0.3))  # a moment by chance is what is tested
        with leader.frozen():
            frozen = time.monotonic()
            team.without(leader)
            team.create(*(f"after-{turn}-{n}" for n in range(3)))
            team.wait_leader()
            time.sleep(max(0.0, frozen + LEASE_SECONDS + 1 - time.monotonic()))  # longer than the lease is what is tested
            team.create(f"late-{turn}")
        continued = time.monotonic()
        leader.wait_lost()
        ended.append(time.monotonic() - continued)
        team.add()
    effective = team.check()
    saw["old leader ended after"] = _range(ended)
    saw["writes, each by the lease's holder"] = str(effective.total())


@pytest.mark.fault(
    "Replicas",
    "The leader is frozen with status PUTs on their way, and others about to follow; they arrive after another took over",
    "What the new leader has written stands: the old PUT is refused by its resourceVersion. Where it has not, the old PUT"
    " says what the new leader's would have said, and nothing is there twice. After it is continued the old leader sends no other",
)
def test_a_status_put_arrives_after_the_takeover(ns: Namespace, team: Team, saw: Saw) -> None:
    """No lease can call back what a network still carries; the resourceVersion guards the streams."""
    old, new = team.add(2)
    stale, harmless, late, imports = Hold(), Hold(), Hold(), Hold()

    def only_stale(exchange: Exchange) -> None:
        (exchange.pass_on if exchange.json()["metadata"]["name"] == "stale" else lambda: imports(exchange))()

    with ExitStack() as rules:
        for verb, path, hold in (("update", "stale/status", stale), ("update", "harmless/status", harmless), ("get", "late", late)):
            rules.enter_context(old.between.when(verb, f"/imagestreams/{path}$", hold))
        rules.enter_context(new.between.when("create", "/imagestreamimports$", only_stale))
        team.create("stale", "harmless", "late")
        for hold in (stale, harmless, late):
            assert hold.arrived.wait(10)
        with old.frozen():
            team.without(old)
            assert team.wait_leader() is new
            ns.wait_healed("stale", "v1")
            for hold in (stale, harmless, late):
                hold.let_go.set()
            wait_for("the old leader's requests are answered", lambda: len(_statuses(old, "/imagestreams/", "update")) == 2)
            assert wait_for("and its GET", lambda: _statuses(old, "/imagestreams/late$", "get")) == [200]
        old.wait_lost()
        assert _statuses(old, "/imagestreams/stale/status$", "update") == [409]
        assert _statuses(old, "/imagestreams/harmless/status$", "update") == [200]
        assert old.between.count("update", "/imagestreams/late/status$") == 0
        assert imports.arrived.is_set(), "the new leader was about to do the same"
        imports.let_go.set()
        team.check("harmless")
    saw["what was on its way"] = "1 refused (409), 1 harmless, 1 not sent any more"


def _statuses(replica: Replica, path: str, verb: str) -> list[int]:
    return [seen.status for seen in replica.between.requests if seen.verb == verb and path.rstrip("$") in seen.path]


CONFLICT = refuse(409, "Conflict")
LEASE_FAULTS: dict[str, tuple[str, Action]] = {
    "hangs": ("*", hang),
    "answers 500": ("*", refuse(500, "InternalError")),
    "conflicts": ("update", CONFLICT),
}


@pytest.mark.fault(
    "Replicas",
    "The lease API hangs, answers 500 or conflicts for the leader alone, for longer than the lease",
    f"The leader ends itself {RENEW_SECONDS:.0f} s after its last renewal, before another leads; everything heals; the lease is not"
    " asked for in a tight loop",
)
@pytest.mark.parametrize("fault", LEASE_FAULTS)
def test_a_leader_that_cannot_renew(team: Team, saw: Saw, fault: str) -> None:
    """Between one leader that gives up and the next there is a gap, never an overlap."""
    old, new = team.add(2)
    team.create("before")
    verb, action = LEASE_FAULTS[fault]
    with old.between.when(verb, "/leases", action):
        began = time.monotonic()
        old.wait_lost()
        ended = time.monotonic()
        team.without(old)
        assert not new.leads, "the old leader has just ended"
        team.create("after")
        assert team.wait_leader() is new
    took = next(s.at for s in new.between.requests if s.verb == "update" and "/leases/" in s.path and s.status == 200)
    assert ended < took
    asked = old.between.count("*", "/leases", since=began)
    # One GET and at most one PUT for each attempt, and one of before.
    assert asked <= 2 * (RENEW_SECONDS / (0.9 * RETRY_SECONDS) + 2), f"{asked} requests in {ended - began:.1f} s"
    team.check()
    saw["between two leaders"] = f"{took - ended:.1f} s"


@pytest.mark.fault(
    "Replicas",
    f"The lease API hangs, answers 500 or conflicts for the leader, for {MOMENT_SECONDS:.0f} s",
    "The leader goes on leading and healing; nobody takes over",
)
def test_a_leader_that_cannot_renew_for_a_moment(team: Team, saw: Saw) -> None:
    """A moment is nothing."""
    leader, other = team.add(2)
    for fault, (verb, action) in LEASE_FAULTS.items():
        with leader.between.when(verb, "/leases", action) as rule:
            time.sleep(MOMENT_SECONDS)  # how long it lasts is what is tested
            assert rule.hits
            team.create(f"stream-{list(LEASE_FAULTS).index(fault)}")
        renewed = time.monotonic()
        wait_for(
            "it is renewed",
            lambda renewed=renewed: (
                leader.leads
                and any(  # type: ignore[misc]
                    s.at > renewed and s.verb == "update" and "/leases/" in s.path and s.status == 200
                    for s in leader.between.requests
                )
            ),
        )
        assert leader.leads
        assert not other.leads
    assert set(team.check()) == {leader.mark}
    saw["takeovers"] = "0"


def _range(seconds: list[float]) -> str:
    low, high = f"{min(seconds):.1f}", f"{max(seconds):.1f}"
    return f"{low} s" if low == high else f"{low} to {high} s, {len(seconds)} times"
