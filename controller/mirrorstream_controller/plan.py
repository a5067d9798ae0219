"""What to do about each tag of a stream: a pure function of the stream, the mirror rules, the settings and the time.

Reading its result is the way to try an idea without a cluster. Whatever it needs to remember (how long an import has been
pending, since when a source fails) comes in as a Memory; nothing here reads a clock.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from mirrorstream.candidates import Candidate
from mirrorstream.failures import Failure, FailureClass
from mirrorstream.imagestreams import WHOLE_REPOSITORY, Condition, ImageStream, SpecTag
from mirrorstream.policy import MirrorPolicy
from mirrorstream.verdicts import PlatformImport, Verdict, judge, repository_import, tag_import

REPEATED_SECONDS = 180.0
"""Where no import counts as stuck: how long one is pending whose source failed before, until it is taken to have failed again."""


class Action(StrEnum):
    """What the controller does about a tag."""

    NOTHING = "nothing"
    WAIT = "wait"
    IMPORT = "import"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class PlanSettings:
    """The settings that decisions depend on; durations in seconds."""

    bypass_not_found: bool = False
    recorded_reference: str = "auto"
    stuck_after: float = 180
    replace_after: float = 3600


@dataclass(frozen=True, slots=True)
class Memory:
    """What was seen of a stream before; times in seconds since the epoch.

    `pending_since`: when each tag's import was first seen pending at its present generation. `failing_since`: when each tag's
    source was first seen failing without a success of the platform's in between; a condition's own time is younger whenever
    the message changed (an ephemeral port in it is enough).
    """

    pending_since: Mapping[str, float] = field(default_factory=dict)
    failing_since: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TagPlan:
    """The decision about one tag (or, with an empty `tag`, about the whole repository) and its reasons."""

    tag: str
    action: Action
    why: str
    source: str = ""
    """`from.name` as the user wrote it."""
    generation: int = 0
    """What the recorded item's generation will be; the platform imports again unless it is the spec tag's."""
    failure: Failure | None = None
    candidates: tuple[Candidate, ...] = ()
    import_mode: str = ""
    reference_policy: str = ""
    newest_image: str = ""
    """The image that the tag points to now, by digest; empty when there is none."""
    failing_since: float | None = None
    """Since when the source fails; a success of ours in between does not end that."""
    failed_at: float | None = None
    """When the failure that is dealt with happened, in seconds since the epoch."""
    again_at: float | None = None
    """For WAIT: when to look again, in seconds since the epoch; None: when the stream changes."""
    condition_generation: int | None = None
    asked: str = ""
    """The stream's retry annotation: whoever set it waits for an attempt that began afterwards."""

    @property
    def fingerprint(self) -> tuple[object, ...]:
        """What a new attempt is worth trying for at once: everything else waits for its turn."""
        return (self.source, self.generation, self.condition_generation, self.candidates, self.action)


def plan_stream(
    stream: ImageStream, policy: MirrorPolicy, settings: PlanSettings, memory: Memory, now: float
) -> tuple[TagPlan, ...]:
    """Decide about every tag of `stream` that has a DockerImage source, and about its whole repository.

    Tags that are never touched (tracking tags, ImageStreamImage, `reference: true`, pushed tags) are not in the result: a
    tracking tag follows when its target is recorded.
    """
    if stream.opted_out:
        return ()
    statuses = stream.status_by_tag()
    plans = [
        _plan_tag(stream, tag, tag_import(tag, statuses.get(tag.name)), policy, settings, memory, now)
        for tag in stream.spec_tags
        if tag.importable
    ]
    repository = _plan_repository(stream, policy, settings, memory, now)
    return (*plans, repository) if repository else tuple(plans)


def _plan_tag(
    stream: ImageStream,
    tag: SpecTag,
    platform: PlatformImport,
    policy: MirrorPolicy,
    settings: PlanSettings,
    memory: Memory,
    now: float,
) -> TagPlan:
    condition, newest = platform.condition, platform.newest
    base = TagPlan(
        tag=tag.name,
        action=Action.NOTHING,
        why="imported",
        source=platform.source,
        generation=tag.generation if tag.generation is not None else stream.metadata.generation,
        import_mode=tag.import_policy.import_mode,
        reference_policy=tag.reference_policy.type,
        newest_image=newest.image if newest else "",
        condition_generation=condition.generation if condition else None,
        asked=stream.annotations.retry,
    )
    if platform.pending:
        since = memory.pending_since.get(tag.name, now)
        before = platform.said_before
        limit = settings.stuck_after or (REPEATED_SECONDS if before else 0.0)
        if waiting := _still_waiting(base, since, limit, now):
            return waiting
        failure = before
        if failure is None or failure.may_be_bypassed(bypass_not_found=settings.bypass_not_found):
            failure = Failure(FailureClass.STUCK, f"no answer from the platform's import for {now - since:.0f} s")
        base = _with(base, failed_at=since + limit)
        return _import_or_refuse(base, failure, since, policy, settings, insecure=platform.insecure)
    if condition is None or platform.failure is None:
        return base if newest else _with(base, why="the platform has nothing to import")
    base = _with(base, failed_at=failed_at(condition, now))
    since = min(failed_at(condition, now), memory.failing_since.get(tag.name, now))
    return _import_or_refuse(base, platform.failure, since, policy, settings, insecure=platform.insecure)


def _plan_repository(
    stream: ImageStream, policy: MirrorPolicy, settings: PlanSettings, memory: Memory, now: float
) -> TagPlan | None:
    """Decide about `spec.dockerImageRepository`; once there are tags of it, nothing more is done."""
    platform = repository_import(stream)
    if platform is None or platform.failure is None:
        return None
    base = TagPlan(
        WHOLE_REPOSITORY, Action.NOTHING, "", platform.source, stream.metadata.generation, asked=stream.annotations.retry
    )
    since = memory.pending_since.get(WHOLE_REPOSITORY, now)
    if platform.pending and (waiting := _still_waiting(base, since, settings.stuck_after, now)):
        return waiting
    since = repository_failed_at(stream, since)
    base = _with(base, failed_at=since)
    return _import_or_refuse(base, platform.failure, since, policy, settings, insecure=platform.insecure)


def _still_waiting(base: TagPlan, since: float, limit: float, now: float) -> TagPlan | None:
    """The plan to wait for the platform's pending import; None once it has been so for `limit` seconds, where 0 is never."""
    why = "the platform's import is pending"
    if not limit:
        return _with(base, Action.WAIT, why)
    if now < since + limit:
        return _with(base, Action.WAIT, why, again_at=since + limit)
    return None


def _import_or_refuse(
    base: TagPlan, failure: Failure, since: float, policy: MirrorPolicy, settings: PlanSettings, *, insecure: bool
) -> TagPlan:
    """Decide about a failed import: through which candidates, or why not."""
    judgement = judge(
        policy,
        base.source,
        failure,
        insecure=insecure,
        bypass_not_found=settings.bypass_not_found,
        recorded_reference=settings.recorded_reference,
    )
    return _with(
        base, _ACTIONS[judgement.verdict], judgement.why, failure=failure, failing_since=since, candidates=judgement.candidates
    )


_ACTIONS = {
    Verdict.IMPORT: Action.IMPORT,
    Verdict.REFUSE: Action.REFUSE,
    # As without any mirror: who configured it so wants no Event about every tag. `status` says why.
    Verdict.LEFT_OUT: Action.NOTHING,
    Verdict.UNMIRRORED: Action.NOTHING,
}


@dataclass(frozen=True, slots=True)
class Replacement:
    """Whether an imported digest may become the tag's newest item."""

    allowed: bool
    only_condition: bool = False
    """The item stays as it is; only the condition goes and the generation rises."""
    again_at: float | None = None


def replacement(plan: TagPlan, digest: str, *, newest_is_ours: bool, settings: PlanSettings, now: float) -> Replacement:
    """Decide whether `digest`, which a mirror answered, replaces the tag's newest item.

    `newest_is_ours`: the newest item's Image was made by mirrorstream. What the platform itself imported is replaced only
    after the source has failed for `replace_after` seconds: a short outage must not roll a tag back to a stale mirror, and
    forward again.
    """
    if not plan.newest_image:
        return Replacement(allowed=True)
    if plan.newest_image == digest:
        return Replacement(allowed=True, only_condition=not newest_is_ours)
    due = (plan.failing_since if plan.failing_since is not None else now) + settings.replace_after
    if newest_is_ours or now >= due:
        return Replacement(allowed=True)
    return Replacement(allowed=False, again_at=due)


def failed_at(condition: Condition, now: float) -> float:
    """When the condition was set, in seconds since the epoch; `now` when it does not say."""
    return _seconds(condition.last_transition_time or "", now)


def repository_failed_at(stream: ImageStream, otherwise: float) -> float:
    """When the platform tried a whole repository and found nothing, in seconds since the epoch; `otherwise` if it does not say."""
    return _seconds(stream.annotations.repository_check, otherwise)


def _seconds(text: str, otherwise: float) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return otherwise


def _with(plan: TagPlan, action: Action | None = None, why: str | None = None, **changes: object) -> TagPlan:
    return dataclasses.replace(plan, action=action or plan.action, why=why if why is not None else plan.why, **changes)  # type: ignore[arg-type]
