"""How each tag of a stream stands: a pure function of the stream, the mirror rules, the Events and the Images.

Who asks may see less than the controller does. `policy` is None for those who may not list the mirror sets: then no tag can be told
to be without a mirror, or refused, but by an Event.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from mirrorstream.diagnose.serving import serving_warnings
from mirrorstream.imagestream.eligibility import Eligibility, Evaluation, PlatformImport, evaluate, repository_import, tag_import
from mirrorstream.imagestream.failures import BYPASS_BY_DEFAULT, Bypass, Failure, FailureClass
from mirrorstream.imagestream.model import (
    WHOLE_REPOSITORY,
    ImageStream,
    ImportPolicy,
    SpecTag,
    StatusTag,
    TagEvent,
    followers_of,
    follows,
    listed_tags,
)
from mirrorstream.imagestream.outcomes import AttemptHistory, AttemptResult, CandidateAnswer, ReportedAttempt, attempt_document
from mirrorstream.rules.candidates import Candidate, SkippedMirror
from mirrorstream.rules.policy import MirrorPolicy
from mirrorstream.rules.references import parse_or_none

if TYPE_CHECKING:
    from mirrorstream.runtime.settings import Settings


class State(StrEnum):
    """How a tag stands; `status` exits 3 for those that are BROKEN."""

    FAILING = "failing"
    """The import fails, a mirror covers the source, and mirrorstream retries, unless `why` says that it does not."""
    REFUSED = "refused"
    """The import fails, a mirror covers the source, and must not or cannot stand in: somebody has to act."""
    HELD = "held"
    """The import fails, a mirror has another image, and the tag keeps its own until the source has failed for long enough."""
    UNMIRRORED = "unmirrored"
    """The import fails, and no mirror covers the source: not mirrorstream's business."""
    OPTED_OUT = "opted-out"
    """The import fails, and the stream, or the configuration, keeps mirrorstream away from it."""
    PENDING = "pending"
    """The platform has not finished its own import."""
    HEALED = "healed"
    """Its image came through a mirror."""
    IMPORTED = "imported"
    """Its image came from the platform's own import, or it is not known whence."""


BROKEN = (State.FAILING, State.REFUSED, State.HELD)
Item = tuple[str, str]
"""An item of a tag: its image by digest, and when it was made."""
OBSERVES = "mirrorstream observes only (mode: observe)"


@dataclass(frozen=True, slots=True)
class ControllerView:
    """What decisions depend on besides stream and rules: the controller's configuration, as far as it is known."""

    tags_through_digest_mirrors: bool = True
    bypass: Bypass = BYPASS_BY_DEFAULT
    recorded_reference: str = "auto"
    covers: Callable[[str], bool] = lambda namespace: True
    """Whether the controller manages a namespace."""
    observing: bool = False
    """Whether the controller only says what it would do."""

    @staticmethod
    def of(settings: "Settings") -> "ControllerView":
        """What the configuration says."""
        return ControllerView(
            tags_through_digest_mirrors=settings.mirrors.tagsThroughDigestMirrors,
            bypass=Bypass.of(settings.mirrors),
            recorded_reference=settings.controller.recordedReference,
            covers=settings.controller.namespaces.cover,
            observing=settings.mode == "observe",
        )

    def judge(self, policy: MirrorPolicy, source: str, failure: Failure, *, insecure: bool) -> Evaluation:
        """Whether the controller would import the failed `source` through mirrors; `insecure` as in PlatformImport."""
        return evaluate(
            policy,
            source,
            failure,
            insecure=insecure,
            bypass=self.bypass,
            recorded_reference=self.recorded_reference,
        )

    def kept_away(self, stream: ImageStream) -> str:
        """Why mirrorstream does nothing about `stream`; empty if nothing keeps it away."""
        if stream.opted_out:
            return "the stream's annotation mirrorstream.github.io/import is disabled"
        if not self.covers(stream.metadata.namespace):
            return "controller.namespaces of the configuration leaves the namespace out"
        return ""


@dataclass(frozen=True, slots=True)
class TagState:
    """One importable tag, or with an empty `tag` a whole repository that left no tag."""

    namespace: str
    stream: str
    tag: str
    state: State
    source: str
    why: str = ""
    """Why mirrorstream does nothing, where it does not."""
    since: str | None = None
    """Since when the import fails: RFC 3339 text."""
    failure: Failure | None = None
    candidates: tuple[Candidate, ...] | None = ()
    """What the rules have it imported through; None where the rules may not be seen."""
    skipped_mirrors: tuple[SkippedMirror, ...] = ()
    """The mirrors that cannot be used, where there is no other."""
    tried: ReportedAttempt | None = None
    image: str = ""
    """The reference that the tag points to."""
    digest: str = ""
    created: str = ""
    """When the item with that image was made: RFC 3339 text."""
    through: str = ""
    """The reference that served the image, or only the mirror's host, for what came through a mirror."""
    followers: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    """What may keep pods from running the image."""
    import_policy: ImportPolicy = field(default_factory=ImportPolicy)
    is_sample: bool = False
    """Whether the samples operator manages the stream."""
    imported_natively: bool = False
    """Whether the platform itself imports it through a mirror."""

    @property
    def fails_on_schedule(self) -> bool:
        """Whether the platform fails to import it at every scheduled import, as far as is known."""
        fails = self.state in (State.FAILING, State.HELD, State.HEALED) and not self.imported_natively
        return self.import_policy.scheduled and fails

    @property
    def heals_on_schedule(self) -> bool:
        """Whether mirrorstream imports it after each scheduled import that fails."""
        return self.fails_on_schedule and self.state is State.HEALED

    @property
    def valid_answers(self) -> list[CandidateAnswer]:
        """Answers of the last attempt from mirrors that the rules still name; all of them where the rules may not be seen."""
        answers = list(self.tried.attempt.candidates) if self.tried else []
        if self.candidates is None:
            return answers
        named = {candidate.reference for candidate in self.candidates}
        return [answer for answer in answers if answer.reference in named]

    @property
    def item(self) -> Item:
        """The tag's newest item, as Images name it."""
        return self.digest, self.created

    @property
    def name(self) -> str:
        """`namespace/stream:tag`, or `namespace/stream` for a whole repository."""
        return f"{self.namespace}/{self.stream}" + (f":{self.tag}" if self.tag else "")

    def document(self) -> dict[str, Any]:
        """The JSON and YAML form."""
        failure = self.failure
        candidates = (
            None if self.candidates is None else [{"reference": c.reference, "mirrorSet": c.mirror_set} for c in self.candidates]
        )
        return {
            "namespace": self.namespace,
            "stream": self.stream,
            "tag": self.tag,
            "state": str(self.state),
            "source": self.source,
            "why": self.why,
            "since": self.since,
            "failure": {"class": str(failure.kind), "message": failure.message} if failure else None,
            "candidates": candidates,
            "tried": attempt_document(self.tried) if self.tried else None,
            "image": self.image,
            "through": self.through,
            "scheduled": self.import_policy.scheduled,
            "followers": list(self.followers),
            "warnings": list(self.warnings),
        }


def tag_states(
    stream: ImageStream, policy: MirrorPolicy | None, history: AttemptHistory, controller_view: ControllerView
) -> Iterator[TagState]:
    """How each importable tag of `stream` stands, and its whole repository if that left no tag.

    Whether a tag that is well came through a mirror stands in its Image: see `with_origins`.
    """
    view = _StreamView(stream, policy, history, controller_view, stream.status_by_tag(), follows(stream))
    for tag in stream.spec_tags:
        if tag.importable:
            yield view.tag(tag)
    repository = stream.spec.docker_image_repository
    if not repository:
        return
    listed, asked_for = listed_tags(stream), {tag.name for tag in stream.spec_tags}
    for name in listed:
        if name not in asked_for:
            yield view.listed(name, repository)
    whole = repository_import(stream)
    if whole is not None:
        yield view.repository(whole)


def with_origins(states: Iterable[TagState], through: Mapping[Item, str]) -> list[TagState]:
    """The same states, those HEALED whose item `through` has; it names the mirror's host that served it.

    The tag's own Event has the whole reference. Whether anything served it is the Image's to say, since the owner of a namespace
    may write Events.
    """
    return [
        dataclasses.replace(state, state=State.HEALED, through=_served(state.tried, through[state.item]))
        if state.state is State.IMPORTED and state.item in through
        else state
        for state in states
    ]


def _served(tried: ReportedAttempt | None, host: str) -> str:
    reference = tried.attempt.through if tried else ""
    return reference if reference.partition("/")[0] == host else host


def _image(newest: TagEvent | None) -> dict[str, Any]:
    return {"image": newest.docker_image_reference, "digest": newest.image, "created": newest.created or ""} if newest else {}


def _tried_as_stuck(tried: ReportedAttempt) -> bool:
    """Whether mirrorstream took the platform's import for one that does not end, and could not help."""
    return tried.attempt.failure == FailureClass.STUCK and tried.attempt.result != AttemptResult.IMPORTED


@dataclass(frozen=True, slots=True)
class _StreamView:
    stream: ImageStream
    policy: MirrorPolicy | None
    history: AttemptHistory
    controller_view: ControllerView
    statuses: Mapping[str, StatusTag]
    follows: Mapping[str, list[str]]

    def tag(self, tag: SpecTag) -> TagState:
        platform = tag_import(self.stream, tag, self.statuses.get(tag.name))
        source = platform.source
        shared: dict[str, Any] = {
            **_image(platform.newest),
            "followers": tuple(followers_of(self.follows, tag.name)),
            "import_policy": tag.import_policy,
            "warnings": serving_warnings(
                self.policy,
                platform.newest.docker_image_reference if platform.newest and platform.newest.image else "",
                reference_policy=tag.reference_policy.type,
                import_mode=tag.import_policy.import_mode,
                insecure=platform.pulled_insecurely,
            ),
        }
        if self.policy and tag.import_policy.scheduled and (reference := parse_or_none(source)):
            native = self.policy.resolve(reference).native_candidates(insecure=platform.imported_insecurely)
            shared["imported_natively"] = bool(native)
        if platform.pending:
            why = "the platform's import is pending" + (", the one before it failed" if platform.previous_failure else "")
            pending = self._state(tag.name, State.PENDING, source, why, failure=platform.previous_failure, **shared)
            if pending.tried is None or not _tried_as_stuck(pending.tried):
                return pending
            stuck = Failure(FailureClass.STUCK, "no answer from the platform's import")
            return self._failed(tag.name, dataclasses.replace(platform, failure=stuck, condition=None), stuck, shared)
        if platform.failure is not None:
            return self._failed(tag.name, platform, platform.failure, shared)
        if platform.newest is None:
            return self._state(tag.name, State.PENDING, source, "the platform has not imported it yet", **shared)
        return self._state(tag.name, State.IMPORTED, source, **shared)

    def listed(self, name: str, repository: str) -> TagState:
        status = self.statuses.get(name)
        return self._state(name, State.IMPORTED, repository, **_image(status.newest if status else None))

    def repository(self, platform: PlatformImport) -> TagState:
        if platform.pending or platform.failure is None:
            return self._state(WHOLE_REPOSITORY, State.PENDING, platform.source, "the platform's import is pending")
        return self._failed(WHOLE_REPOSITORY, platform, platform.failure, {})

    def _failed(self, tag: str, platform: PlatformImport, failure: Failure, shared: dict[str, Any]) -> TagState:
        source, condition = platform.source, platform.condition
        shared = {**shared, "failure": failure, "since": (condition.last_transition_time or None) if condition else None}
        if self.policy is None:
            return self._unseen(tag, source, shared)
        evaluation = self.controller_view.judge(self.policy, source, failure, insecure=platform.insecure)
        kept_away = self.controller_view.kept_away(self.stream)
        if kept_away:
            return self._state(tag, State.OPTED_OUT, source, kept_away, candidates=evaluation.candidates, **shared)
        if evaluation.eligibility is Eligibility.UNMIRRORED:
            return self._state(tag, State.UNMIRRORED, source, evaluation.why, **shared)
        if evaluation.eligibility in (Eligibility.REFUSE, Eligibility.SKIPPED):
            return self._state(tag, State.REFUSED, source, evaluation.why, skipped_mirrors=evaluation.skipped_mirrors, **shared)
        return self._waiting(self._state(tag, State.FAILING, source, self._idle(), candidates=evaluation.candidates, **shared))

    def _unseen(self, tag: str, source: str, shared: dict[str, Any]) -> TagState:
        """A failure as it looks to those who may not see the rules."""
        if kept_away := self.controller_view.kept_away(self.stream):
            return self._state(tag, State.OPTED_OUT, source, kept_away, candidates=None, **shared)
        state = self._waiting(self._state(tag, State.FAILING, source, self._idle(), candidates=None, **shared))
        if state.tried and state.tried.attempt.result == AttemptResult.REFUSED:
            return self._state(tag, State.REFUSED, source, state.tried.attempt.message, candidates=None, **shared)
        return state

    def _waiting(self, state: TagState) -> TagState:
        """`state`, HELD if a mirror's image waits until the source has failed for long enough."""
        attempt = state.tried.attempt if state.tried else None
        if attempt is None or attempt.result != AttemptResult.HELD or not state.image or self.controller_view.observing:
            return state
        served = next((f"{answer.reference} " for answer in attempt.candidates if not answer.failure), "")
        return dataclasses.replace(state, state=State.HELD, why=f"{served}{attempt.message}")

    def _idle(self) -> str:
        """Why it is not retried."""
        return OBSERVES if self.controller_view.observing else ""

    def _state(self, tag: str, state: State, source: str, why: str = "", **more: Any) -> TagState:
        metadata = self.stream.metadata
        key = (metadata.namespace, metadata.name)
        tried = self.history.latest(key, metadata.uid, tag, source)
        more["is_sample"] = self.stream.is_managed_sample
        return TagState(metadata.namespace, metadata.name, tag, state, source, why, tried=tried, **more)
