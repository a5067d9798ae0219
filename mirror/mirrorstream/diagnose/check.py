"""Which tags would survive without their sources: what the rules let mirrorstream import, and what the mirrors answered.

A tag is asked for as the controller would: through its candidates in order, with dry runs in its namespace, until one serves it.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from mirrorstream.diagnose.causes import (
    NO_RULE,
    Group,
    Subject,
    answers_cause,
    as_cause,
    grouped,
    refusal_cause,
    rule_helps,
)
from mirrorstream.diagnose.missing import Absence, MissingImage, full_name, merged
from mirrorstream.diagnose.tag_status import OBSERVES, ControllerView
from mirrorstream.imagestream.dry_run import dry_run, image_request, repository_request
from mirrorstream.imagestream.eligibility import UNCOVERED, Eligibility, PlatformImport, tag_import
from mirrorstream.imagestream.failures import Failure, FailureClass
from mirrorstream.imagestream.messages import brief
from mirrorstream.imagestream.model import (
    WHOLE_REPOSITORY,
    ImageStream,
    SpecTag,
    followed_tag,
    followers_of,
    follows,
    listed_tags,
)
from mirrorstream.imagestream.outcomes import CandidateAnswer, absent_everywhere
from mirrorstream.rules.candidates import Candidate
from mirrorstream.rules.policy import MirrorPolicy
from mirrorstream.rules.references import parse_reference
from mirrorstream.text.sanitize import one_line

GONE = Failure(FailureClass.UNREACHABLE, "the source cannot be asked")
"""What is assumed of every source."""


class Fate(StrEnum):
    """What becomes of a tag without its source."""

    SURVIVES = "survives"
    """A mirror serves its image, and is used."""
    LOST = "lost"
    """No mirror covers it, or may stand in for it, or serves it, or mirrorstream only observes."""
    UNKNOWN = "unknown"
    """A mirror was not asked, and no other serves it."""


class Skipped(StrEnum):
    """Why a tag is not asked for; the values are the fields of the summary."""

    REFERENCE = "reference"
    IMAGE = "imageStreamImage"
    PUSHED = "pushed"
    OTHER_STREAM = "otherStream"
    NOTHING = "followsNothing"


@dataclass(frozen=True, slots=True)
class TagCheck:
    """An importable tag, or with an empty `tag` a whole repository that has no tag yet, and what is known of its fate."""

    namespace: str
    stream: str
    tag: str
    source: str
    candidates: tuple[Candidate, ...] = ()
    why: str = ""
    """Why no mirror is asked, or, with candidates, why their answers are not known."""
    covered: bool = False
    """Whether a rule covers the source."""
    usable: bool = True
    """Whether a mirror may stand in: the source is not blocked, say."""
    unknown: bool = False
    """Whether a candidate could not be asked, for the reason `why`."""
    import_mode: str = ""
    now: str = ""
    """The failure that it has now, if mirrorstream does not bypass it."""
    digest: str = ""
    """The image that it has now; empty if that was imported from another `from`, or is not known."""
    served: str = ""
    """The digest that a mirror served."""
    answers: tuple[CandidateAnswer, ...] = ()
    idle: frozenset[str] = frozenset()
    """The references that mirrorstream would import it through, but that nobody does while it only observes."""
    followers: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """`namespace/stream:tag`, or `namespace/stream` for a whole repository."""
        return f"{self.namespace}/{self.stream}" + (f":{self.tag}" if self.tag else "")

    @property
    def through(self) -> str:
        """The candidate that served it; empty if none did."""
        return self.answers[-1].reference if self.served else ""

    @property
    def lacks_rule(self) -> bool:
        """Whether no mirror was asked, since no rule covers it."""
        return self.why == NO_RULE

    @property
    def next_candidate(self) -> Candidate | None:
        """The candidate to be asked now; None if nothing is left to ask."""
        asked = len(self.answers)
        return self.candidates[asked] if asked < len(self.candidates) and not self.served else None

    @property
    def fate(self) -> Fate:
        """What becomes of it."""
        if self.served:
            return Fate.LOST if self.through in self.idle else Fate.SURVIVES
        return Fate.UNKNOWN if self.unknown else Fate.LOST

    @property
    def reason(self) -> str:
        """Why it would not survive, or why that is not known; empty if it survives."""
        if self.served:
            return f"{self.through} serves it, but {OBSERVES}" if self.through in self.idle else ""
        if self.why or not self.answers:
            return self.why
        if absent_everywhere(self.answers):
            return "no mirror has it" if len(self.answers) > 1 else "the mirror does not have it"
        worst = next(answer for answer in self.answers if answer.failure != FailureClass.NOT_FOUND)
        return f"{worst.reference} does not serve it: {worst.failure}" + (f": {worst.message}" if worst.message else "")

    @property
    def remark(self) -> str:
        """What to know of a tag that survives; empty if there is nothing."""
        parts = []
        if self.now:
            parts.append(f"not while its import fails as it does now ({self.now}), which mirrorstream does not bypass")
        if self.digest and self.served != self.digest and self.tag:
            parts.append(f"with another image: it has {self.digest}, {self.through} has {self.served}")
        return "; ".join(parts)

    def request(self, candidate: Candidate) -> dict[str, Any]:
        """The dry run that asks `candidate`."""
        if self.tag == WHOLE_REPOSITORY:
            return dry_run(self.namespace, self.stream, repository_request(candidate))
        return dry_run(self.namespace, self.stream, {"images": [image_request(self.tag, candidate, import_mode=self.import_mode)]})

    def answered(self, candidate: Candidate, found: str | Failure) -> "TagCheck":
        """The check after `candidate`, the next one, served a digest, or did not."""
        failure, message = ("", "") if isinstance(found, str) else (str(found.kind), one_line(brief(found.message)))
        answer = CandidateAnswer(candidate.reference, candidate.mirror_set, failure, message)
        return dataclasses.replace(self, answers=(*self.answers, answer), served=found if isinstance(found, str) else "")

    def not_asked(self, candidate: Candidate, why: str) -> "TagCheck":
        """The check after `candidate`, the next one, could not be asked."""
        others = tuple(other for other in self.candidates if other is not candidate)
        return dataclasses.replace(self, unknown=True, why=why, candidates=others)

    def document(self) -> dict[str, Any]:
        """The JSON and YAML form."""
        return {
            "namespace": self.namespace,
            "stream": self.stream,
            "tag": self.tag,
            "source": self.source,
            "fate": str(self.fate),
            "why": self.reason,
            "remark": self.remark if self.fate is Fate.SURVIVES else "",
            "through": self.through,
            "digest": self.served,
            "candidates": [answer.document() for answer in self.answers],
            "followers": list(self.followers),
        }


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The whole answer; `namespace` is None for all, and for files."""

    namespace: str | None
    streams: int
    tags: tuple[TagCheck, ...]
    skipped: Mapping[Skipped, int]
    notes: tuple[str, ...] = ()
    hosted: bool = False
    """Whether it is a hosted cluster, in which nobody may create mirror sets."""

    @property
    def counts(self) -> dict[Fate, int]:
        """How many tags have each fate."""
        found = Counter(tag.fate for tag in self.tags)
        return {fate: found[fate] for fate in Fate}

    def document(self) -> dict[str, Any]:
        """The JSON and YAML form."""
        skipped = {str(kind): self.skipped.get(kind, 0) for kind in Skipped}
        tags = {str(fate): count for fate, count in self.counts.items()}
        return {
            "namespace": self.namespace,
            "summary": {"streams": self.streams, "tags": tags, "skipped": skipped},
            "tags": [tag.document() for tag in self.tags],
            "notes": list(self.notes),
        }


def checks_of(stream: ImageStream, policy: MirrorPolicy, view: ControllerView) -> Iterator[TagCheck]:
    """The tags of `stream` that are to be asked for, each with the candidates that the controller would import it through."""
    direct, statuses = follows(stream), stream.status_by_tag()
    for tag in stream.spec_tags:
        if tag.importable:
            platform = tag_import(stream, tag, statuses.get(tag.name))
            followers = tuple(followers_of(direct, tag.name))
            more = {"import_mode": tag.import_policy.import_mode, "followers": followers}
            yield _check(stream, tag.name, platform, policy, view, **more)
    repository = stream.spec.docker_image_repository
    if repository and not listed_tags(stream):
        yield _check(stream, WHOLE_REPOSITORY, PlatformImport(repository, False, stream.is_insecure), policy, view)


def _check(
    stream: ImageStream, tag: str, platform: PlatformImport, policy: MirrorPolicy, view: ControllerView, **more: Any
) -> TagCheck:
    evaluation = view.judge(policy, platform.source, GONE, insecure=platform.insecure)
    candidates, why, idle = evaluation.candidates, "", frozenset[str]()
    kept_away = view.kept_away(stream)
    if evaluation.eligibility is not Eligibility.IMPORT:
        why = NO_RULE if evaluation.why == UNCOVERED else evaluation.why
    elif kept_away:
        candidates = _native(tag, platform, policy)
        why = "" if candidates else f"mirrorstream leaves it to the platform: {kept_away}"
    elif view.observing:
        idle = frozenset(c.reference for c in set(candidates).difference(_native(tag, platform, policy)))
    now = ""
    if platform.failure and evaluation.eligibility is Eligibility.IMPORT:
        present = view.judge(policy, platform.source, platform.failure, insecure=platform.insecure)
        now = str(platform.failure.kind) if present.eligibility is Eligibility.REFUSE else ""
    settled = platform.newest is not None and platform.failure is None and not platform.pending
    return TagCheck(
        stream.metadata.namespace,
        stream.metadata.name,
        tag,
        platform.source,
        candidates,
        why,
        covered=evaluation.eligibility is not Eligibility.UNMIRRORED,
        usable=evaluation.eligibility is not Eligibility.REFUSE and (bool(candidates) or not kept_away),
        now=now,
        digest=platform.newest.image if platform.newest and settled else "",
        idle=idle,
        **more,
    )


def _native(tag: str, platform: PlatformImport, policy: MirrorPolicy) -> tuple[Candidate, ...]:
    """What the platform imports through without mirrorstream; it lists a whole repository's tags at the source only."""
    if tag == WHOLE_REPOSITORY:
        return ()
    return policy.resolve(parse_reference(platform.source)).native_candidates(insecure=platform.imported_insecurely)


def skipped_tags(stream: ImageStream) -> Counter[Skipped]:
    """How many tags of `stream` are not asked for, by the reason; those that follow an importable tag share its fate."""
    direct = follows(stream)
    following = {name for tag in stream.spec_tags if tag.importable for name in followers_of(direct, tag.name)}
    found = Counter(kind for tag in stream.spec_tags if (kind := _skipped(stream, tag, following)))
    listed = listed_tags(stream) if stream.spec.docker_image_repository else []
    known = {tag.name for tag in stream.spec_tags} | set(listed)
    found[Skipped.PUSHED] += sum(1 for tag in stream.status.tags or () if tag.items and tag.tag not in known)
    return found


def _skipped(stream: ImageStream, tag: SpecTag, following: set[str]) -> Skipped | None:
    if tag.importable:
        return None
    if tag.reference:
        return Skipped.REFERENCE
    if tag.from_ is None:
        return Skipped.PUSHED
    if tag.from_.kind == "ImageStreamImage":
        return Skipped.IMAGE
    if followed_tag(stream.metadata.name, stream.metadata.namespace, tag) is None:
        return Skipped.OTHER_STREAM
    return None if tag.name in following else Skipped.NOTHING


def check_groups(checks: Iterable[TagCheck], *, hosted: bool = False) -> list[Group]:
    """The tags that would not survive, or of which that is not known, by cause; `hosted` as for `rule_helps`."""
    return grouped(
        (as_cause(str(check.fate), *_cause(check, hosted=hosted)), Subject(check.name, check.namespace))
        for check in checks
        if check.fate is not Fate.SURVIVES
    )


def _cause(check: TagCheck, *, hosted: bool) -> tuple[str, str]:
    if check.served:
        return f"a mirror serves it, but {OBSERVES}", "mode: active"
    if check.unknown:
        return check.why, "run `mirrorstream check` again, with the missing permission or when the server answers"
    if check.answers:
        return answers_cause(check.answers, check.tag, "check")
    if check.lacks_rule:
        return NO_RULE, rule_helps(hosted=hosted)
    return refusal_cause(check.why)


def missing_of(checks: Iterable[TagCheck]) -> list[MissingImage]:
    """The images of tags that would not survive for want of an image in the mirrors, as `missing` has them.

    Not those that no mirror may stand in for: nobody asked a mirror for them.
    """
    return merged(
        MissingImage(
            full_name(check.source, repository=check.tag == WHOLE_REPOSITORY),
            _absence(check),
            check.reason,
            (check.name,),
            check.tag == WHOLE_REPOSITORY,
            check.answers,
            check.covered,
        )
        for check in checks
        if not check.served and check.usable
    )


def _absence(check: TagCheck) -> Absence:
    absent = absent_everywhere(check.answers) or not check.covered
    return Absence.MISSING if absent and not check.unknown else Absence.UNKNOWN
