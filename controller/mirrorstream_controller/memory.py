"""What the controller remembers of a stream between two looks at it; all of it may be lost in a restart without harm."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from mirrorstream.imagestreams import WHOLE_REPOSITORY, ImageStream, is_pending, listed_tags

from mirrorstream_controller.plan import Action, Memory, TagPlan, failed_at, repository_failed_at
from mirrorstream_controller.recorder import TagResult

OBSERVED = math.inf
"""Until when a tag is held that a mirror serves to an observer."""


@dataclass(slots=True)
class StreamMemory:
    """One stream's attempts. Times of tags are in seconds since the epoch, those of attempts on a monotonic clock."""

    uid: str
    retry: str = ""
    """The retry annotation as last seen."""
    pending: dict[str, tuple[int, float]] = field(default_factory=dict)
    """For each tag whose import is pending: at which generation, and since when."""
    failing: dict[str, tuple[float, int | None]] = field(default_factory=dict)
    """For each tag whose source fails: since when, and the generation that we healed it at, if we did."""
    tried: dict[str, tuple[object, ...]] = field(default_factory=dict)
    """The fingerprint of the plan that was last tried, refused or held, by tag."""
    held_until: dict[str, float] = field(default_factory=dict)
    """For each tag that a mirror serves and that is not recorded all the same: when it may be, or OBSERVED."""
    running: dict[str, tuple[object, ...]] = field(default_factory=dict)
    """The fingerprint of the import that runs, by tag."""
    asked: set[str] = field(default_factory=set)
    """The tags among the running ones that a user waits for."""
    hurried: bool = False
    """Whether there is a result that a user waits for: it is recorded without waiting for others."""
    results: list[TagResult] = field(default_factory=list)
    first_result: float = 0.0
    seen_failing: dict[str, float] = field(default_factory=dict)
    """The earliest time at which each tag that is not well is known to fail: a condition whose message changed is younger."""
    failures: int = 0
    next_attempt: float = 0.0

    def look(self, stream: ImageStream, now: float) -> Memory:
        """Take in the stream as it is now; what the plan needs to know of the past."""
        pending: dict[str, tuple[int, float]] = {}
        failing: dict[str, tuple[float, int | None]] = {}
        seen: dict[str, float] = {}
        statuses = stream.status_by_tag()
        for tag in stream.spec_tags:
            if not tag.importable:
                continue
            status = statuses.get(tag.name)
            generation = tag.generation or 0
            known = self.failing.get(tag.name)
            if is_pending(tag, status):
                before = self.pending.get(tag.name)
                pending[tag.name] = before if before and before[0] == generation else (generation, now)
                if known:
                    failing[tag.name] = known
                if tag.name in self.seen_failing:
                    seen[tag.name] = self.seen_failing[tag.name]
            elif status and status.failure:
                at = min(failed_at(status.failure, now), now)
                failing[tag.name] = known or (at, None)
                seen[tag.name] = min(self.seen_failing.get(tag.name, at), at)
            elif known and status and status.newest and status.newest.generation == known[1]:
                # Well only because we recorded it: the source has not answered since.
                failing[tag.name] = known
        if stream.spec.docker_image_repository and not listed_tags(stream):
            generation = stream.metadata.generation
            before = self.pending.get(WHOLE_REPOSITORY)
            pending[WHOLE_REPOSITORY] = before if before and before[0] == generation else (generation, now)
            if stream.annotations.repository_check:
                at = min(repository_failed_at(stream, now), now)
                seen[WHOLE_REPOSITORY] = min(self.seen_failing.get(WHOLE_REPOSITORY, at), at)
        self.pending, self.failing, self.seen_failing = pending, failing, seen
        return Memory({tag: since for tag, (_, since) in pending.items()}, {tag: since for tag, (since, _) in failing.items()})

    def keep_wanted(self, plans: Iterable[TagPlan], *, active: bool) -> None:
        """Drop what runs, and what was imported, for a plan that nobody has any more: a rule or the tag is another one by now.

        Of tags that are gone nothing is left: a stream whose builds have a tag each goes through thousands of them.
        """
        plans = list(plans)
        tags = {plan.tag for plan in plans}
        self.tried = {tag: fingerprint for tag, fingerprint in self.tried.items() if tag in tags}
        self.held_until = {tag: until for tag, until in self.held_until.items() if tag in tags}
        wanted = {(plan.tag, plan.fingerprint) for plan in plans if plan.action is Action.IMPORT}
        self.running = {tag: fingerprint for tag, fingerprint in self.running.items() if (tag, fingerprint) in wanted}
        self.asked &= self.running.keys()
        self.results = [r for r in self.results if active and (r.plan.tag, r.plan.fingerprint) in wanted]

    def start(self, plans: Iterable[TagPlan], *, asked: bool) -> list[str]:
        """Remember that these imports run now; with `asked`, a user waits for all that run. Those that ran already, then."""
        before = list(self.running) if asked else []
        self.running.update({plan.tag: plan.fingerprint for plan in plans})
        if asked:
            self.asked.update(self.running)
        return before

    def healed(self, result: TagResult, now: float) -> None:
        """Remember that a tag is well because of us."""
        since = result.plan.failing_since
        self.failing[result.tag] = (since if since is not None else now, result.plan.generation)
        self.tried.pop(result.plan.tag, None)
        self.held_until.pop(result.plan.tag, None)
        self.seen_failing.pop(result.tag, None)

    def failed_since(self, plan: TagPlan) -> float | None:
        """Since when the tag of `plan` is not well, in seconds since the epoch, as far back as that is known."""
        known = [since for since in (plan.failed_at, self.seen_failing.get(plan.tag)) if since is not None]
        return min(known, default=None)

    def is_due(self, plan: TagPlan, *, now: float, monotonic: float) -> bool:
        """Whether `plan` should be tried now rather than wait for its turn."""
        if plan.action is not Action.IMPORT or self.running.get(plan.tag) == plan.fingerprint:
            return False
        if self.tried.get(plan.tag) != plan.fingerprint:
            return True
        if any(result.plan.tag == plan.tag for result in self.results):
            return False  # imported already, and about to be recorded with others
        if (held := self.held_until.get(plan.tag)) is not None:
            return now >= held
        return monotonic >= self.next_attempt

    def forget_attempts(self) -> None:
        """Let everything be tried again at once."""
        self.tried.clear()
        self.held_until.clear()
        self.failures = 0
        self.next_attempt = 0.0

    @property
    def idle(self) -> bool:
        """Whether nothing needs to be remembered."""
        return not (self.pending or self.failing or self.running or self.results or self.retry)
