"""Which of a stream's imports go together in one request to the platform.

A group is formed when its first import has its turn in the import queue, since only then it is known how fast the mirror answers.
An import that was sent with another does nothing at its own turn. So a group takes one slot, and neither a namespace nor a mirror
gets more slots by it.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice

from mirrorstream.imagestream.model import WHOLE_REPOSITORY
from mirrorstream.kube.objects import Key
from mirrorstream.rules.candidates import Candidate
from mirrorstream.rules.policy import MirrorPolicy

from mirrorstream_controller.mirror_pace import MirrorPace
from mirrorstream_controller.plan import Fingerprint, TagPlan
from mirrorstream_controller.results import FailedCandidates

GroupKey = tuple[object, ...]
ImportName = tuple[str, Fingerprint]
"""A tag, and what its import was planned for."""


@dataclass(frozen=True, slots=True)
class ImportJob:
    """What to import, for the stream `key`, and the candidates that did not serve it."""

    key: Key
    plan: TagPlan
    policy: MirrorPolicy
    tried: FailedCandidates = ()
    alone: bool = False
    """Whether a request for it and others failed as a whole."""

    @property
    def candidate(self) -> Candidate:
        """The candidate whose turn it is."""
        return self.plan.candidates[len(self.tried)]

    @property
    def name(self) -> ImportName:
        """The tag and its plan's fingerprint. By the tag alone an obsolete import would replace the wanted one."""
        return self.plan.tag, self.plan.fingerprint

    @property
    def group(self) -> GroupKey:
        """What imports of one request have in common: the platform asks a repository with the TLS setting of its first image."""
        return (self.key, self.candidate.host, self.candidate.insecure)


class ImportGroups:
    """The imports that wait for their turn, by what they may go along with; safe to use from many threads."""

    def __init__(self, pace: MirrorPace) -> None:
        self._pace = pace
        self._lock = threading.Lock()
        self._waiting: dict[GroupKey, dict[ImportName, ImportJob]] = {}

    def add(self, job: ImportJob) -> None:
        """Let `job` go along with others until its own turn comes."""
        if not _goes_alone(job):
            with self._lock:
                self._waiting.setdefault(job.group, {})[job.name] = job

    def take(self, job: ImportJob) -> list[ImportJob]:
        """It is the turn of `job`: what goes into its request, `job` first. Empty if it went along with another."""
        if _goes_alone(job):
            return [job]
        with self._lock:
            waiting = self._waiting.get(job.group, {})
            if waiting.get(job.name) is not job:
                return []
            del waiting[job.name]
            along = list(islice(self._along(job, waiting), self._pace.most_together(job.candidate.host) - 1))
            for other in along:
                del waiting[other.name]
            if not waiting:
                del self._waiting[job.group]
        return [job, *along]

    def _along(self, job: ImportJob, waiting: Mapping[ImportName, ImportJob]) -> "filter[ImportJob]":
        """What may go along with `job`; a slow one goes alone."""
        others = () if self._pace.is_slow(job.candidate.reference) else waiting.values()
        return filter(lambda other: not self._pace.is_slow(other.candidate.reference), others)


def _goes_alone(job: ImportJob) -> bool:
    return job.alone or job.plan.tag == WHOLE_REPOSITORY
