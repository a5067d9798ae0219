"""Importing tags again as `oc import-image` does: which tags, by which request, and what came of it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from mirrorstream.diagnose.tag_status import State, TagState
from mirrorstream.imagestream.messages import brief
from mirrorstream.imagestream.model import WHOLE_REPOSITORY, ImageStream, SpecTag, importing_tag, listed_tags
from mirrorstream.imagestream.outcomes import AttemptResult, as_retry_token
from mirrorstream.text.sanitize import shortened
from mirrorstream.text.terminal import Line, Span, Style, columns

FAILED = (State.FAILING, State.REFUSED, State.HELD, State.UNMIRRORED, State.OPTED_OUT, State.PENDING)
WELL = (State.HEALED, State.IMPORTED)
GONE, CHANGED = "no longer in the spec", "no longer a tag that imports an image"
NOT_AGAIN = "not imported again: the platform's own import did not end"
MESSAGE_WIDTH = 160


class CannotRetry(ValueError):  # noqa: N818  a state of the stream
    """There is nothing to import; the text says why."""


def chosen_tags(stream: ImageStream, states: Iterable[TagState], tag: str | None) -> tuple[str, ...]:
    """The tags to import: the one that is named, or that it follows; otherwise all that are not well, and the whole repository.

    A tag that is well is imported again only when it is named: where the source cannot be reached it would fail.
    Raises CannotRetry.
    """
    name = f"{stream.metadata.namespace}/{stream.metadata.name}"
    if tag is None:
        return tuple(state.tag for state in states if state.state in FAILED)
    asked = next((t for t in stream.spec_tags if t.name == tag), None)
    if asked is None:
        raise CannotRetry(f"{name} has no tag {tag!r} in its spec")
    importing = importing_tag(stream, tag)
    if importing is None:
        raise CannotRetry(f"{name}:{tag} does not import an image: {_what(asked)}")
    return (importing.name,)


def _what(tag: SpecTag) -> str:
    if tag.from_ is None:
        return "it was pushed or tagged"
    if tag.reference:
        return "it is a reference only (reference: true)"
    return f"it follows {tag.from_.kind} {tag.from_.name}"


def import_request(stream: ImageStream, tags: Sequence[str], version: str) -> dict[str, Any]:
    """The ImageStreamImport for `tags`, as `oc import-image` posts it: it applies to the stream at `version` only.

    Unlike oc's it repeats the tag's import mode, which the platform would otherwise reset.
    """
    metadata = stream.metadata
    spec: dict[str, Any] = {"import": True}
    insecure = stream.is_insecure
    images = [_image(tag, insecure=insecure) for tag in stream.spec_tags if tag.name in tags and tag.importable]
    if images:
        spec["images"] = images
    if WHOLE_REPOSITORY in tags:
        source = {"kind": "DockerImage", "name": stream.spec.docker_image_repository}
        spec["repository"] = {"from": source, "importPolicy": {"insecure": True} if insecure else {}}
    return {
        "apiVersion": "image.openshift.io/v1",
        "kind": "ImageStreamImport",
        "metadata": {"name": metadata.name, "namespace": metadata.namespace, "resourceVersion": version},
        "spec": spec,
    }


def _image(tag: SpecTag, *, insecure: bool) -> dict[str, Any]:
    assert tag.from_ is not None  # noqa: S101  importable tags have a source
    policy: dict[str, Any] = {}
    if insecure or tag.import_policy.insecure:
        policy["insecure"] = True
    if tag.import_policy.scheduled:
        policy["scheduled"] = True
    if tag.import_policy.import_mode:
        policy["importMode"] = tag.import_policy.import_mode
    reference_policy = {"referencePolicy": {"type": tag.reference_policy.type}} if tag.reference_policy.type else {}
    return {
        "from": {"kind": "DockerImage", "name": tag.from_.name},
        "to": {"name": tag.name},
        "importPolicy": policy,
        **reference_policy,
    }


def imported_tags(request: Mapping[str, Any], answer: Mapping[str, Any]) -> set[str]:
    """The tags, of those in `request`, that the platform imported, by its answer; a whole repository if any of its tags was."""
    status = answer.get("status") or {}
    asked = [image["to"]["name"] for image in request["spec"].get("images") or []]
    found = {tag for tag, image in zip(asked, status.get("images") or [], strict=False) if _succeeded(image)}
    if any(_succeeded(image) for image in (status.get("repository") or {}).get("images") or []):
        found.add(WHOLE_REPOSITORY)
    return found


def _succeeded(image: Mapping[str, Any]) -> bool:
    return bool((image.get("status") or {}).get("status") == "Success")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A stream at one time, and how its tags stood, by name."""

    stream: ImageStream
    states: Mapping[str, TagState]

    def version(self, tag: str) -> tuple[int, int]:
        """What each import of a tag raises: the newest item's generation, or the condition's."""
        status = self.stream.status_tag(tag)
        newest, condition = (status.newest, status.import_condition) if status else (None, None)
        return newest.generation if newest else 0, condition.generation if condition else 0


@dataclass(frozen=True, slots=True)
class RetryRequest:
    """What the platform was asked to import, and what came of that: `imported` by it, or `unended` where no answer came."""

    before: Snapshot
    tags: tuple[str, ...] = ()
    imported: frozenset[str] = frozenset()
    unended: bool = False

    def unchanged(self, found: Snapshot, tag: str) -> bool:
        """Whether a tag that was well is still what it was: that says nothing of an import that did not end."""
        well = tag in self.before.states and self.before.states[tag].state in WELL
        return self.unended and well and found.version(tag) == self.before.version(tag)


@dataclass(frozen=True, slots=True)
class RetryOutcome:
    """What became of one tag. `platform`: its own import succeeded; `problem`: why `state` is no outcome of this import."""

    state: TagState
    platform: bool = False
    problem: str = ""

    @property
    def well(self) -> bool:
        """Whether the tag was imported, by whomever."""
        return not self.problem and (self.platform or self.state.state in WELL)

    def document(self) -> dict[str, Any]:
        """The JSON form."""
        return {**self.state.document(), "importedByPlatform": self.platform, "problem": self.problem}


def outcomes(asked: RetryRequest, found: Snapshot) -> list[RetryOutcome]:
    """What became of everything that was asked for: one outcome each, or one for each tag of a repository that has tags now."""
    made: list[RetryOutcome] = []
    for tag in asked.tags:
        platform = tag in asked.imported
        if tag in found.states:
            problem = NOT_AGAIN if asked.unchanged(found, tag) else ""
            made.append(RetryOutcome(found.states[tag], platform, problem))
            continue
        listed = [name for name in listed_tags(found.stream) if name in found.states] if tag == WHOLE_REPOSITORY else []
        made += [RetryOutcome(found.states[name], platform) for name in listed]
        if not listed:
            there = tag in {spec.name for spec in found.stream.spec_tags}
            made.append(RetryOutcome(asked.before.states[tag], platform, CHANGED if there else GONE))
    return made


def mark(state: TagState) -> tuple[str, int]:
    """What an attempt is recognised by: the same outcome again only raises the Event's count."""
    return (state.tried.event, state.tried.count) if state.tried else ("", 0)


def attempted_since(state: TagState, annotation: str, before: tuple[str, int] | None) -> bool:
    """Whether mirrorstream has made an attempt since it was asked to; `annotation` is what it was asked by, `before` the last mark.

    One that ran already when it was asked ends afterwards, and says nothing of what the mirrors have now.
    """
    if state.tried is None or mark(state) == before:
        return False
    token = state.tried.attempt.retry_token
    return token is msgspec.UNSET or token == as_retry_token(annotation)


def settled(state: TagState, *, fresh: bool, configured: bool, patient: bool) -> bool:
    """Whether there is nothing more to wait for.

    `fresh`: mirrorstream has tried since it was asked to. `configured`: the controller's configuration is known. `patient`: the
    user wants to wait for the heal, and not only for the next attempt.
    """
    match state.state:
        case State.HEALED | State.IMPORTED | State.OPTED_OUT | State.UNMIRRORED:
            return True
        case State.REFUSED:
            # Under another configuration it might be none.
            return configured or fresh
        case State.HELD:
            return fresh and not patient
        case State.FAILING:
            if state.why:
                return True
            # An attempt that imported it is not the end of a tag that fails: it failed again since, or will be seen to be well.
            served = state.tried is not None and state.tried.attempt.result == AttemptResult.IMPORTED
            return fresh and not patient and not served
        case _:
            return False


def render_outcomes(outcomes: Iterable[RetryOutcome]) -> list[Line]:
    """One line for each tag."""
    return columns([(Span(outcome.state.name, Style.TITLE), *_told(outcome)) for outcome in outcomes])


def _told(outcome: RetryOutcome) -> tuple[Span | str, ...]:
    state = outcome.state
    if outcome.problem:
        head, _, rest = outcome.problem.partition(": ")
        return (Span(head, Style.BAD), rest)
    if outcome.platform:
        return (Span("imported by the platform", Style.GOOD), state.image)
    if state.through:
        return (Span("healed", Style.GOOD), f"through {state.through}")
    match state.state:
        case State.HEALED | State.IMPORTED:
            return (Span("imported", Style.GOOD), state.image)
        case State.REFUSED:
            return (Span("refused", Style.BAD), shortened(state.why, 2 * MESSAGE_WIDTH))
        case State.HELD:
            return (Span("held", Style.WARNING), shortened(state.why, 2 * MESSAGE_WIDTH))
        case State.PENDING:
            return (Span("pending", Style.WARNING), state.why)
    why = [f"{state.failure.kind}: {shortened(brief(state.failure.message), MESSAGE_WIDTH)}"] if state.failure else []
    if state.why:
        why.append(state.why)
    elif state.tried is None:
        why.append("no attempt through a mirror is known")
    else:
        attempt = state.tried.attempt
        why += [f"{a.reference}: {a.failure}" for a in attempt.candidates if a.failure]
        why += [shortened(attempt.message, MESSAGE_WIDTH)] if attempt.message else []
    return (Span("still failing", Style.BAD), "; ".join(why))
