"""May the mirrors stand in for a source that failed, and which: one answer for the controller and for those who ask about it."""

from dataclasses import dataclass
from enum import StrEnum

from mirrorstream.imagestream.failures import (
    BYPASS_BY_DEFAULT,
    OF_SLOW_SOURCES,
    Bypass,
    Failure,
    FailureClass,
    classify,
    may_be_bypassed,
    why_not_bypassed,
)
from mirrorstream.imagestream.messages import mentions, split_aggregate
from mirrorstream.imagestream.model import Condition, ImageStream, SpecTag, StatusTag, TagEvent, is_pending, listed_tags
from mirrorstream.rules.candidates import THE_SOURCE, Candidate, SkippedMirror
from mirrorstream.rules.policy import MirrorPolicy
from mirrorstream.rules.references import parse_or_none, parse_reference, written_name
from mirrorstream.rules.resolution import Resolution


class Eligibility(StrEnum):
    """What may be done about a failed import."""

    IMPORT = "import"
    REFUSE = "refuse"
    SKIPPED = "skipped"
    """A rule covers the source, but none of its mirrors can be used: nothing to import through, and not what was meant."""
    UNMIRRORED = "unmirrored"


@dataclass(frozen=True, slots=True)
class PlatformImport:
    """How the platform's own import of a tag, or of a whole repository, stands.

    `failure` is what its condition tells. `previous_failure` is, while the import is pending, what the source had answered to
    the one before: the platform does not write the same failure twice, so a tag whose generation rises, and whose source answers as
    before, always looks as if its import were pending.

    Of the platform's parts, these take the image's registries for insecure: the allow-list if `insecure`, by the tag's import
    policy or the stream's annotation; the importer if `imported_insecurely`, by the policy alone; the internal registry if
    `pulled_insecurely`, by the annotation alone where the image may be a manifest list.
    """

    source: str
    pending: bool
    insecure: bool
    failure: Failure | None = None
    condition: Condition | None = None
    newest: TagEvent | None = None
    previous_failure: Failure | None = None
    imported_insecurely: bool = False
    pulled_insecurely: bool = False


def tag_import(stream: ImageStream, tag: SpecTag, status: StatusTag | None) -> PlatformImport:
    """How the import of an importable tag stands; while it is pending, an older failure counts for nothing."""
    imported_insecurely = tag.import_policy.insecure
    source = tag.from_.name if tag.from_ else ""
    condition, newest = (status.failure, status.newest) if status else (None, None)
    pending = is_pending(tag, status)
    failure = previous_failure = None
    if condition is not None:
        spellings = (source, normalised(source))
        if not pending:
            failure = classify(condition.reason, condition.message, spellings)
        elif any(mentions(part, spelling) for part in split_aggregate(condition.message) for spelling in spellings):
            # A message about another source tells nothing about this one.
            previous_failure = classify(condition.reason, condition.message, spellings)
    return PlatformImport(
        source,
        pending,
        insecure=imported_insecurely or stream.is_insecure,
        failure=failure,
        condition=condition,
        newest=newest,
        previous_failure=previous_failure,
        imported_insecurely=imported_insecurely,
        pulled_insecurely=tag.import_policy.is_pulled_insecurely or stream.is_insecure,
    )


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
    return PlatformImport(source, not stream.annotations.repository_check, stream.is_insecure, failure)


UNCOVERED = "no mirror covers the source"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The eligibility, its reason in one sentence, and what to import through: only candidates that may be recorded."""

    eligibility: Eligibility
    why: str
    candidates: tuple[Candidate, ...] = ()
    skipped_mirrors: tuple[SkippedMirror, ...] = ()
    """The mirrors that cannot be used, where there is no other."""


def makes_room(kind: FailureClass, found: Resolution, bypass: Bypass) -> bool:
    """Whether a failure of this class makes room for the mirrors of what `found` resolves.

    Importers of releases without the fix of OCPBUGS-44432 refuse the whole host of a NeverContactSource rule as blocked. That is
    the normal disconnected cluster; what registrySources blocks, or an allow-list leaves out, is refused for that.
    """
    if kind is not FailureClass.FORBIDDEN:
        return may_be_bypassed(kind, bypass)
    return found.host_is_never_contacted


def evaluate(
    policy: MirrorPolicy,
    source: str,
    failure: Failure,
    *,
    insecure: bool = False,
    bypass: Bypass = BYPASS_BY_DEFAULT,
    recorded_reference: str = "auto",
) -> Evaluation:
    """Decide about the failed import of `source`, as the user wrote it.

    `insecure` as in PlatformImport: the allow-list depends on it.
    """
    if (reference := parse_or_none(source)) is None:
        return Evaluation(Eligibility.UNMIRRORED, UNCOVERED)
    found = policy.resolve(reference)
    candidates = found.candidates
    unusable = tuple(mirror for mirror in found.skipped_mirrors if mirror.reason != THE_SOURCE)
    if not candidates and unusable:
        reasons = "; ".join(f"{mirror.reference}: {mirror.reason}" for mirror in unusable)
        return Evaluation(Eligibility.SKIPPED, f"every mirror is skipped: {reasons}", skipped_mirrors=unusable)
    if not candidates:
        # First: a user without a mirror for an image asked for nothing, and wants no Event about it.
        return Evaluation(Eligibility.UNMIRRORED, UNCOVERED)
    if not makes_room(failure.kind, found, bypass):
        return Evaluation(Eligibility.REFUSE, why_not_bypassed(failure))
    if found.refusal:
        return Evaluation(Eligibility.REFUSE, found.refusal)
    if not policy.import_allowed(source, insecure=insecure):
        return Evaluation(Eligibility.REFUSE, _not_allowed(source))
    recordable = tuple(
        candidate
        for candidate in candidates
        if recorded_name(policy, source, candidate, failure, insecure=insecure, recorded_reference=recorded_reference)
        == written_name(source)
        or policy.import_allowed(candidate.reference, insecure=insecure)
    )
    if not recordable:
        return Evaluation(Eligibility.REFUSE, _not_allowed(candidates[0].reference))
    return Evaluation(Eligibility.IMPORT, f"the platform's import failed ({failure.kind})", recordable)


def recorded_name(
    policy: MirrorPolicy,
    source: str,
    candidate: Candidate,
    failure: Failure | None,
    *,
    insecure: bool = False,
    recorded_reference: str = "auto",
) -> str:
    """The repository, without tag or digest, that goes into a tag's history for an image that `candidate` served.

    It is what the rules say (`Resolution.recorded_name`), but for a source that timed out: the internal registry asks the source
    for every blob before the mirror, 10 s each, so with `auto` the mirror's own name is recorded where the registry and the nodes
    can use it. By the name of a mirror without TLS in insecureRegistries the registry cannot pull, but nodes can, and pods get
    that digest at once. `insecure` as for `evaluate`. Raises ReferenceError if `source` does not parse.
    """
    if recorded_reference == "auto" and failure is not None and failure.kind in OF_SLOW_SOURCES:
        found = policy.resolve(parse_reference(candidate.reference))
        if (
            not policy.registry_problem(found.reference, insecure=found.is_insecure_natively(insecure=insecure))
            and policy.import_allowed(candidate.reference, insecure=insecure)
            # A node looks up the name in the pod's spec: it may allow the source's and reject the mirror's.
            and not found.refusal
        ):
            return written_name(candidate.reference)
    return policy.resolve(parse_reference(source)).recorded_name(source, candidate, recorded_reference)


def _not_allowed(reference: str) -> str:
    host = reference.split("/", 1)[0]
    return f"{host} is not in spec.allowedRegistriesForImport of the Image config, so {reference} must not be recorded"


def normalised(source: str) -> str:
    """`source` with everything defaulted; as it is where it does not parse."""
    return str(parse_or_none(source) or source)
