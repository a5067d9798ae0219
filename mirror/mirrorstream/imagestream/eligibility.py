"""May the mirrors stand in for a source that failed, and which: one answer for the controller and for those who ask about it."""

from dataclasses import dataclass
from enum import StrEnum

from mirrorstream.candidates import THE_SOURCE, Candidate, LeftOut
from mirrorstream.failures import Failure, FailureClass, classify, mentions
from mirrorstream.imagestreams import Condition, ImageStream, SpecTag, StatusTag, TagEvent, is_pending, listed_tags
from mirrorstream.policy import MirrorPolicy
from mirrorstream.references import ReferenceError, parse_reference, written_name


class Verdict(StrEnum):
    """What may be done about a failed import."""

    IMPORT = "import"
    REFUSE = "refuse"
    LEFT_OUT = "left-out"
    """A rule covers the source, but none of its mirrors can be used: nothing to import through, and not what was meant."""
    UNMIRRORED = "unmirrored"


@dataclass(frozen=True, slots=True)
class PlatformImport:
    """How the platform's own import of a tag, or of a whole repository, stands.

    `failure` is what its condition tells. `said_before` is, while the import is pending, what the source had answered to the one
    before: the platform does not write the same failure twice, so a tag whose generation rises, and whose source answers as
    before, looks as if its import were pending for ever.
    """

    source: str
    pending: bool
    insecure: bool
    failure: Failure | None = None
    condition: Condition | None = None
    newest: TagEvent | None = None
    said_before: Failure | None = None


def tag_import(tag: SpecTag, status: StatusTag | None) -> PlatformImport:
    """How the import of an importable tag stands; while it is pending, an older failure counts for nothing."""
    source = tag.from_.name if tag.from_ else ""
    condition, newest = (status.failure, status.newest) if status else (None, None)
    pending = is_pending(tag, status)
    failure = said_before = None
    if condition is not None:
        spellings = (source, normalised(source))
        if not pending:
            failure = classify(condition.reason, condition.message, spellings)
        elif any(mentions(condition.message, spelling) for spelling in spellings):
            # A message about another source tells nothing about this one.
            said_before = classify(condition.reason, condition.message, spellings)
    return PlatformImport(source, pending, tag.import_policy.insecure, failure, condition, newest, said_before)


def repository_import(stream: ImageStream) -> PlatformImport | None:
    """How the import of the stream's whole repository stands; None if there is none, or there are tags of it.

    The platform tries it once, writes no condition and never tries again, so a stream that has been checked and has no tag in
    its status is the only sign of a failure. (A stream that has tags of other repositories in its spec by hand may have them in
    its status.)
    """
    source = stream.spec.docker_image_repository
    if not source or listed_tags(stream):
        return None
    failure = Failure(FailureClass.UNKNOWN, "the platform's import of the repository left no tag")
    insecure = stream.annotations.insecure_repository == "true"
    return PlatformImport(source, not stream.annotations.repository_check, insecure, failure)


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict, its reason in one sentence, and what to import through: only candidates that may be recorded."""

    verdict: Verdict
    why: str
    candidates: tuple[Candidate, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    """The mirrors that cannot be used, where there is no other."""


def judge(
    policy: MirrorPolicy,
    source: str,
    failure: Failure,
    *,
    insecure: bool = False,
    bypass_not_found: bool = False,
    recorded_reference: str = "auto",
) -> Judgement:
    """Decide about the failed import of `source`, as the user wrote it.

    `insecure` is the tag's import policy, or the stream's for a whole repository: the allow-list depends on it.
    """
    candidates, left_out = policy.assess(source) if parses(source) else ([], [])
    unusable = tuple(mirror for mirror in left_out if mirror.reason != THE_SOURCE)
    if not candidates and unusable:
        reasons = "; ".join(f"{mirror.reference}: {mirror.reason}" for mirror in unusable)
        return Judgement(Verdict.LEFT_OUT, f"every mirror is left out: {reasons}", left_out=unusable)
    if not candidates:
        # Said first: whoever has no mirror for an image did not ask for anything, and wants no Event about it.
        return Judgement(Verdict.UNMIRRORED, "no mirror covers the source")
    if not failure.may_be_bypassed(bypass_not_found=bypass_not_found):
        return Judgement(Verdict.REFUSE, f"the failure ({failure.kind}) must not be bypassed: {failure.message}")
    if refusal := policy.refusal(source):
        return Judgement(Verdict.REFUSE, refusal)
    if not policy.import_allowed(source, insecure=insecure):
        return Judgement(Verdict.REFUSE, _not_allowed(source))
    # The same for all of them: asked for each candidate, it would go through all mirrors again.
    by_source = policy.records_the_source(source, recorded_reference)
    recordable = tuple(
        candidate
        for candidate in candidates
        if by_source
        or written_name(candidate.reference) == written_name(source)
        or policy.import_allowed(candidate.reference, insecure=insecure)
    )
    if not recordable:
        return Judgement(Verdict.REFUSE, _not_allowed(candidates[0].reference))
    return Judgement(Verdict.IMPORT, f"the platform's import failed ({failure.kind})", recordable)


def _not_allowed(reference: str) -> str:
    host = reference.split("/", 1)[0]
    return f"{host} is not in spec.allowedRegistriesForImport of the Image config, so {reference} must not be recorded"


def normalised(source: str) -> str:
    """`source` with everything defaulted; as it is where it does not parse."""
    return str(parse_reference(source)) if parses(source) else source


def parses(source: str) -> bool:
    """Whether `source` is a pull spec."""
    try:
        parse_reference(source)
    except ReferenceError:
        return False
    return True
