"""Platform, mirrors, controller, users and time in a closed loop: every state that they can get a tag into is visited.

Steps of the controller are its own pure functions (`StreamState`, `plan_stream`, `replacement`, `apply_results`); the platform's
are those of tests/model/platform.py. MIRRORSTREAM_SOAK=1 adds a second source, a mirror that is recorded under its own name and
more time, and lets anything happen between a mirror's answer and its recording.
"""

import math
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from mirrorstream.rules.policy import MirrorPolicy
from mirrorstream_controller.plan import Action

from tests.model import SOAK, platform
from tests.model.world import MIRRORED, REPLACE, SOURCES, STUCK, TAG_MIRRORED, State, World, new_state, unfold

Step = tuple[str, World]
BOUND = STUCK + REPLACE + 3
"""In so many rounds, each of them one unit of time long, a tag that can be served is served."""
UPSTREAM = ("A", "down", "missing")
MIRROR = ("", "A", "B")
BOTH = ("A", "B")
FIXED = {"down": BOTH, "hangs": BOTH if SOAK else "B", "A": BOTH if SOAK else "B", "fails on schedule": BOTH if SOAK else "B"}
"""What the source does from now on, and what the mirror has."""


def steps(unfolded: Callable[[], World], *, sources: int, interleaved: bool) -> Iterator[Step]:
    """Everything that may happen next."""
    for answer in UPSTREAM:
        for asked in (False, True):
            world = unfolded()
            if asked or platform.pending(world.stream):
                world.platform_imports(answer, asked=asked)
                yield f"the platform imports: {answer}", world
    for source in range(sources):
        world = unfolded()
        world.edit(source)
        yield f"edited: {SOURCES[source]}", world
    for name, happen in (("time", World.tick), ("restart", World.restart), ("retry", World.user_retries)):
        world = unfolded()
        happen(world)
        yield name, world
    if unfolded().flight:
        world = unfolded()
        record(world)
        yield "recorded", world
        return
    for mirror in MIRROR:
        world = unfolded()
        world.reconcile(mirror)
        if world.flight and not interleaved:
            record(world)
        yield f"the controller reconciles, a mirror has {mirror or 'nothing'}", world


def record(world: World) -> None:
    """Record, and hold the controller to what it promises about each write."""
    said = world.said
    if not world.record():
        return
    assert said not in platform.FORBIDDING, "the source said no"
    assert world.healed, "a write heals"
    assert world.stream["status"]["tags"][0]["items"][0]["image"] in world.images, "the item has its Image"
    for mirror in MIRROR:
        plan = world.reconcile(mirror)
        assert plan
        assert plan.action is Action.NOTHING
        assert world.flight is None, "no second write"


@dataclass
class Space:
    """All states that can be reached, and how."""

    policy: MirrorPolicy
    states: dict[State, tuple[State, str] | None] = field(default_factory=dict)
    edges: int = 0

    def explore(self, *, sources: int, interleaved: bool, most: float = math.inf) -> None:
        """Visit everything from a stream that has just been created, or the `most` states that are nearest to it."""
        first = World(platform.new_stream(SOURCES[0]), new_state(), {}, "", policy=self.policy).state()
        self.states[first] = None
        todo = deque([first])
        while todo and len(self.states) < most:
            state = todo.popleft()
            try:
                for name, world in steps(lambda state=state: unfold(state, self.policy), sources=sources, interleaved=interleaved):  # type: ignore[misc]
                    self.edges += 1
                    reached = world.state()
                    if reached not in self.states:
                        self.states[reached] = (state, name)
                        todo.append(reached)
            except AssertionError as error:
                raise AssertionError(f"{error}\n{self.history(state)}") from error

    def history(self, state: State) -> str:
        """How a state is reached."""
        lines = [str(state)]
        while found := self.states.get(state):
            state, name = found
            lines.append(name)
        return "\n".join(reversed(lines))


def a_round(state: State, policy: MirrorPolicy, mirror: str, upstream: str) -> tuple[State, World, int]:
    """One unit of time in which everybody does what they have to; the world, and how often the controller wrote."""
    world = unfold(state, policy)
    if upstream == "fails on schedule":
        # With another text each time, as an ephemeral port makes it.
        world.platform_imports("down", asked=True, nonce=" again")
    else:
        world.platform_imports(upstream)
    writes = 0
    for _ in range(2):
        if world.flight:
            writes += world.record()
        world.reconcile(mirror)
    if world.flight:
        writes += world.record()
    world.tick()
    return world.state(), world, writes


def stands_refused(world: World) -> bool:
    """Whether the last that the present source said, as far as anybody can know, is that it does not serve the image."""
    plan, condition = world.plan(), platform.condition(world.stream)
    if plan is None or plan.action is not Action.REFUSE or condition is None:
        return False
    kind, source = world.state().condition[:2]  # type: ignore[index]
    return kind in platform.FORBIDDING and SOURCES[source] == plan.source


@pytest.fixture(scope="module", params=["digest-mirror", "tag-mirror"] if SOAK else ["digest-mirror"])
def space(request: pytest.FixtureRequest) -> Space:
    """The reachable states, with a mirror that is recorded under the source's name, and under its own."""
    found = Space(MIRRORED if request.param == "digest-mirror" else TAG_MIRRORED)
    found.explore(sources=2 if SOAK else 1, interleaved=SOAK)
    assert len(found.states) > 10_000, "so many there are, else something can't happen any more"
    return found


def test_no_image_of_an_earlier_source_is_held() -> None:
    """`from` goes back and forth, at any time; what the controller knows of an item is true, and it acts by it (`World`)."""
    found = Space(MIRRORED)
    found.explore(sources=2, interleaved=True, most=10_000)
    unsettled = Counter(type(state.unsettled) for state in found.states)
    assert min(unsettled[type(None)], unsettled[int], unsettled[str]) > 500


def what_is_well_is_left_alone(space: Space) -> None:
    """Nobody writes anything, whatever the mirrors have; there are such states, among many others."""
    well = [state for state in space.states if unfold(state, space.policy).healed]
    assert 0 < len(well) < len(space.states)
    for state in well:
        if state.flight:
            continue  # what was asked for before it became well; recording it is checked where it happens
        for mirror in MIRROR:
            world = unfold(state, space.policy)
            plan = world.reconcile(mirror)
            assert plan
            assert plan.action is Action.NOTHING
            assert world.flight is None
            assert not world.platform_imports("down")


@pytest.mark.timeout(3600)
def test_what_a_mirror_serves_is_soon_served_and_then_left_alone(space: Space) -> None:
    """From every state, whatever the source does: healed in a few rounds, or refused because the source said so; never undone.

    Then nobody writes anything any more. One test for both: finding the states takes longest, and each process would do it again.
    """
    what_is_well_is_left_alone(space)
    ended: Counter[str] = Counter()
    for upstream, mirrors in FIXED.items():
        for mirror in mirrors:
            next_of: dict[State, tuple[State, bool, bool, int]] = {}

            def look(
                state: State, upstream: str = upstream, mirror: str = mirror, known: dict = next_of
            ) -> tuple[State, bool, bool, int]:  # type: ignore[type-arg]
                if state not in known:
                    reached, world, writes = a_round(state, space.policy, mirror, upstream)
                    known[state] = (reached, world.healed, stands_refused(world), writes)
                return known[state]

            for start in space.states:
                state, good = start, False
                for _ in range(BOUND):
                    state, healed, refused, _ = look(state)
                    if good := healed or refused:
                        break
                assert good, f"{upstream=} {mirror=}\n{space.history(start)}\nends in {state}"
                _, healed, refused, writes = look(state)
                assert healed or refused, f"undone: {upstream=} {mirror=}\n{space.history(start)}"
                if upstream != "fails on schedule":
                    assert not writes, f"a write loop: {upstream=} {mirror=}\n{space.history(start)}"
                assert writes <= 1
                ended["healed" if healed else "refused"] += 1
    assert ended["healed"]
    assert ended["refused"]
