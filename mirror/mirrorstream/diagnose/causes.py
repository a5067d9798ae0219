"""Why tags have no image, by what to do about it: the mirror's answer where there is one, not the source's failure; pure.

In a disconnected cluster every source fails in the same way. What differs, and what somebody can change, is what the mirrors say.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mirrorstream.diagnose.tag_status import State, TagState
from mirrorstream.imagestream.failures import FailureClass
from mirrorstream.imagestream.model import WHOLE_REPOSITORY
from mirrorstream.imagestream.outcomes import AttemptResult, CandidateAnswer
from mirrorstream.text.sanitize import listed, one_line, shortened

TEXT_LENGTH, HOST_LENGTH = 160, 60
HOSTS = 3
"""How many mirrors a cause names."""
EXAMPLES = 3
"""How many tags of a group a document names."""
IMAGESET = "mirror it: `mirrorstream {} -o imageset` lists all for oc-mirror"
"""What helps where a mirror lacks an image; `missing` and `check` write the list."""
REPOSITORY = "mirror the whole repository: its tags are not known, so no list for oc-mirror has it"
"""What helps where a mirror lacks a repository of which no tag is known."""
EXPLAIN = "`mirrorstream explain NAMESPACE/STREAM:TAG` tells more"

_ANSWERS: dict[str, tuple[str, str]] = {
    FailureClass.NOT_FOUND: ("{} does not have it", IMAGESET),
    FailureClass.UNAUTHORIZED: ("{} denies it", "a pull secret for {}, of the cluster or the namespace"),
    FailureClass.DENIED: ("{} denies it", "a pull secret for {}, of the cluster or the namespace"),
    FailureClass.TLS: ("{}: certificate not trusted", "the CA of {} in additionalTrustedCA of the Image config"),
    FailureClass.UNREACHABLE: ("{} cannot be reached", "check that {} runs and accepts connections from the control plane"),
    FailureClass.TIMEOUT: ("{} does not answer in time", "check that {} runs and accepts connections from the control plane"),
    FailureClass.SERVER_ERROR: ("{} answers with a server error", "see the logs of {}"),
    FailureClass.THROTTLED: ("{} allows no more requests for now", "wait, or raise the limit at {}"),
    FailureClass.NOT_A_REGISTRY: ("{} does not answer as a registry", "check what answers at {}: perhaps a proxy"),
    FailureClass.FORBIDDEN: (
        "the platform is not allowed to contact {}",
        "registrySources and allowedRegistriesForImport of the Image config",
    ),
    FailureClass.UNSUPPORTED: ("{} has it in a format that the platform cannot import", "mirror the images again"),
    FailureClass.INTEGRITY: ("the content at {} does not match its digest", "mirror the images again"),
    FailureClass.INVALID: ("{}: the reference is invalid there", "see the mirror set"),
}
_PLAIN_TLS = "{}: TLS fails"
_OTHER = ("{} does not serve it", EXPLAIN)
NO_RULE = "no rule covers it"
_RULE = "a mirror set that covers the source"
_HOSTED_RULE = (
    "the source in imageContentSources of the HostedCluster, in the management cluster (ROSA: `rosa create image-mirror`)"
)


@dataclass(frozen=True, slots=True)
class Cause:
    """Why something has no image, and what helps; things with the same cause need the same to be done."""

    state: str
    """The state of the tags, or their fate: a word of the tables in docs/cli.md."""
    text: str
    helps: str


@dataclass(frozen=True, slots=True)
class Subject:
    """What a group counts: a tag, by its name and namespace; `since` is when its import failed, as RFC 3339 text."""

    name: str
    namespace: str
    since: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """The subjects with one cause, in the order of their names."""

    cause: Cause
    subjects: tuple[Subject, ...]

    @property
    def oldest(self) -> Subject | None:
        """The one that fails for the longest time; None where no time is known."""
        return min((s for s in self.subjects if s.since), key=lambda s: s.since, default=None)

    @property
    def namespaces(self) -> Mapping[str, int]:
        """How many there are in each namespace, the most first."""
        return dict(Counter(s.namespace for s in self.subjects).most_common())

    def document(self) -> dict[str, Any]:
        """The JSON and YAML form."""
        return {
            "state": self.cause.state,
            "cause": self.cause.text,
            "helps": self.cause.helps,
            "count": len(self.subjects),
            "namespaces": dict(self.namespaces),
            "oldest": self.oldest.name if self.oldest else "",
            "examples": [s.name for s in self.subjects[:EXAMPLES]],
        }


def grouped(found: Iterable[tuple[Cause, Subject]]) -> list[Group]:
    """The groups, the largest first."""
    groups: dict[Cause, list[Subject]] = {}
    for cause, subject in found:
        groups.setdefault(cause, []).append(subject)
    made = [Group(cause, tuple(sorted(subjects, key=lambda s: s.name))) for cause, subjects in groups.items()]
    return sorted(made, key=lambda group: (-len(group.subjects), group.cause.state, group.cause.text))


def rule_helps(*, hosted: bool) -> str:
    """Where a rule for a source can be added: in a hosted cluster only the platform may create mirror sets."""
    return _HOSTED_RULE if hosted else _RULE


def tag_groups(tags: Iterable[TagState], *, hosted: bool = False) -> list[Group]:
    """The tags that have no image of their own import, by cause; `hosted` as for `cause_of`."""
    return grouped(
        (cause_of(tag, hosted=hosted), Subject(tag.name, tag.namespace, tag.since or ""))
        for tag in tags
        if tag.state not in (State.HEALED, State.IMPORTED)
    )


def cause_of(tag: TagState, *, hosted: bool = False) -> Cause:
    """Why a tag that is not well is not; the same for tags for which the same is to be done.

    `hosted`: whether it is in a hosted cluster, see `rule_helps`.
    """
    match tag.state:
        case State.UNMIRRORED:
            text, helps = NO_RULE, f"{rule_helps(hosted=hosted)}; until then only the platform imports it"
        case State.OPTED_OUT:
            text, helps = tag.why, "nothing, if this is intended"
        case State.PENDING:
            text, helps = "the platform has not finished its import", "wait"
        case State.HELD:
            hosts = _hosts([a.reference for a in tag.tried.attempt.candidates if not a.failure]) if tag.tried else ""
            text = f"{hosts or 'a mirror'} has another image than the source had"
            helps = "wait: the tag gets it once the source has failed for controller.replaceAfterSeconds"
        case State.REFUSED:
            text, helps = _refused(tag)
        case _:
            text, helps = _failing(tag)
    return as_cause(str(tag.state), text, helps)


def _failing(tag: TagState) -> tuple[str, str]:
    if tag.why:
        return tag.why, "set mode: active to have it imported"
    if tag.tried is None:
        return "no attempt is known; Events are kept for a few hours only", "wait; check that the controller runs"
    attempt = tag.tried.attempt
    answers = tag.valid_answers
    match attempt.result:
        case AttemptResult.IMPORTED:
            return "it healed before, and fails again", "wait: mirrorstream retries"
        case AttemptResult.NOT_RECORDED:
            return "a mirror served it, but the API server refused to record it", EXPLAIN
        case AttemptResult.ERROR:
            return "the API server did not let mirrorstream ask a mirror", EXPLAIN
        case AttemptResult.REFUSED | AttemptResult.HELD:
            return "not tried since its mirror rules changed", "wait: mirrorstream retries"
    if unasked := sorted({c.reference for c in tag.candidates or ()} - {a.reference for a in answers}):
        have = "has" if len(set(map(_host, unasked))) == 1 else "have"
        return f"{_hosts(unasked)} {have} not been asked yet", "wait: mirrorstream retries"
    return answers_cause(answers, tag.tag, "missing") if answers else ("it is not known whether a mirror was asked", EXPLAIN)


def as_cause(state: str, text: str, helps: str) -> Cause:
    """A cause whose texts are harmless and of bounded length: parts of them come from mirrors, Events and streams."""
    return Cause(state, shortened(one_line(text), TEXT_LENGTH), shortened(one_line(helps), TEXT_LENGTH))


def answers_cause(answers: Sequence[CandidateAnswer], tag: str, command: str) -> tuple[str, str]:
    """What mirrors that did not serve an image said, and what helps, of at least one answer.

    The help is against what is not a plain no: such a mirror may well have the image. `command` writes the list of what all lack.
    """
    worst = next((a for a in answers if a.failure != FailureClass.NOT_FOUND), None)
    texts = list(dict.fromkeys(map(_answer_text, answers)))
    more = [f"{len(texts) - HOSTS} more"] if len(texts) > HOSTS else []
    if worst:
        helps = _ANSWERS.get(worst.failure, _OTHER)[1].format(_host(worst.reference))
    else:
        helps = REPOSITORY if tag == WHOLE_REPOSITORY else IMAGESET.format(command)
    return ", ".join(texts[:HOSTS] + more), helps


def _answer_text(answer: CandidateAnswer) -> str:
    text = _ANSWERS.get(answer.failure, _OTHER)[0]
    if answer.failure == FailureClass.TLS and "x509" not in answer.message:
        text = _PLAIN_TLS
    return text.format(_host(answer.reference))


def _refused(tag: TagState) -> tuple[str, str]:
    if tag.skipped_mirrors:
        reasons = dict.fromkeys(mirror.reason for mirror in tag.skipped_mirrors)
        return f"every mirror is skipped: {'; '.join(reasons)}", EXPLAIN
    return refusal_cause(tag.why)


def refusal_cause(why: str) -> tuple[str, str]:
    """Why no mirror may stand in, without what differs from tag to tag, and what helps."""
    text = why.partition(": ")[0].partition(", so ")[0]
    first, _, rest = text.partition(" ")
    helps = "another `from` of the tag, or the source itself"
    if "mirrors.bypass" in text:
        helps += ", or that setting"
    elif "of the Image config" in text:
        helps = "that list of the Image config"
    return (f"the source {rest}" if "/" in first else text), helps


def _hosts(references: Iterable[str]) -> str:
    return listed(list(dict.fromkeys(map(_host, references))), HOSTS)


def _host(reference: str) -> str:
    return shortened(reference.partition("/")[0], HOST_LENGTH)
