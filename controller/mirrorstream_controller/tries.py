"""An import through one mirror after another, until one serves the image; on the pool's threads, so that no look at a stream waits.

What comes of it goes to two functions: what to record, or what is held back, to `on_served`, which answers whether anybody still
wants it; that no mirror served it, or that the import could not be made, to `on_failed`, with the seconds that the API server asked
for. Before each mirror's turn `interest` is asked: a tag that is edited every second while its mirror takes a minute must not fill
the pool with what nobody wants any more.
"""

import time
from collections.abc import Callable
from enum import Enum

import structlog
from mirrorstream.candidates import Candidate
from mirrorstream.kube.client import Client, ClientError
from mirrorstream.kube.errors import asked_wait
from mirrorstream.kube.limiter import ahead_of_others
from mirrorstream.policy import MirrorPolicy
from mirrorstream.settings import Settings

from mirrorstream_controller.importer import FetchedImage, Importer, ImportFailed
from mirrorstream_controller.metrics import SERVED, ControllerMetrics
from mirrorstream_controller.plan import PlanSettings, TagPlan, replacement
from mirrorstream_controller.pool import ImportPool
from mirrorstream_controller.recorder import Held, Observed, Served, TagResult
from mirrorstream_controller.reports import Reports, Tried
from mirrorstream_controller.workqueue import Key

log = structlog.get_logger(__name__)


def plan_settings(settings: Settings) -> PlanSettings:
    """The part of the configuration that plans depend on."""
    return PlanSettings(
        bypass_not_found=settings.mirrors.bypassNotFound,
        recorded_reference=settings.controller.recordedReference,
        stuck_after=settings.controller.stuckAfterSeconds,
        replace_after=settings.controller.replaceAfterSeconds,
    )


class Interest(Enum):
    """Whether somebody still wants an import whose turn has come."""

    NONE = "none"
    WANTED = "wanted"
    ASKED = "asked"
    """A user waits for it."""


class Tries:
    """Starts imports; `settings` answers the configuration as it is now."""

    def __init__(
        self,
        client: Client,
        pool: ImportPool,
        reports: Reports,
        metrics: ControllerMetrics,
        settings: Callable[[], Settings],
        *,
        interest: Callable[[Key, TagPlan], Interest],
        on_served: Callable[[Key, TagPlan, Served], bool],
        on_failed: Callable[[Key, TagPlan, float], None],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._importer = Importer(client)
        self._pool, self._reports, self._metrics, self._settings, self._now = pool, reports, metrics, settings, now
        self._interest, self._on_served, self._on_failed = interest, on_served, on_failed

    def start(self, key: Key, uid: str, plan: TagPlan, policy: MirrorPolicy, *, urgent: bool) -> None:
        """Import what `plan` is about, for the stream with this `uid`; returns at once. `urgent`: a user waits for it."""
        self._submit(key, uid, plan, policy, (), urgent)

    def hurry(self, key: Key, tag: str) -> None:
        """A user asks for an import that has been started: if it still waits for its turn, that comes now."""
        self._pool.hurry((key, tag))

    def _submit(self, key: Key, uid: str, plan: TagPlan, policy: MirrorPolicy, tried: Tried, urgent: bool) -> None:
        candidate = plan.candidates[len(tried)]
        self._pool.submit(
            key[0],
            candidate.host,
            lambda: self._try(key, uid, plan, policy, candidate, tried),
            name=(key, plan.tag),
            urgent=urgent,
        )

    def _try(self, key: Key, uid: str, plan: TagPlan, policy: MirrorPolicy, candidate: Candidate, tried: Tried) -> None:
        """Import through one candidate; the next one's turn comes when this one does not serve the image."""
        with structlog.contextvars.bound_contextvars(namespace=key[0], stream=key[1], tag=plan.tag, candidate=candidate.reference):
            if (interest := self._interest(key, plan)) is Interest.NONE:
                log.info("not imported any more, the tag was changed meanwhile")
                return
            with ahead_of_others(interest is Interest.ASKED):
                self._ask(key, uid, plan, policy, candidate, tried, urgent=interest is Interest.ASKED)

    def _ask(
        self,
        key: Key,
        uid: str,
        plan: TagPlan,
        policy: MirrorPolicy,
        candidate: Candidate,
        tried: Tried,
        *,
        urgent: bool,
    ) -> None:
        """Ask the platform, and tell what came of it."""
        try:
            fetched = self._importer.fetch(*key, plan, candidate)
            served = self._prepare(plan, policy, candidate, fetched)
        except ImportFailed as error:
            tried = (*tried, (candidate, error.failure))
            self._metrics.answered(candidate.host, error.failure.kind)
            log.info("the mirror does not serve it", failure=str(error.failure.kind), error=error.failure.message)
            if len(tried) < len(plan.candidates):
                self._submit(key, uid, plan, policy, tried, urgent)
            else:
                self._on_failed(key, plan, 0.0)
                self._reports.failed(key, uid, plan, tried)
        except ClientError as error:
            log.warning("the import could not be made", error=str(error))
            self._on_failed(key, plan, asked_wait(error))
            self._reports.not_made(key, uid, plan, error)
        except Exception:
            log.exception("the import could not be made")
            self._on_failed(key, plan, 0.0)
            self._reports.not_made(key, uid, plan, None)
        else:
            self._metrics.answered(candidate.host, SERVED)
            if not self._on_served(key, plan, served):
                log.info("the tag was changed meanwhile")
            elif isinstance(served, Held):
                self._reports.held(key, uid, served, tried)
            elif isinstance(served, Observed):
                self._reports.observed(plan, served.results)

    def _prepare(self, plan: TagPlan, policy: MirrorPolicy, candidate: Candidate, fetched: list[FetchedImage]) -> Served:
        """Create the Images of what was fetched, unless it must not replace what the tag has. Raises ClientError."""
        settings = self._settings()
        name = policy.recorded_name(plan.source, candidate, settings.controller.recordedReference)
        only_condition = False
        if plan.newest_image:
            ours = self._importer.is_ours(plan.newest_image)
            decision = replacement(plan, fetched[0].digest, newest_is_ours=ours, settings=plan_settings(settings), now=self._now())
            if not decision.allowed:
                return Held(plan, fetched[0].digest, candidate, decision.again_at or 0.0)
            only_condition = decision.only_condition
        results = tuple(
            TagResult(plan, i.tag, i.digest, f"{name}@{i.digest}", i.through, candidate.mirror_set, only_condition) for i in fetched
        )
        if settings.mode != "active":
            return Observed(results)
        if not only_condition:
            for image in fetched:
                self._importer.create_images(image, name)
        return results
