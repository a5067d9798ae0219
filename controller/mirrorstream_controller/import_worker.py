"""An import through one mirror after another, until one serves the image; on the queue's threads, so that no reconcile waits.

What comes of it goes to `on_done`, which answers whether the result is still wanted. Before each mirror's turn the worker asks
whether there is still demand: a tag that is edited every second while its mirror takes a minute must not fill the queue with
imports that are not wanted any more.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence

import structlog
from mirrorstream.imagestream.failures import Failure
from mirrorstream.imagestream.recorded import is_ours
from mirrorstream.kube.client import ApiError, Client, ClientError
from mirrorstream.kube.errors import retry_after_seconds
from mirrorstream.kube.objects import Key
from mirrorstream.kube.ratelimit import prioritized
from mirrorstream.runtime.settings import Settings

from mirrorstream_controller.images import Images
from mirrorstream_controller.import_groups import ImportGroups, ImportJob
from mirrorstream_controller.import_queue import ImportQueue
from mirrorstream_controller.importer import Answer, FetchedImage, Importer
from mirrorstream_controller.item_times import ItemTimes
from mirrorstream_controller.metrics import SERVED, ControllerMetrics
from mirrorstream_controller.mirror_pace import MirrorPace
from mirrorstream_controller.plan import PlanSettings, TagPlan, recorded_repository, replacement
from mirrorstream_controller.results import (
    FailedImport,
    FetchedImport,
    HeldImport,
    ImportResult,
    ObservedImport,
    TagResult,
    UnmadeImport,
)
from mirrorstream_controller.stream_state import Demand

log = structlog.get_logger(__name__)


class ImportWorker:
    """Runs imports; `settings` answers the configuration as it is now."""

    def __init__(
        self,
        client: Client,
        imports: ImportQueue,
        metrics: ControllerMetrics,
        settings: Callable[[], Settings],
        *,
        demand: Callable[[Key, TagPlan], Demand],
        on_done: Callable[[Key, ImportResult], bool],
        now: Callable[[], float] = time.time,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`now` is what decisions go by, and `wall` what items are dated with, both in seconds since the epoch."""
        self._importer, self._images = Importer(client), Images(client)
        self._times = ItemTimes(wall)
        self._pace = MirrorPace()
        self._groups = ImportGroups(self._pace)
        self._imports, self._metrics, self._settings, self._now = imports, metrics, settings, now
        self._demand, self._on_done = demand, on_done

    def start(self, jobs: Sequence[ImportJob], *, priority: bool) -> None:
        """Import each when its turn comes, some of them together; returns at once. `priority`: a user waits for them."""
        for job in jobs:
            self._groups.add(job)
        for job in jobs:
            run, name = functools.partial(self._run, job), (job.key, job.plan.tag)
            try:
                self._imports.submit(job.key[0], job.candidate.host, run, name=name, priority=priority, renews=job.plan.has_image)
            except Exception:
                # No thread, say. A tag that counted as running would never be tried again.
                log.exception("import failed to start, will retry", tag=job.plan.tag)
                self._done(job, UnmadeImport(job.plan, job.tried))

    def raise_priority(self, key: Key, tag: str) -> None:
        """A user waits for an import that has been started: if it is still queued, its turn comes now."""
        self._imports.raise_priority((key, tag))

    def forget(self, key: Key, result: TagResult) -> None:
        """The stream has the result's item, or is not to get it."""
        self._times.forget(key, result.tag, result.digest)

    def _run(self, job: ImportJob) -> None:
        """Import through one candidate, with what goes along; the next candidate's turn comes when this one does not serve it."""
        with structlog.contextvars.bound_contextvars(namespace=job.key[0], stream=job.key[1]):
            demands = [(each, self._demand(each.key, each.plan)) for each in self._groups.take(job)]
            for each, demand in demands:
                if demand is Demand.NONE:
                    _log_skipped(each)
            if jobs := [each for each, demand in demands if demand is not Demand.NONE]:
                with prioritized(any(demand is Demand.PRIORITY for _, demand in demands)):
                    self._import(jobs)

    def _import(self, jobs: list[ImportJob]) -> None:
        key, host = jobs[0].key, jobs[0].candidate.host
        try:
            answers, seconds = self._importer.fetch(*key, [(job.plan, job.candidate) for job in jobs])
        except ClientError as error:
            self._request_failed(jobs, error)
        except Exception:
            log.exception("import failed unexpectedly", tags=[job.plan.tag for job in jobs])
            self._request_failed(jobs, None)
        else:
            self._pace.answered(host, [job.candidate.reference for job in jobs], seconds)
            for job, answer in zip(jobs, answers, strict=True):
                self._take_in(job, answer)

    def _request_failed(self, jobs: list[ImportJob], error: ClientError | None) -> None:
        """The request was not carried out: each tag is asked for alone, so that what is wrong with one costs the others nothing."""
        if len(jobs) == 1 or (isinstance(error, ApiError) and error.status == 429):
            for job in jobs:
                self._not_made(job, error)
            return
        log.info("import request failed, importing each tag alone", tags=[job.plan.tag for job in jobs], error=str(error))
        self._pace.lost(jobs[0].candidate.host)
        for job in jobs:
            self._go_on(dataclasses.replace(job, alone=True))

    def _go_on(self, job: ImportJob) -> None:
        """Its next request, if it is still wanted; a user may have asked for it during the last one."""
        demand = self._demand(job.key, job.plan)
        if demand is Demand.NONE:
            _log_skipped(job)
        else:
            self.start([job], priority=demand is Demand.PRIORITY)

    def _take_in(self, job: ImportJob, answer: Answer) -> None:
        """Go on with what a mirror answered. Raises nothing: those that it was asked for with have their turn next."""
        with structlog.contextvars.bound_contextvars(tag=job.plan.tag, candidate=job.candidate.reference):
            try:
                if isinstance(answer, Failure):
                    self._not_served(job, answer)
                else:
                    self._served(job, answer)
            except ClientError as error:
                self._not_made(job, error)
            except Exception:
                log.exception("import failed unexpectedly")
                self._not_made(job, None)

    def _not_served(self, job: ImportJob, failure: Failure) -> None:
        """The next candidate's turn comes, if there is one."""
        self._metrics.answered(job.candidate.host, failure.kind)
        log.info("mirror does not serve the image", failure=str(failure.kind), error=failure.message)
        job = dataclasses.replace(job, tried=(*job.tried, (job.candidate, failure)), alone=False)
        if len(job.tried) < len(job.plan.candidates):
            self._go_on(job)
        else:
            self._done(job, FailedImport(job.plan, job.tried))

    def _served(self, job: ImportJob, fetched: list[FetchedImage]) -> None:
        result = self._prepare(job, fetched)
        self._metrics.answered(job.candidate.host, SERVED)
        self._done(job, result)

    def _not_made(self, job: ImportJob, error: ClientError | None) -> None:
        """The API server did not let us import, could not be asked, or we failed."""
        if error is None:
            self._done(job, UnmadeImport(job.plan, job.tried))
            return
        log.warning("import request failed", tag=job.plan.tag, error=str(error))
        refusal = str(error) if isinstance(error, ApiError) and error.status < 500 else ""
        self._done(job, UnmadeImport(job.plan, job.tried, retry_after_seconds(error), refusal))

    def _done(self, job: ImportJob, result: ImportResult) -> None:
        if not self._on_done(job.key, result):
            log.info("dropping import result: tag changed during the import", tag=job.plan.tag)
            for dropped in result.results if isinstance(result, FetchedImport) else ():
                self.forget(job.key, dropped)

    def _prepare(self, job: ImportJob, fetched: list[FetchedImage]) -> ImportResult:
        """Create the Images of what was fetched, unless it must not replace what the tag has. Raises ClientError."""
        plan, candidate, current = job.plan, job.candidate, self._settings()
        active, settings = current.mode == "active", PlanSettings.of(current)
        name = recorded_repository(plan, candidate, fetched[0].digest, job.policy, settings)
        only_condition, kept, noted = False, "", frozenset[str]()
        if plan.newest_image:
            recorded = self._images.recorded(plan.newest_image)
            ours = is_ours(plan.newest_created, recorded)
            decision = replacement(plan, fetched[0].digest, newest_is_ours=ours, settings=settings, now=self._now())
            if not decision.allowed:
                return HeldImport(plan, fetched[0].digest, candidate, decision.again_at or 0.0, job.tried)
            only_condition = decision.only_condition
            if ours and plan.newest_image == fetched[0].digest:
                # The item stays, so an Image that was deleted gets it again. Of one that has it, and of its parts, a user who asks
                # gets what is gone.
                kept = plan.newest_created
                noted = frozenset() if self._demand(job.key, plan) is Demand.PRIORITY else frozenset(recorded or ())
        results: list[TagResult] = []
        for image in fetched:
            created, items = kept, noted
            if active and not only_condition and not noted:
                created = kept or self._times.of(job.key, image.tag, image.digest)
                items = self._images.create(image, name, created)
            reference = plan.newest_reference if only_condition else f"{name}@{image.digest}"
            results.append(TagResult(plan, image.tag, image.digest, reference, image.through, candidate.mirror_set, created, items))
        return FetchedImport(plan, tuple(results)) if active else ObservedImport(plan, tuple(results))


def _log_skipped(job: ImportJob) -> None:
    log.info("skipping import: tag changed while queued", tag=job.plan.tag)
