"""A world of one tag that can be searched: the platform's model, the controller's pure parts, and nothing that is not in `State`.

Time goes in steps of `UNIT` seconds, and ages are only told apart as far as a decision does.
"""

import dataclasses
import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from mirrorstream.imagestream.model import imagestream_from
from mirrorstream.imagestream.settled import EARLIER, UNKNOWN, StreamItems, TagItem, follow, tag_items
from mirrorstream.rules.policy import MirrorPolicy
from mirrorstream.rules.references import parse_reference
from mirrorstream_controller.plan import Action, PlanSettings, TagPlan, plan_stream, replacement
from mirrorstream_controller.results import FailedImport, FetchedImport, HeldImport, ImportResult, TagResult
from mirrorstream_controller.status_writer import apply_results
from mirrorstream_controller.stream_state import Phase, StreamState, TagState

from tests.model import SOAK, platform
from tests.model.platform import TAG

Object = dict[str, Any]
UNIT = 1000.0
NOW = 1_800_000_000.0
STUCK, REPLACE, BACKOFF = 1, (2 if SOAK else 1), 1
"""stuckAfter, replaceAfter and the back-off, in steps."""
SETTINGS = PlanSettings(stuck_after=STUCK * UNIT, replace_after=REPLACE * UNIT)
SOURCES = ("src.io/team/app:v1", "src.io/team/app:v2")


def new_state() -> StreamState:
    """What a controller that has just started knows of the stream."""
    return StreamState("u", "", lambda failures: BACKOFF * UNIT)


def remembering(policy: MirrorPolicy) -> MirrorPolicy:
    """The same policy, which works each of its answers out once."""
    changed: Any = policy
    changed.resolve = functools.cache(policy.resolve)
    changed.import_candidates = functools.cache(policy.import_candidates)
    return policy


def rules(kind: str, field: str) -> MirrorPolicy:
    """One mirror for the source."""
    spec = {field: [{"source": "src.io", "mirrors": ["m.io/x"]}]}
    return remembering(MirrorPolicy.from_objects([{"kind": kind, "metadata": {"name": "m"}, "spec": spec}]))


RECORDED = "2027-01-15T08:00:00Z"
"""When mirrorstream made an item."""
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
    recorded: bool = False
    """Whether mirrorstream made the item."""
    condition: tuple[str, int, int, int] | None = None
    """What failed, for which source, generation, age."""
    images: tuple[str, ...] = ()
    """The Images that exist."""
    pending: tuple[int, int] | None = None
    failing: tuple[int, int | None] | None = None
    phase: Phase = Phase.IDLE
    fingerprint: tuple[object, ...] | None = None
    """Source, generation, condition's generation, action and whether the item was settled, of the plan that the phase is about."""
    held: int | None = None
    next_attempt: int = 0
    flight: tuple[int, int, str, str, bool, int] | None = None
    """A fetched result: source, generation, newest image, digest, and so on."""
    unsettled: int | str | None = None
    """The source that the item is settled under, if it is not the present one, or UNKNOWN or EARLIER."""
    looked_at: int | None = None
    """The source that the controller saw when it looked last, if it is not the present one."""
    said: str = ""
    """What the present source answered last (no part of the world: only the property reads it)."""
    item_source: int | None = None
    """The source that the item came from, as nobody in the world knows (only the property reads it)."""


def _result(plan: TagPlan, digest: str, name: str) -> TagResult:
    """What is to be recorded, with an Image that has it."""
    return TagResult(plan, TAG, digest, f"{name}@{digest}", "m.io", "m", RECORDED, frozenset({RECORDED}))


@dataclass
class World:
    """A state unfolded into the objects that the real code works on."""

    stream: Object
    known: StreamState
    images: set[str]
    said: str
    policy: MirrorPolicy = field(default_factory=lambda: MIRRORED)
    items: StreamItems | None = None
    item_source: int | None = None

    @property
    def tag(self) -> TagState:
        """What the controller knows of the tag."""
        return self.known._tags.get(TAG) or TagState()

    @property
    def flight(self) -> TagResult | None:
        """A result that is not recorded yet."""
        return next(iter(self.tag.results), None)

    # What happens.

    def watch(self) -> None:
        """The controller's informer brings a change. What it concludes about the item is true, or that it cannot tell."""
        stream = imagestream_from(self.stream)
        self.items = follow(self.items, stream.metadata.uid, tag_items(stream))
        found = self.items.of(TAG)
        assert found in (None, UNKNOWN, EARLIER) or SOURCES.index(found) == self.item_source, found

    @property
    def source(self) -> int:
        """The present source."""
        return SOURCES.index(platform.spec_tag(self.stream)["from"]["name"])

    def tick(self) -> None:
        """Time goes by: everything grows older by one step."""
        tag = self.tag
        if found := platform.condition(self.stream):
            found["lastTransitionTime"] = _stamp(_steps(datetime.fromisoformat(found["lastTransitionTime"]).timestamp()) - 1)
        if tag.history.pending:
            tag.history.pending = (tag.history.pending[0], tag.history.pending[1] - UNIT)
        if tag.history.failing:
            tag.history.failing = (tag.history.failing[0] - UNIT, tag.history.failing[1])
        if tag.held_until is not None:
            tag.held_until -= UNIT
        self.known._next_attempt -= UNIT
        if self.flight and self.flight.plan.failing_since is not None:
            plan = dataclasses.replace(self.flight.plan, failing_since=self.flight.plan.failing_since - UNIT)
            tag.results = (dataclasses.replace(self.flight, plan=plan),)

    def edit(self, source: int) -> None:
        """The user changes the tag."""
        if platform.spec_tag(self.stream)["from"]["name"] != SOURCES[source]:
            self.said = ""
        platform.change_spec(self.stream, SOURCES[source])
        self.watch()

    def platform_imports(self, answer: str, *, nonce: str = "", asked: bool = False) -> bool:
        """The platform imports, if it has to or is `asked`; whether it wrote anything. It may hang, and write nothing."""
        if answer == "hangs" or not (asked or platform.pending(self.stream)):
            return False
        self.said = answer
        if answer not in platform.MESSAGES:
            self.images.add(answer)
            self.item_source = self.source
        wrote = platform.run_import(self.stream, answer, _stamp(0), nonce=nonce)
        if wrote:
            self.watch()
        return wrote

    def plan(self) -> TagPlan | None:
        """What the controller makes of the stream now."""
        stream = imagestream_from(self.stream)
        unsettled = self.items.unsettled if self.items else {}
        plans = plan_stream(stream, self.policy, SETTINGS, self.known.observe(stream, NOW, unsettled), NOW)
        return plans[0] if plans else None

    def reconcile(self, mirror: str) -> TagPlan | None:
        """The controller reconciles, and imports if that is due; `mirror` is the digest that it serves, or nothing.

        What `Reconciler` and `ImportWorker` do, for one tag. A fetched result is in flight until `record`.
        """
        plan = self.plan()
        if plan:
            self.known.drop_obsolete([plan], active=True)
            if self.known.next_steps([plan], now=NOW, at=NOW, priority=False).start:
                self.known.finish(self._import(plan, mirror), observing=False, at=NOW)
        return plan

    def _import(self, plan: TagPlan, mirror: str) -> ImportResult:
        if not mirror:
            return FailedImport(plan)
        ours = plan.newest_image not in self.images or plan.newest_created == RECORDED
        decision = replacement(plan, mirror, newest_is_ours=ours, settings=SETTINGS, now=NOW)
        if not decision.allowed:
            assert self.item_source == self.source, "what came from another source is not held"
            return HeldImport(plan, mirror, plan.candidates[0], decision.again_at or 0.0)
        recent = plan.failing_since is not None and plan.failing_since + REPLACE * UNIT > NOW
        if mirror != plan.newest_image and not ours and recent:
            known = self.items.of(TAG) if self.items else None
            assert known in (None, UNKNOWN, EARLIER) or self.item_source != self.source, "a short outage replaces nothing"
        if not decision.only_condition:
            self.images.add(mirror)
        name = self.policy.resolve(parse_reference(plan.source)).recorded_name(plan.source, plan.candidates[0], "auto")
        return FetchedImport(plan, (_result(plan, mirror, name),))

    def record(self) -> bool:
        """Record what is in flight, if it still belongs there; whether that was written."""
        (result,), _ = self.known.take_results(NOW)
        applied = apply_results(self.stream, [result])
        if not applied.recorded:
            self.known.back_off(NOW)
            return False
        self.item_source = self.source
        self.watch()
        assert self.items
        assert TAG not in self.items.unsettled, "what was recorded is settled"
        self.known.recorded(result, now=NOW, at=NOW)
        return True

    def user_retries(self) -> None:
        """The retry annotation changes."""
        self.known.reset()

    def restart(self) -> None:
        """Another controller starts, which knows nothing."""
        self.known, self.items = new_state(), None
        self.watch()

    @property
    def healed(self) -> bool:
        """Whether the tag has an image, and nobody has anything to do or to complain."""
        stream = self.stream
        return platform.newest(stream) is not None and platform.condition(stream) is None and not platform.pending(stream)

    # Folding.

    def state(self) -> State:
        """The world in its canonical form."""
        stream, known, history = self.stream, self.tag, self.tag.history
        tag, item, condition = platform.spec_tag(stream), platform.newest(stream), platform.condition(stream)
        pending, failing, flight = history.pending, history.failing, self.flight
        tried = None if known.phase is Phase.IDLE else known.fingerprint
        generations = {0, tag["generation"], stream["metadata"]["generation"]}
        generations |= {found["generation"] for found in (item, condition) if found}
        generations |= {g for g in (pending and pending[0], failing and failing[1], flight and flight.plan.generation) if g}
        if tried:
            generations |= {g for g in (tried[1], tried[2]) if isinstance(g, int)}
        only_failed = self.items and TAG in self.items.items and self.items.items[TAG].only_failed
        rank = _ranks(generations, item["generation"] if item and not only_failed else None)
        return State(
            self.source,
            rank[tag["generation"]],
            rank[stream["metadata"]["generation"]],
            (item["image"], item["dockerImageReference"], rank[item["generation"]]) if item else None,
            bool(item and item.get("created") == RECORDED),
            _fold_condition(condition, rank) if condition else None,
            tuple(sorted(self.images)),
            (rank[pending[0]], max(_steps(pending[1]), -max(STUCK, REPLACE))) if pending else None,
            (max(_steps(failing[0]), -REPLACE), rank[failing[1]] if failing[1] else None) if failing else None,
            known.phase,
            (tried[0], rank[tried[1]], rank.get(tried[2]), tried[4], tried[5]) if tried else None,  # type: ignore[index,call-overload]
            max(_steps(known.held_until), 0) if known.phase is Phase.HELD and known.held_until is not None else None,
            max(_steps(self.known._next_attempt), 0),
            _fold_flight(flight, rank) if flight else None,
            self._fold_unsettled(),
            None if history.source in ("", tag["from"]["name"]) else SOURCES.index(history.source),
            self.said,
            self.item_source,
        )

    def _fold_unsettled(self) -> int | str | None:
        found = self.items.unsettled.get(TAG) if self.items else None
        return found if found in (None, UNKNOWN, EARLIER) else SOURCES.index(found)


def _ranks(generations: Iterable[int], item: int | None) -> dict[int, int]:
    """Generations in their order; `item` is the newest item's if the tag's is known to be more than one failure above it."""
    rank = {generation: number for number, generation in enumerate(sorted(generations))}
    return {generation: number + (item is not None and generation > item) for generation, number in rank.items()}


def _fold_condition(condition: Object, rank: dict[int, int]) -> tuple[str, int, int, int]:
    kind = next(kind for kind, (reason, text) in platform.MESSAGES.items() if text[-6:] in condition["message"])
    source = next(number for number, source in enumerate(SOURCES) if source in condition["message"])
    age = _steps(datetime.fromisoformat(condition["lastTransitionTime"]).timestamp())
    return kind, source, rank[condition["generation"]], max(age, -REPLACE)


def _fold_flight(flight: TagResult, rank: dict[int, int]) -> tuple[int, int, str, str, bool, int]:
    plan = flight.plan
    since = 0 if plan.failing_since is None else max(_steps(plan.failing_since), -REPLACE)
    return SOURCES.index(plan.source), rank[plan.generation], plan.newest_image, flight.digest, plan.settled, since


def unfold(state: State, policy: MirrorPolicy) -> World:
    """The world of a state."""
    stream = platform.new_stream(SOURCES[state.source])
    stream["metadata"]["generation"] = state.stream_generation
    platform.spec_tag(stream)["generation"] = state.generation
    if state.item or state.condition:
        entry = platform.entry(stream)
        if state.item:
            image, reference, generation = state.item
            made = {"created": RECORDED} if state.recorded else {}
            entry["items"] = [{"image": image, "dockerImageReference": reference, "generation": generation, **made}]
        if state.condition:
            kind, source, generation, age = state.condition
            reason, text = platform.MESSAGES[kind]
            failed = {"type": "ImportSuccess", "status": "False", "reason": reason, "message": text.format(SOURCES[source])}
            entry["conditions"] = [{**failed, "generation": generation, "lastTransitionTime": _stamp(age)}]
    tag = TagState(phase=state.phase)
    tag.history.source = "" if state.looked_at is None else SOURCES[state.looked_at]
    if state.pending:
        tag.history.pending = (state.pending[0], NOW + state.pending[1] * UNIT)
    if state.failing:
        tag.history.failing = (NOW + state.failing[0] * UNIT, state.failing[1])
    if state.held is not None:
        tag.held_until = NOW + state.held * UNIT
    if state.fingerprint:
        source, generation, condition, action, settled = state.fingerprint
        tag.fingerprint = (source, generation, condition, tuple(policy.import_candidates(str(source))), action, settled)
    if state.flight:
        number, generation, image, digest, settled, since = state.flight
        candidates = tuple(policy.import_candidates(SOURCES[number]))
        # Nothing else of a plan is used after its import.
        plan = TagPlan(
            TAG,
            Action.IMPORT,
            "",
            SOURCES[number],
            generation,
            candidates=candidates,
            newest_image=image,
            settled=settled,
            failing_since=NOW + since * UNIT,
        )
        name = policy.resolve(parse_reference(plan.source)).recorded_name(plan.source, candidates[0], "auto")
        tag.results = (_result(plan, digest, name),)
    known = new_state()
    known._tags[TAG], known._next_attempt = tag, NOW + state.next_attempt * UNIT
    unsettled = SOURCES[state.unsettled] if isinstance(state.unsettled, int) else state.unsettled
    items = _last_seen(state.source, state.generation, state.item, state.condition, unsettled)
    return World(stream, known, set(state.images), state.said, policy, items, state.item_source)


@functools.lru_cache(maxsize=64)
def _last_seen(
    source: int,
    generation: int,
    item: tuple[str, str, int] | None,
    condition: tuple[str, int, int, int] | None,
    unsettled: str | None,
) -> StreamItems:
    """What the informer's handler keeps of these parts of a state."""
    items = {}
    if item:
        items[TAG] = TagItem(SOURCES[source], generation, item[0], item[2], condition[2] if condition else 0)
    return StreamItems("u", items, {} if unsettled is None else {TAG: unsettled})


def _steps(seconds: float) -> int:
    """A time, in steps from now."""
    return math.floor((seconds - NOW) / UNIT + 0.5)


def _stamp(steps: int) -> str:
    return datetime.fromtimestamp(NOW + steps * UNIT, UTC).isoformat()
