"""What to do about each tag of a stream: a pure function of the stream, the mirror rules, the settings and the time.

Reading its result is the way to try an idea without a cluster. Whatever it needs to remember (how long an import has been
pending, since when a source fails) comes in as a History; nothing here reads a clock.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from mirrorstream.imagestream.eligibility import (
    Eligibility,
    PlatformImport,
    evaluate,
    normalised,
    recorded_name,
    repository_import,
    tag_import,
)
from mirrorstream.imagestream.failures import BYPASS_BY_DEFAULT, Bypass, Failure, FailureClass
from mirrorstream.imagestream.model import WHOLE_REPOSITORY, ImageStream, SpecTag
from mirrorstream.rules.candidates import Candidate
from mirrorstream.rules.policy import MirrorPolicy
from mirrorstream.rules.references import written_name

from mirrorstream_controller.history import History, asked_at, failed_at, repository_failed_at

if TYPE_CHECKING:
    from mirrorstream.runtime.settings import Settings

REPEATED_SECONDS = 180.0
"""Where no import counts as stuck: how long one is pending whose source failed before, until it is taken to have failed again."""

SAMPLES_SECONDS = 5.0
"""How old a failure of the samples operator's is before it is healed.

The operator reports what it sees 3 s later. A heal in between leaves the ClusterOperator openshift-samples with the reason
FailedImageImports, for no stream; 4 s after the failure it does not. Times of conditions are whole seconds.
"""


Fingerprint = tuple[object, ...]


class Action(StrEnum):
    """What the controller does about a tag."""

    NOTHING = "nothing"
    WAIT = "wait"
    IMPORT = "import"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class PlanSettings:
    """The settings that decisions depend on; durations in seconds."""

    bypass: Bypass = BYPASS_BY_DEFAULT
    recorded_reference: str = "auto"
    stuck_after: float = 180
    replace_after: float = 3600

    @staticmethod
    def of(settings: "Settings") -> "PlanSettings":
        """The part of the configuration that plans depend on."""
        return PlanSettings(
            bypass=Bypass.of(settings.mirrors),
            recorded_reference=settings.controller.recordedReference,
            stuck_after=settings.controller.stuckAfterSeconds,
            replace_after=settings.controller.replaceAfterSeconds,
        )


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
    insecure: bool = False
    pulled_insecurely: bool = False
    """Both as in PlatformImport."""
    newest_image: str = ""
    """The image that the tag points to now, by digest; empty when there is none."""
    newest_reference: str = ""
    """The reference that the tag points to now."""
    newest_created: str = ""
    """When the item with that image was made: RFC 3339 text."""
    settled: bool = True
    """Whether the newest image is known to be one of the present source, and not of one that the tag had before."""
    failing_since: float | None = None
    """Since when the source fails; a success of ours in between does not end that."""
    failed_at: float | None = None
    """When the failure that is dealt with happened, in seconds since the epoch."""
    again_at: float | None = None
    """For WAIT: when to look again, in seconds since the epoch; None: when the stream changes."""
    condition_generation: int | None = None
    retry_token: str = ""
    """The stream's retry annotation: a user who sets it waits for an attempt that begins afterwards."""

    @property
    def has_image(self) -> bool:
        """Whether pods can run the tag's image while this is not done."""
        return bool(self.newest_image) and self.settled

    @property
    def fingerprint(self) -> Fingerprint:
        """What a new attempt is worth trying for at once: everything else waits for its turn."""
        return (self.source, self.generation, self.condition_generation, self.candidates, self.action, self.settled)


def plan_stream(
    stream: ImageStream, policy: MirrorPolicy, settings: PlanSettings, history: History, now: float
) -> tuple[TagPlan, ...]:
    """Decide about every tag of `stream` that has a DockerImage source, and about its whole repository.

    Tags that are never touched (tracking tags, ImageStreamImage, `reference: true`, pushed tags) are not in the result: a
    tracking tag follows when its target is recorded.
    """
    if stream.opted_out:
        return ()
    statuses = stream.status_by_tag()
    plans = [
        _plan_tag(stream, tag, tag_import(stream, tag, statuses.get(tag.name)), policy, settings, history, now)
        for tag in stream.spec_tags
        if tag.importable
    ]
    repository = _plan_repository(stream, policy, settings, history, now)
    return (*plans, repository) if repository else tuple(plans)


def _plan_tag(
    stream: ImageStream,
    tag: SpecTag,
    platform: PlatformImport,
    policy: MirrorPolicy,
    settings: PlanSettings,
    history: History,
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
        insecure=platform.insecure,
        pulled_insecurely=platform.pulled_insecurely,
        newest_image=newest.image if newest else "",
        newest_reference=newest.docker_image_reference if newest else "",
        newest_created=(newest.created or "") if newest else "",
        settled=_is_settled(tag.name, platform.source, history.unsettled),
        condition_generation=condition.generation if condition else None,
        retry_token=stream.annotations.retry,
    )
    if platform.pending:
        since = history.pending_since.get(tag.name, now)
        before = platform.previous_failure
        limit = settings.stuck_after or (REPEATED_SECONDS if before else 0.0)
        if waiting := _still_waiting(base, since, limit, now):
            return waiting
        failure = before
        if failure is None or failure.may_be_bypassed(settings.bypass):
            failure = Failure(FailureClass.STUCK, f"no answer from the platform's import for {now - since:.0f} s")
        base = _with(base, failed_at=since + limit)
        # An edit that keeps `from` is a new import of a source that fails for long.
        since = min(since, history.failing_since.get(tag.name, since))
        return _import_or_refuse(base, failure, since, policy, settings)
    if condition is None or platform.failure is None:
        return base if newest else _with(base, why="the platform has nothing to import")
    base = _with(base, failed_at=failed_at(condition, now))
    since = min(failed_at(condition, now), history.failing_since.get(tag.name, now))
    plan = _import_or_refuse(base, platform.failure, since, policy, settings)
    return _after_the_samples_operator(plan, stream, now) if condition.last_transition_time else plan


def _after_the_samples_operator(plan: TagPlan, stream: ImageStream, now: float) -> TagPlan:
    """`plan`, put off until the samples operator has seen the failure of a tag of its own.

    A tag without an image is not put off: pods may wait for it. Nor is one that a user asked for since it failed. The API server's
    clock may be ahead by a moment; a failure that is further in the future tells nothing.
    """
    failed, asked = plan.failed_at, asked_at(stream)
    if plan.action is not Action.IMPORT or not stream.is_managed_sample or not plan.newest_image or failed is None:
        return plan
    if abs(now - failed) >= SAMPLES_SECONDS or (asked is not None and asked >= failed):
        return plan
    return _with(plan, Action.WAIT, "the samples operator has not seen the failure yet", again_at=failed + SAMPLES_SECONDS)


def _is_settled(tag: str, source: str, unsettled: Mapping[str, str]) -> bool:
    """Whether the tag's newest item is an image of `source`.

    What is known may be a moment older or younger than the stream, so the sources are compared.
    """
    return tag not in unsettled or unsettled[tag] == normalised(source)


def _plan_repository(
    stream: ImageStream, policy: MirrorPolicy, settings: PlanSettings, history: History, now: float
) -> TagPlan | None:
    """Decide about `spec.dockerImageRepository`; once there are tags of it, nothing more is done."""
    platform = repository_import(stream)
    if platform is None or platform.failure is None:
        return None
    base = TagPlan(
        WHOLE_REPOSITORY,
        Action.NOTHING,
        "",
        platform.source,
        stream.metadata.generation,
        insecure=platform.insecure,
        retry_token=stream.annotations.retry,
    )
    since = history.pending_since.get(WHOLE_REPOSITORY, now)
    if platform.pending and (waiting := _still_waiting(base, since, settings.stuck_after, now)):
        return waiting
    since = repository_failed_at(stream, since)
    base = _with(base, failed_at=since)
    return _import_or_refuse(base, platform.failure, since, policy, settings)


def _still_waiting(base: TagPlan, since: float, limit: float, now: float) -> TagPlan | None:
    """The plan to wait for the platform's pending import; None once it has been so for `limit` seconds, where 0 is never."""
    why = "the platform's import is pending"
    if not limit:
        return _with(base, Action.WAIT, why)
    if now < since + limit:
        return _with(base, Action.WAIT, why, again_at=since + limit)
    return None


def _import_or_refuse(base: TagPlan, failure: Failure, since: float, policy: MirrorPolicy, settings: PlanSettings) -> TagPlan:
    """Decide about a failed import: through which candidates, or why not."""
    evaluation = evaluate(
        policy,
        base.source,
        failure,
        insecure=base.insecure,
        bypass=settings.bypass,
        recorded_reference=settings.recorded_reference,
    )
    return _with(
        base,
        _ACTIONS[evaluation.eligibility],
        evaluation.why,
        failure=failure,
        failing_since=since,
        candidates=evaluation.candidates,
    )


def recorded_repository(plan: TagPlan, candidate: Candidate, digest: str, policy: MirrorPolicy, settings: PlanSettings) -> str:
    """The repository by which `digest`, which `candidate` served, is recorded.

    A source fails in one way now and in another then. A tag that has this image by the mirror's name already keeps it: otherwise
    its history would grow with every failure of another kind. Raises ReferenceError.
    """
    mirror = written_name(candidate.reference)
    if settings.recorded_reference == "auto" and plan.newest_reference == f"{mirror}@{digest}":
        return mirror
    return recorded_name(
        policy, plan.source, candidate, plan.failure, insecure=plan.insecure, recorded_reference=settings.recorded_reference
    )


_ACTIONS = {
    Eligibility.IMPORT: Action.IMPORT,
    Eligibility.REFUSE: Action.REFUSE,
    # As without any mirror: who configured it so wants no Event about every tag. `status` says why.
    Eligibility.SKIPPED: Action.NOTHING,
    Eligibility.UNMIRRORED: Action.NOTHING,
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

    `newest_is_ours`: mirrorstream recorded the newest item. What the platform itself imported is replaced only
    after the source has failed for `replace_after` seconds: a short outage must not roll a tag back to a stale mirror, and
    forward again. An image of another source that the tag had before is replaced at once, also if the platform imported it:
    the user asked for another one.
    """
    if not plan.newest_image or not plan.settled:
        return Replacement(allowed=True)
    if plan.newest_image == digest:
        return Replacement(allowed=True, only_condition=not newest_is_ours)
    due = (plan.failing_since if plan.failing_since is not None else now) + settings.replace_after
    if newest_is_ours or now >= due:
        return Replacement(allowed=True)
    return Replacement(allowed=False, again_at=due)


def _with(plan: TagPlan, action: Action | None = None, why: str | None = None, **changes: object) -> TagPlan:
    return dataclasses.replace(plan, action=action or plan.action, why=why if why is not None else plan.why, **changes)  # type: ignore[arg-type]
