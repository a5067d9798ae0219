"""The phases of a tag's import, and what a stream's state tells the reconciler; without threads."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from mirrorstream.imagestream.model import RETRY_ANNOTATION, imagestream_from
from mirrorstream.rules.candidates import Candidate
from mirrorstream.text.times import rfc3339
from mirrorstream_controller.plan import Action, TagPlan
from mirrorstream_controller.results import FailedImport, FetchedImport, HeldImport, ImportResult, ObservedImport, TagResult
from mirrorstream_controller.stream_state import NEXT_PHASES, OBSERVED, Demand, NextSteps, Phase, Requeue, StreamState, TagState

CANDIDATE = Candidate("m.io/a:v1", False, "ImageDigestMirrorSet/m")
PLAN = TagPlan("v1", Action.IMPORT, "", "src.io/a:v1", 2, candidates=(CANDIDATE,), failing_since=50)
OTHER = dataclasses.replace(PLAN, generation=3)
REFUSED = dataclasses.replace(PLAN, action=Action.REFUSE, why="no")
NOTHING = dataclasses.replace(PLAN, action=Action.NOTHING)
RESULT = TagResult(PLAN, "v1", "sha256:aa", "src.io/a@sha256:aa", "m.io/a:v1", "ImageDigestMirrorSet/m")
FETCHED, FAILED = FetchedImport(PLAN, (RESULT,)), FailedImport(PLAN)
HELD, WOULD_RECORD = HeldImport(PLAN, "sha256:bb", CANDIDATE, until=100), ObservedImport(PLAN, (RESULT,))
BACKOFF = 10.0
Move = Callable[[StreamState], object]


def stream(
    generation: int = 2,
    item: int = 0,
    failed: int = 0,
    *,
    failed_at: float | None = None,
    tags: tuple[str, ...] = ("v1",),
    source: str = "src.io/a",
    retry: str = "",
) -> Any:
    """A stream whose tags are all in the same state."""
    status: dict[str, Any] = {}
    if item:
        status["items"] = [{"image": "sha256:aa", "dockerImageReference": "x", "generation": item}]
    if failed:
        when = {} if failed_at is None else {"lastTransitionTime": rfc3339(failed_at)}
        status["conditions"] = [{"type": "ImportSuccess", "status": "False", "generation": failed, **when}]
    spec = [{"name": t, "from": {"kind": "DockerImage", "name": f"{source}:{t}"}, "generation": generation} for t in tags]
    metadata = {"name": "a", "annotations": {RETRY_ANNOTATION: retry} if retry else {}}
    statuses = [{"tag": tag, **status} for tag in tags]
    return imagestream_from({"metadata": metadata, "spec": {"tags": spec}, "status": {"tags": statuses}})


def new_state(*tags: str) -> StreamState:
    """A stream that was reconciled once, when nothing was to be done."""
    state = StreamState("u", "", lambda failures: BACKOFF * failures)
    state.observe(stream(failed=2, tags=tags or ("v1",)), 0)
    return state


def steps(
    state: StreamState, *plans: TagPlan, now: float = 0, at: float = 0, active: bool = True, priority: bool = False
) -> NextSteps:
    """Reconcile, without recording."""
    state.drop_obsolete(plans, active=active)
    return state.next_steps(plans, now=now, at=at, priority=priority)


def finish(state: StreamState, result: ImportResult, *, observing: bool = False, at: float = 0) -> Requeue | None:
    """Have the import worker report."""
    return state.finish(result, observing=observing, at=at)


def phase(state: StreamState) -> Phase | None:
    """The phase of the only tag."""
    return state._tags["v1"].phase if state._tags else None


WAYS: dict[Phase, tuple[Move, ...]] = {
    Phase.IDLE: (),
    Phase.RUNNING: (lambda state: steps(state, PLAN),),
    Phase.FETCHED: (lambda state: steps(state, PLAN), lambda state: finish(state, FETCHED)),
    Phase.HELD: (lambda state: steps(state, PLAN), lambda state: finish(state, HELD)),
    Phase.BACKING_OFF: (lambda state: steps(state, PLAN), lambda state: finish(state, FAILED)),
}
"""How a tag comes into each phase."""
PHASES = {"i": Phase.IDLE, "r": Phase.RUNNING, "f": Phase.FETCHED, "h": Phase.HELD, "b": Phase.BACKING_OFF, "-": None}
MOVES: dict[str, tuple[Move, str]] = {
    "planned, before its time": (lambda state: steps(state, PLAN, now=99, at=9), "r r f h b"),
    "planned, once held for long enough": (lambda state: steps(state, PLAN, now=100, at=9), "r r f r b"),
    "planned, after the back-off": (lambda state: steps(state, PLAN, now=99, at=10), "r r f h r"),
    "planned otherwise": (lambda state: steps(state, OTHER), "r r r r r"),
    "planned by an observer": (lambda state: steps(state, PLAN, active=False), "r r r h b"),
    "refused": (lambda state: steps(state, REFUSED), "i i i i i"),
    "no rule any more": (lambda state: steps(state, NOTHING), "i i i h b"),
    "opted out": (steps, "i i i i i"),
    "served": (lambda state: finish(state, FETCHED), "i f f h b"),
    "served for another plan": (lambda state: finish(state, FetchedImport(OTHER, ())), "i r f h b"),
    "held": (lambda state: finish(state, HELD), "i h f h b"),
    "observed": (lambda state: finish(state, WOULD_RECORD, observing=True), "i h f h b"),
    "observed, and recorded from now on": (lambda state: finish(state, WOULD_RECORD), "i i f h b"),
    "failed": (lambda state: finish(state, FAILED), "i b f h b"),
    "failed, and a user asked since": (lambda state: finish(state, FailedImport(retried(PLAN))), "i i f h b"),
    "held, and a user asked since": (lambda state: finish(state, dataclasses.replace(HELD, plan=retried(PLAN))), "i i f h b"),
    "served, and a user asked since": (lambda state: finish(state, FetchedImport(retried(PLAN), ())), "i f f h b"),
    "taken to be recorded": (lambda state: state.take_results(0), "i r b h b"),
    "recorded": (lambda state: state.recorded(RESULT, now=0, at=0), "b r f h b"),
    "unchanged": (lambda state: state.observe(stream(failed=2), 0), "i r f h b"),
    "retried": (lambda state: state.observe(stream(failed=2, retry="1"), 0), "i r f i i"),
    "configured": (lambda state: state.reset(), "i r f i i"),
    "of another source": (lambda state: state.observe(stream(3, source="src.io/b"), 0), "i r f i i"),
    "gone": (lambda state: state.observe(stream(tags=()), 0), "- - - - -"),
}
"""What happens to a tag, and its phase afterwards: if it was idle, running, fetched, held, backing off."""


def retried(plan: TagPlan) -> TagPlan:
    """The same plan, made before a user asked for another attempt."""
    return dataclasses.replace(plan, retry_token="earlier")


def after(name: str, start: Phase) -> StreamState:
    """The state in which something happens to a tag in the phase `start`."""
    state = new_state()
    for move in WAYS[start]:
        move(state)
    assert phase(state) is start
    MOVES[name][0](state)
    return state


@pytest.mark.parametrize("name", MOVES)
def test_every_move_in_every_phase(name: str) -> None:
    """What belongs to another phase changes nothing: a late result, above all."""
    wanted = [PHASES[letter] for letter in MOVES[name][1].split()]
    assert [phase(after(name, start)) for start in Phase] == wanted


def test_the_moves_make_every_transition(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each transition of the table, and no other."""
    seen: set[tuple[Phase, Phase]] = set()
    enter = TagState.enter

    def spy(tag: TagState, phase: Phase, fingerprint: Any) -> None:
        seen.add((tag.phase, phase))
        enter(tag, phase, fingerprint)

    monkeypatch.setattr(TagState, "enter", spy)
    for name, start in itertools.product(MOVES, Phase):
        after(name, start)
    assert seen == {(before, then) for before, following in NEXT_PHASES.items() for then in following}


@pytest.mark.parametrize(("before", "then"), [*itertools.product(Phase, Phase)])
def test_every_other_transition_is_forbidden(before: Phase, then: Phase) -> None:
    """It would be an error of ours, and changes nothing."""
    tag = TagState(phase=before, fingerprint=PLAN.fingerprint)
    if then in NEXT_PHASES[before]:
        tag.enter(then, OTHER.fingerprint)
        assert (tag.phase, tag.fingerprint) == (then, OTHER.fingerprint)
    else:
        with pytest.raises(RuntimeError, match=f"from {before} to {then}"):
            tag.enter(then, OTHER.fingerprint)
        assert (tag.phase, tag.fingerprint) == (before, PLAN.fingerprint)


def test_the_table_in_the_docstring_is_complete() -> None:
    """A row for each transition."""
    rows = [[cell.strip() for cell in line.split("|")] for line in (TagState.__doc__ or "").splitlines() if "|" in line][2:]
    written = [(row[1], row[2]) for row in rows]
    assert sorted(written) == sorted((str(before), str(then)) for before, following in NEXT_PHASES.items() for then in following)


# What the reconciler is told.


def test_only_what_is_due_is_started() -> None:
    """Nothing else is an import, and an import runs once."""
    state = new_state()
    assert steps(state, dataclasses.replace(PLAN, action=Action.WAIT)).start == ()
    assert steps(state, PLAN).start == (PLAN,)
    assert steps(state, PLAN).start == ()


def test_a_refusal_is_reported_once() -> None:
    """And again for another reason, or once a user asks."""
    state = new_state()
    assert [steps(state, REFUSED).refused for _ in range(2)] == [(REFUSED,), ()]
    other = dataclasses.replace(REFUSED, why="not that either")
    assert [steps(state, other).refused for _ in range(2)] == [(other,), ()]
    state.observe(stream(failed=2, retry="1"), 0)
    assert steps(state, other).refused == (other,)


@pytest.mark.parametrize(
    ("start", "plan", "seconds"),
    [
        pytest.param(Phase.IDLE, NOTHING, None, id="nothing"),
        pytest.param(Phase.IDLE, dataclasses.replace(PLAN, action=Action.WAIT), None, id="until-the-stream-changes"),
        pytest.param(Phase.IDLE, dataclasses.replace(PLAN, action=Action.WAIT, again_at=30), 30, id="until-the-platform-is-stuck"),
        pytest.param(Phase.IDLE, PLAN, None, id="its-result-comes"),
        pytest.param(Phase.FETCHED, PLAN, 2, id="recorded-at-the-latest"),
        pytest.param(Phase.HELD, PLAN, 100, id="held"),
        pytest.param(Phase.BACKING_OFF, PLAN, BACKOFF, id="backing-off"),
    ],
)
def test_when_to_reconcile_though_nothing_changes(start: Phase, plan: TagPlan, seconds: float | None) -> None:
    """A moment late: a reconcile that comes early would find nothing due."""
    state = new_state()
    for move in WAYS[start]:
        move(state)
    wake = steps(state, plan).wake_after
    assert wake == (None if seconds is None else pytest.approx(seconds, abs=0.02))
    assert wake is None or wake > (seconds or 0)


def test_what_an_observer_holds_wakes_nobody() -> None:
    """It is held for as long as it observes."""
    state = new_state()
    steps(state, PLAN)
    finish(state, WOULD_RECORD, observing=True)
    assert (steps(state, PLAN, active=False).wake_after, state.held_until("v1")) == (None, OBSERVED)


V2 = dataclasses.replace(PLAN, tag="v2")


@pytest.mark.parametrize(
    ("result", "priority", "token", "requeue"),
    [
        pytest.param(FETCHED, False, "", Requeue(2.0), id="served: the other may soon be, too"),
        pytest.param(FETCHED, True, "", Requeue(0.0, priority=True), id="served, and a user waits"),
        pytest.param(HELD, False, "", Requeue(None), id="held: the other's result will do"),
        pytest.param(HELD, True, "", Requeue(0.0, priority=True), id="held, and a user waits"),
        pytest.param(FAILED, False, "", Requeue(0.0), id="failed"),
        pytest.param(FAILED, True, "", Requeue(0.0), id="failed, and a user waits: there is nothing to record"),
        pytest.param(FAILED, True, "1", Requeue(0.0, priority=True, repeat=True), id="failed, and a user asked since"),
        pytest.param(HELD, True, "1", Requeue(0.0, priority=True, repeat=True), id="held, and a user asked since"),
        pytest.param(FETCHED, True, "1", Requeue(0.0, priority=True), id="served, which is what the user asked for"),
    ],
)
def test_when_to_reconcile_after_a_result(result: ImportResult, priority: bool, token: str, requeue: Requeue) -> None:
    """While another import of the stream runs."""
    state = new_state("v1", "v2")
    steps(state, PLAN, V2)
    if token:
        state.observe(stream(failed=2, tags=("v1", "v2"), retry=token), 0)
    if priority:
        assert state.raise_priority() == ["v1", "v2"]
    assert finish(state, result) == requeue


def test_the_last_result_is_not_waited_for() -> None:
    """Nothing runs any more."""
    state = new_state()
    steps(state, PLAN)
    assert finish(state, HELD) == Requeue(0.0)


def test_demand_is_for_the_plan_that_runs() -> None:
    """With priority once a user asks; a stream that is gone wants nothing."""
    state = new_state()
    steps(state, PLAN)
    assert (state.demand(PLAN), state.demand(OTHER), state.demand(V2)) == (Demand.WANTED, Demand.NONE, Demand.NONE)
    state.raise_priority()
    assert state.demand(PLAN) is Demand.PRIORITY
    finish(state, FAILED)
    assert state.demand(PLAN) is Demand.NONE
    steps(state, PLAN, at=BACKOFF, priority=True)
    assert state.demand(PLAN) is Demand.PRIORITY


def test_results_are_recorded_together_unless_one_takes_long_or_a_user_waits() -> None:
    """Each is taken once."""
    state = new_state("v1", "v2")
    steps(state, PLAN, V2)
    finish(state, FETCHED, at=5)
    assert state.take_results(6.9) == ([], False)
    assert state.take_results(7) == ([RESULT], False)
    assert state.take_results(7) == ([], False)
    assert state._tags["v1"].results == (), "nor kept"
    second = dataclasses.replace(RESULT, plan=V2, tag="v2")
    finish(state, FetchedImport(V2, (second,)), at=5)
    state.raise_priority()
    steps(state, OTHER, V2)
    assert state.take_results(5) == ([second], True), "a user waits"


def test_tags_that_fail_together_back_off_once() -> None:
    """And for as long as a busy API server asks."""
    state = new_state("v1", "v2")
    steps(state, PLAN, V2)
    finish(state, FAILED)
    finish(state, FailedImport(V2, retry_after=15))
    assert steps(state, PLAN, V2).wake_after == pytest.approx(15, abs=0.02)
    steps(state, PLAN, V2, at=15)
    finish(state, FAILED, at=15)
    assert steps(state, PLAN, at=15).wake_after == pytest.approx(2 * BACKOFF, abs=0.02)


@pytest.mark.parametrize("end", [lambda state: state.recorded(RESULT, now=0, at=30), lambda state: state.reset()])
def test_a_success_or_a_user_ends_the_back_off(end: Move) -> None:
    """It begins with its first wait again."""
    state = new_state()
    for at in (0, BACKOFF):
        steps(state, PLAN, at=at)
        finish(state, FAILED, at=at)
    assert steps(state, PLAN, at=BACKOFF).wake_after == pytest.approx(2 * BACKOFF, abs=0.02)
    end(state)
    steps(state, OTHER, at=50)
    finish(state, FailedImport(OTHER), at=50)
    assert steps(state, OTHER, at=50).wake_after == pytest.approx(BACKOFF, abs=0.02)


def test_what_was_not_recorded_is_planned_again_after_the_back_off() -> None:
    """Also an image that was held before."""
    state = new_state()
    steps(state, PLAN)
    finish(state, HELD)
    steps(state, PLAN, now=100)
    finish(state, FETCHED)
    state.take_results(0)
    state.back_off(0, 5)
    assert steps(state, PLAN, now=100, at=14.9).start == ()
    assert steps(state, PLAN, now=100, at=15).start == (PLAN,)


def test_a_tag_is_shown_as_held_while_it_is_imported_again() -> None:
    """A scheduled tag fails at a new generation every quarter of an hour: what the metrics show must not flicker."""
    state = new_state()
    steps(state, PLAN)
    finish(state, HELD)
    steps(state, OTHER)
    assert state.held_until("v1") == 100
    finish(state, FailedImport(OTHER))
    assert state.held_until("v1") is None, "the mirror does not have it any more"
    steps(state, PLAN)
    finish(state, HELD)
    steps(state, OTHER)
    state.reset()
    assert state.held_until("v1") is None, "a user does not want to wait for it"


# History.


def test_pending_is_counted_from_when_it_was_first_seen_at_that_generation() -> None:
    """A new generation starts from the beginning."""
    state = StreamState("u", "", lambda failures: BACKOFF)
    assert state.observe(stream(2), 100).pending_since == {"v1": 100}
    assert state.observe(stream(2), 150).pending_since == {"v1": 100}
    assert state.observe(stream(3), 160).pending_since == {"v1": 160}
    assert state.observe(stream(3, item=3), 170).pending_since == {}


def test_a_source_fails_until_the_platform_itself_succeeds() -> None:
    """Healing through a mirror, or a message that changes, does not make the failure younger."""
    state = StreamState("u", "", lambda failures: BACKOFF)
    assert state.observe(stream(2, failed=2), 100).failing_since == {"v1": 100}
    state.recorded(RESULT, now=110, at=0)
    assert state.observe(stream(2, item=2), 120).failing_since == {"v1": 50}, "well only because of us"
    assert state.observe(stream(3, item=2, failed=3), 130).failing_since == {"v1": 50}
    assert state.observe(stream(4, item=4), 140).failing_since == {}, "the platform's own import"
    assert state.is_empty


@pytest.mark.parametrize(("well_for", "since"), [(1800, 50), (1801, 1921)])
def test_a_source_that_fails_again_long_after_the_record_fails_anew(well_for: int, since: int) -> None:
    """It answered in between: scheduled imports that find the same image again write nothing. A stale mirror must not profit."""
    state = new_state("v1")
    state.observe(stream(2, failed=2), 100)
    state.recorded(RESULT, now=120, at=0)
    state.observe(stream(2, failed=2, failed_at=100), 120.1)  # before the watch brings the record
    state.observe(stream(2, item=2), 121)
    assert state.observe(stream(3, item=2, failed=3), 120 + well_for).failing_since == {"v1": since}
    assert state.observe(stream(3, item=2, failed=3), 9000).failing_since == {"v1": since}, "it goes on"


def test_an_import_that_stays_pending_long_after_the_record_fails_anew() -> None:
    """As one that fails does."""
    state = new_state("v1")
    state.observe(stream(2, failed=2), 100)
    state.recorded(RESULT, now=120, at=0)
    state.observe(stream(2, item=2), 121)
    assert state.observe(stream(3, item=2), 5000).failing_since == {}
