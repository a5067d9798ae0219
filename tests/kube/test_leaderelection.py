"""Leader election: one acts, and stops acting in time, whatever the API server and the clocks do."""

import threading
import time
from typing import Any

import pytest
from mirrorstream.kube.client import ApiError, ApiUnreachable
from mirrorstream.kube.leaderelection import LEASE_SECONDS, RENEW_SECONDS, RETRY_SECONDS, NotLeadingError

from tests.kube.leases import Leases, Replica, Slow

Object = dict[str, Any]


@pytest.fixture
def clock() -> list[float]:
    """A clock that stands still."""
    return [1000.0]


def test_the_first_leads_and_the_second_waits(clock: list[float]) -> None:
    """And a leader that renews is never taken over from."""
    leases = Leases()
    one, two = Replica(leases, "one", clock), Replica(leases, "two", clock)
    for _ in range(30):
        one.election.attempt()
        two.election.attempt()
        clock[0] += 2
    assert (one.leads, two.leads, one.started) == (True, False, 1)


def test_a_silent_leader_is_taken_over_after_the_lease_as_we_saw_it(clock: list[float]) -> None:
    """Never by the times in the record, and not before the leader must have given up."""
    leases = Leases()
    one, two = Replica(leases, "one", clock), Replica(leases, "two", clock)
    one.election.attempt()
    assert leases.lease is not None
    leases.lease["spec"]["renewTime"] = "1970-01-01T00:00:00.000000Z"
    two.election.attempt()
    clock[0] += 11.9
    two.election.attempt()
    assert not two.leads
    clock[0] += 0.2
    two.election.attempt()
    assert two.leads
    assert leases.lease["spec"]["leaseTransitions"] == 1
    one.election.attempt()
    assert one.lost
    assert not one.leads


@pytest.mark.parametrize("problem", [ApiUnreachable("hangs"), ApiError(500, "InternalError", "")], ids=["unreachable", "500"])
def test_a_leader_that_cannot_renew_stops_in_time(clock: list[float], problem: Exception) -> None:
    """Eleven seconds after its last success, before anybody else may start."""
    leases = Leases()
    one = Replica(leases, "one", clock)
    one.election.attempt()
    leases.problem = problem
    clock[0] += 11
    one.election.attempt()
    one.election.check_deadline()
    assert one.leads
    clock[0] += 0.1
    one.election.check_deadline()
    assert not one.leads
    assert one.lost == ["the lease could not be renewed for 11 s"]


def test_a_renewal_that_hangs_does_not_delay_the_end(clock: list[float]) -> None:
    """The deadline is another thread's; and it counts from before the last request."""
    leases = Leases()
    one = Replica(leases, "one", clock)
    one.election.attempt()
    clock[0] += 11.5
    one.election.check_deadline()
    assert one.lost


def test_a_frozen_leader_does_not_take_itself_for_one(clock: list[float]) -> None:
    """Stopped for longer than the lease, it finds another holder and ends."""
    leases = Leases()
    one, two = Replica(leases, "one", clock), Replica(leases, "two", clock)
    one.election.attempt()
    two.election.attempt()
    clock[0] += 20
    two.election.attempt()
    assert two.leads
    one.election.check_deadline()
    assert not one.leads


def test_a_suspended_machine_gives_its_lead_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default the clock of leader and standby counts that time, too."""
    slept = 0.0
    awake = time.clock_gettime

    def with_sleep(clock: int) -> float:
        return awake(clock) + (slept if clock == time.CLOCK_BOOTTIME else 0)

    monkeypatch.setattr(time, "clock_gettime", with_sleep)
    leases = Leases()
    one, two = Replica(leases, "one"), Replica(leases, "two")
    one.election.attempt()
    two.election.attempt()
    assert one.election.check_lead() > 5
    slept = 3600
    with pytest.raises(NotLeadingError):
        one.election.check_lead()
    assert one.lost == ["the lease could not be renewed for 11 s"]
    two.election.attempt()
    assert two.leads


def test_a_write_is_sent_before_another_may_lead(clock: list[float]) -> None:
    """It may need a new connection first: that takes no longer than the lead lasts for sure."""
    leases = Leases()
    one, two = Replica(leases, "one", clock), Replica(leases, "two", clock)
    one.election.attempt()
    two.election.attempt()
    for passed in (0.0, 5.0, 5.9):
        clock[0] += passed
        sent = one.election.check_lead()
        assert sent > 1
        clock[0] += sent - 0.01
        two.election.attempt()
        assert not two.leads
        clock[0] -= sent - 0.01


def test_nothing_is_written_while_the_end_of_a_lost_lead_is_under_way(clock: list[float]) -> None:
    """One thread finds that the lead is lost and is about to end the process; another one was about to write."""
    replica = Replica(Leases(), "one", clock)
    replica.election.attempt()
    replica.election.check_lead()
    written: list[str] = []

    def write_meanwhile(reason: str) -> None:
        with pytest.raises(NotLeadingError):
            replica.election.check_lead()
        written.append(reason)

    replica.election._on_stopped_leading = write_meanwhile
    clock[0] += 60
    replica.election.check_deadline()
    assert len(written) == 1


def test_conflicts_are_tried_again(clock: list[float]) -> None:
    """A leader keeps leading through one, a candidate does not begin."""
    leases = Leases()
    one = Replica(leases, "one", clock)
    leases.conflicts = 1
    one.election.attempt()
    assert not one.leads
    one.election.attempt()
    assert one.leads
    leases.conflicts = 1
    clock[0] += 2
    one.election.attempt()
    assert one.leads


def test_a_released_lease_is_taken_at_once(clock: list[float]) -> None:
    """SIGTERM hands over without waiting for the lease to expire."""
    leases = Leases()
    one, two = Replica(leases, "one", clock), Replica(leases, "two", clock)
    one.election.attempt()
    two.election.attempt()
    one.election.stop()
    assert leases.lease is not None
    assert leases.lease["spec"]["holderIdentity"] == ""
    two.election.attempt()
    assert two.leads
    assert not one.lost, "it left by itself"


def test_who_is_stopped_while_acquiring_gives_the_lease_up_and_never_leads(clock: list[float]) -> None:
    """SIGTERM in the first moments of a start: nobody must wait for a lease that nobody uses."""
    leases = Leases()
    one, asked = Replica(leases, "one", clock), threading.Event()

    def request(method: str, path: str, **options: Any) -> Object:
        if method == "POST":
            asked.set()
            assert one.election._stopped.wait(60)
        return leases.request(method, path, **options)

    one.election._client = Slow(request)  # type: ignore[assignment]
    one.election.start()
    assert asked.wait(60)
    one.election.stop()
    assert not one.started
    assert not one.lost
    assert leases.lease is not None
    assert leases.lease["spec"]["holderIdentity"] == ""


@pytest.mark.parametrize("seen_after", [0.0, 1.1, 2.2], ids=str)
def test_who_waits_looks_when_the_lease_runs_out(clock: list[float], seen_after: float) -> None:
    """So a leader that dies is replaced within the lease, however late its last renewal was seen, and never before it gave up."""
    leases = Leases()
    one, two = Replica(leases, "one", clock), Replica(leases, "two", clock)
    one.election.attempt()
    died = clock[0]
    clock[0] += seen_after
    while not two.leads:
        two.election.attempt()
        pause = two.election.pause()
        assert 0 < pause <= RETRY_SECONDS * 1.1
        clock[0] += pause if not two.leads else 0
    assert RENEW_SECONDS < clock[0] - died < LEASE_SECONDS


def test_who_waits_does_not_ask_in_a_tight_loop_once_the_lease_has_run_out(clock: list[float]) -> None:
    """The API server may be away just then."""
    leases = Leases()
    one, two = Replica(leases, "one", clock), Replica(leases, "two", clock)
    one.election.attempt()
    two.election.attempt()
    clock[0] += LEASE_SECONDS
    leases.problem = ApiUnreachable("away")
    two.election.attempt()
    assert two.election.pause() >= RETRY_SECONDS * 0.9


def test_a_leader_whose_renewals_conflict_for_ever_gives_up(clock: list[float]) -> None:
    """Nothing of them is stored, so others see no change, and take over."""
    leases = Leases()
    one, two = Replica(leases, "one", clock), Replica(leases, "two", clock)
    one.election.attempt()
    two.election.attempt()
    for _ in range(6):
        leases.conflicts = 2
        clock[0] += 2
        one.election.attempt()
        one.election.check_deadline()
    assert one.lost == ["the lease could not be renewed for 11 s"]
    leases.conflicts = 0
    clock[0] += 0.1
    two.election.attempt()
    assert two.leads


@pytest.mark.parametrize(("took", "shortest", "longest"), [(0, 1.8, 2.2), (1, 0.8, 1.2), (2, 0.2, 0.2), (4, 0.2, 0.2)], ids=str)
def test_an_attempt_that_hung_is_followed_by_the_next(clock: list[float], took: float, shortest: float, longest: float) -> None:
    """A leader has ten seconds: the API's short standstill should not cost it every other attempt."""
    leases = Leases()
    one = Replica(leases, "one", clock)
    one.election.attempt()
    clock[0] += took
    assert shortest <= round(one.election.pause(), 6) <= longest


def test_renewing_takes_one_request(clock: list[float]) -> None:
    """And a lease that somebody deleted is made again."""
    leases = Leases()
    one = Replica(leases, "one", clock)
    one.election.attempt()
    assert leases.requests == ["GET", "POST"]
    for _ in range(3):
        clock[0] += 2
        one.election.attempt()
    assert leases.requests[2:] == ["PUT"] * 3
    leases.lease = None
    one.election.attempt()
    assert leases.requests[5:] == ["PUT", "GET", "POST"]
    assert one.leads


def test_an_api_server_that_takes_five_seconds_costs_nobody_the_lease(clock: list[float]) -> None:
    """Neither while it is acquired, with two answers, nor while it is renewed."""
    leases = Leases()
    one = Replica(leases, "one", clock)

    def wait(seconds: float) -> None:
        for _ in range(round(seconds * 10)):
            clock[0] += 0.1
            one.election.check_deadline()

    def slowly(method: str, path: str, **more: Any) -> Object:
        wait(2.5)
        try:
            return leases.request(method, path, **more)
        finally:
            wait(2.5)

    one.election._client = Slow(slowly)  # type: ignore[assignment]
    for _ in range(5):
        one.election.attempt()
        wait(one.election.pause())
    assert one.leads
    assert not one.lost


def test_one_that_rejoins_waits_for_its_turn_again(clock: list[float]) -> None:
    """The webhook goes on answering reviews without the lease, and takes over when the other replica is gone."""
    leases = Leases()
    one, two = Replica(leases, "one", clock, rejoin=True), Replica(leases, "two", clock, rejoin=True)
    one.election.attempt()
    two.election.attempt()
    clock[0] += 12.1
    one.election.check_deadline()
    one.election.check_deadline()
    assert (one.leads, one.lost) == (False, ["the lease could not be renewed for 11 s"])
    two.election.attempt()
    one.election.attempt()
    assert (one.leads, two.leads) == (False, True)
    two.election.stop()
    one.election.attempt()
    assert (one.leads, one.started) == (True, 2)


def test_a_late_answer_does_not_bring_the_lead_back(clock: list[float]) -> None:
    """The renewal that was under way when the lead was given up may be as old as the lease: another replica acts by then."""
    leases = Leases()
    one = Replica(leases, "one", clock, rejoin=True)
    one.election.attempt()

    def late(method: str, path: str, **more: Any) -> Object:
        answer = leases.request(method, path, **more)
        clock[0] += 11.1
        one.election.check_deadline()
        return answer

    one.election._client = Slow(late)  # type: ignore[assignment]
    one.election.attempt()
    assert (one.leads, one.started) == (False, 1)
    one.election._client = leases  # type: ignore[assignment]
    one.election.attempt()
    assert (one.leads, one.started) == (True, 2)


def test_who_cannot_start_to_lead_does_not_lead(clock: list[float]) -> None:
    """A replica that renews the lease and does nothing keeps others from working."""
    replica = Replica(Leases(), "one", clock)

    def fail() -> None:
        raise RuntimeError("can't start new thread")

    replica.election._on_started_leading = fail
    replica.election.attempt()
    assert (replica.leads, replica.lost) == (False, ["failed to start leading"])
