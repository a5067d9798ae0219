"""A world of one tag that can be searched: the platform's model, the controller's pure parts, and nothing that is not in `State`.

Time goes in steps of `UNIT` seconds, and ages are only told apart as far as a decision does.
"""

import dataclasses
import functools
import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from mirrorstream.imagestreams import imagestream_from
from mirrorstream.policy import MirrorPolicy
from mirrorstream_controller.memory import StreamMemory
from mirrorstream_controller.plan import Action, PlanSettings, TagPlan, plan_stream, replacement
from mirrorstream_controller.recorder import TagResult, apply_results

from tests.model import SOAK, platform
from tests.model.platform import TAG

Object = dict[str, Any]
UNIT = 1000.0
NOW = 1_800_000_000.0
STUCK, REPLACE, BACKOFF = 1, (2 if SOAK else 1), 1
"""stuckAfter, replaceAfter and the back-off, in steps."""
SETTINGS = PlanSettings(stuck_after=STUCK * UNIT, replace_after=REPLACE * UNIT)
SOURCES = ("src.io/team/app:v1", "src.io/team/app:v2")


def remembering(policy: MirrorPolicy) -> MirrorPolicy:
    """The same policy, which works each of its answers out once."""
    changed: Any = policy
    changed.import_candidates = functools.cache(policy.import_candidates)
    changed.recorded_name = functools.cache(policy.recorded_name)
    changed.refusal = functools.cache(policy.refusal)
    return policy


def rules(kind: str, field: str) -> MirrorPolicy:
    """One mirror for the source."""
    spec = {field: [{"source": "src.io", "mirrors": ["m.io/x"]}]}
    return remembering(MirrorPolicy.from_objects([{"kind": kind, "metadata": {"name": "m"}, "spec": spec}]))


MIRRORED = rules("ImageDigestMirrorSet", "imageDigestMirrors")
TAG_MIRRORED = rules("ImageTagMirrorSet", "imageTagMirrors")
"""The same mirror, whose own name is recorded."""


@dataclass(frozen=True)
class State:
    """Everything that the future depends on. Times are in steps, relative to now; generations are ranks."""

    source: int
    generation: int
    stream_generation: int
    item: tuple[str, str, int] | None = None
    """Digest, reference, generation."""
    condition: tuple[str, int, int, int] | None = None
    """What failed, for which source, generation, age."""
    ours: tuple[tuple[str, bool], ...] = ()
    """The Images that exist, and whether mirrorstream made them."""
    pending: tuple[int, int] | None = None
    failing: tuple[int, int | None] | None = None
    tried: tuple[object, ...] | None = None
    """Source, generation and condition's generation of the plan that was tried last; the other parts never change here."""
    held: int | None = None
    next_attempt: int = 0
    flight: tuple[int, int, str, str, bool, int] | None = None
    """An import that a mirror has answered and that is not recorded: source, generation, newest image, digest, and so on."""
    said: str = ""
    """What the present source answered last (no part of the world: only the property reads it)."""


@dataclass
class World:
    """A state unfolded into the objects that the real code works on."""

    stream: Object
    memory: StreamMemory
    ours: dict[str, bool]
    said: str
    flight: TagResult | None = None
    policy: MirrorPolicy = field(default_factory=lambda: MIRRORED)

    # What happens.

    def tick(self) -> None:
        """Time goes by: everything grows older by one step."""
        memory = self.memory
        if found := platform.condition(self.stream):
            found["lastTransitionTime"] = _stamp(_steps(datetime.fromisoformat(found["lastTransitionTime"]).timestamp()) - 1)
        memory.pending = {tag: (generation, since - UNIT) for tag, (generation, since) in memory.pending.items()}
        memory.failing = {tag: (since - UNIT, generation) for tag, (since, generation) in memory.failing.items()}
        memory.held_until = {tag: until - UNIT for tag, until in memory.held_until.items()}
        memory.next_attempt -= UNIT
        if self.flight and self.flight.plan.failing_since is not None:
            plan = dataclasses.replace(self.flight.plan, failing_since=self.flight.plan.failing_since - UNIT)
            self.flight = dataclasses.replace(self.flight, plan=plan)

    def edit(self, source: int) -> None:
        """The user changes the tag."""
        if platform.spec_tag(self.stream)["from"]["name"] != SOURCES[source]:
            self.said = ""
        platform.change_spec(self.stream, SOURCES[source])

    def platform_imports(self, answer: str, *, nonce: str = "", asked: bool = False) -> bool:
        """The platform imports, if it has to or is `asked`; whether it wrote anything. It may hang, and write nothing."""
        if answer == "hangs" or not (asked or platform.pending(self.stream)):
            return False
        self.said = answer
        if answer not in platform.MESSAGES:
            self.ours.setdefault(answer, False)
        return platform.run_import(self.stream, answer, _stamp(0), nonce=nonce)

    def plan(self) -> TagPlan | None:
        """What the controller makes of the stream now."""
        stream = imagestream_from(self.stream)
        plans = plan_stream(stream, self.policy, SETTINGS, self.memory.look(stream, NOW), NOW)
        return plans[0] if plans else None

    def controller_looks(self, mirror: str) -> TagPlan | None:
        """The controller looks, and imports if that is due; `mirror` is the digest that it serves, or nothing.

        What `Reconciler` and `Tries` do between the pure functions, for one tag. The result is in flight until `record`.
        """
        plan, memory = self.plan(), self.memory
        if plan is None or not memory.is_due(plan, now=NOW, monotonic=NOW):
            return plan
        memory.tried[TAG] = plan.fingerprint
        if not mirror:
            memory.held_until.pop(TAG, None)
            memory.next_attempt = NOW + BACKOFF * UNIT
            return plan
        ours = self.ours.get(plan.newest_image, True)
        decision = replacement(plan, mirror, newest_is_ours=ours, settings=SETTINGS, now=NOW)
        if not decision.allowed:
            memory.held_until[TAG] = decision.again_at or 0.0
            return plan
        if not decision.only_condition:
            self.ours.setdefault(mirror, True)
        name = self.policy.recorded_name(plan.source, plan.candidates[0], "auto")
        self.flight = TagResult(plan, TAG, mirror, f"{name}@{mirror}", "m.io", "m", decision.only_condition)
        return plan

    def record(self) -> bool:
        """Record what is in flight, if it still belongs there; whether that was written."""
        result, self.flight = self.flight, None
        assert result
        applied = apply_results(self.stream, [result], "2027-01-15T08:00:00Z")
        self.memory.next_attempt = max(self.memory.next_attempt, NOW + BACKOFF * UNIT)
        if not applied.recorded:
            return False
        self.memory.healed(result, NOW)
        self.memory.tried[TAG] = result.plan.fingerprint
        return True

    def user_retries(self) -> None:
        """The retry annotation changes."""
        self.memory.forget_attempts()

    def restart(self) -> None:
        """The controller starts anew."""
        self.memory, self.flight = StreamMemory("u"), None

    @property
    def healed(self) -> bool:
        """Whether the tag has an image, and nobody has anything to do or to complain."""
        stream = self.stream
        return platform.newest(stream) is not None and platform.condition(stream) is None and not platform.pending(stream)

    # Folding.

    def state(self) -> State:
        """The world in its canonical form."""
        stream, memory = self.stream, self.memory
        tag, item, condition = platform.spec_tag(stream), platform.newest(stream), platform.condition(stream)
        pending, failing, tried = memory.pending.get(TAG), memory.failing.get(TAG), memory.tried.get(TAG)
        flight = self.flight
        generations = {0, tag["generation"], stream["metadata"]["generation"]}
        generations |= {found["generation"] for found in (item, condition) if found}
        generations |= {g for g in (pending and pending[0], failing and failing[1], flight and flight.plan.generation) if g}
        if tried:
            generations |= {g for g in (tried[1], tried[2]) if isinstance(g, int)}
        rank = {generation: number for number, generation in enumerate(sorted(generations))}
        return State(
            SOURCES.index(tag["from"]["name"]),
            rank[tag["generation"]],
            rank[stream["metadata"]["generation"]],
            (item["image"], item["dockerImageReference"], rank[item["generation"]]) if item else None,
            _fold_condition(condition, rank) if condition else None,
            tuple(sorted(self.ours.items())),
            (rank[pending[0]], max(_steps(pending[1]), -max(STUCK, REPLACE))) if pending else None,
            (max(_steps(failing[0]), -REPLACE), rank[failing[1]] if failing[1] else None) if failing else None,
            (tried[0], rank[tried[1]], rank.get(tried[2]), tried[4]) if tried else None,  # type: ignore[index,call-overload]
            max(_steps(memory.held_until[TAG]), 0) if TAG in memory.held_until else None,
            max(_steps(memory.next_attempt), 0),
            _fold_flight(flight, rank) if flight else None,
            self.said,
        )


def _fold_condition(condition: Object, rank: dict[int, int]) -> tuple[str, int, int, int]:
    kind = next(kind for kind, (reason, text) in platform.MESSAGES.items() if text[-6:] in condition["message"])
    source = next(number for number, source in enumerate(SOURCES) if source in condition["message"])
    age = _steps(datetime.fromisoformat(condition["lastTransitionTime"]).timestamp())
    return kind, source, rank[condition["generation"]], max(age, -REPLACE)


def _fold_flight(flight: TagResult, rank: dict[int, int]) -> tuple[int, int, str, str, bool, int]:
    plan = flight.plan
    since = 0 if plan.failing_since is None else max(_steps(plan.failing_since), -REPLACE)
    return SOURCES.index(plan.source), rank[plan.generation], plan.newest_image, flight.digest, flight.only_condition, since


def unfold(state: State, policy: MirrorPolicy) -> World:
    """The world of a state."""
    stream = platform.new_stream(SOURCES[state.source])
    stream["metadata"]["generation"] = state.stream_generation
    platform.spec_tag(stream)["generation"] = state.generation
    if state.item or state.condition:
        entry = platform.entry(stream)
        if state.item:
            image, reference, generation = state.item
            entry["items"] = [{"image": image, "dockerImageReference": reference, "generation": generation}]
        if state.condition:
            kind, source, generation, age = state.condition
            reason, text = platform.MESSAGES[kind]
            failed = {"type": "ImportSuccess", "status": "False", "reason": reason, "message": text.format(SOURCES[source])}
            entry["conditions"] = [{**failed, "generation": generation, "lastTransitionTime": _stamp(age)}]
    memory = StreamMemory("u", next_attempt=NOW + state.next_attempt * UNIT)
    if state.pending:
        memory.pending[TAG] = (state.pending[0], NOW + state.pending[1] * UNIT)
    if state.failing:
        memory.failing[TAG] = (NOW + state.failing[0] * UNIT, state.failing[1])
    if state.held is not None:
        memory.held_until[TAG] = NOW + state.held * UNIT
    candidates = tuple(policy.import_candidates(SOURCES[state.source]))
    if state.tried:
        source, generation, condition, action = state.tried
        memory.tried[TAG] = (source, generation, condition, tuple(policy.import_candidates(str(source))), action)
    flight = None
    if state.flight:
        number, generation, image, digest, only_condition, since = state.flight
        candidates = tuple(policy.import_candidates(SOURCES[number]))
        # Whatever else a plan says is not looked at any more.
        plan = TagPlan(
            TAG,
            Action.IMPORT,
            "",
            SOURCES[number],
            generation,
            candidates=candidates,
            newest_image=image,
            failing_since=NOW + since * UNIT,
        )
        name = policy.recorded_name(plan.source, candidates[0], "auto")
        flight = TagResult(plan, TAG, digest, f"{name}@{digest}", "m.io", "m", only_condition)
    return World(stream, memory, dict(state.ours), state.said, flight, policy)


def _steps(seconds: float) -> int:
    """A time, in steps from now."""
    return math.floor((seconds - NOW) / UNIT + 0.5)


def _stamp(steps: int) -> str:
    return datetime.fromtimestamp(NOW + steps * UNIT, UTC).isoformat()
