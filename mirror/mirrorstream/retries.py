"""Importing tags again as `oc import-image` does: which tags, by which request, and what came of it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mirrorstream.failures import brief
from mirrorstream.imagestreams import WHOLE_REPOSITORY, ImageStream, SpecTag, importing_tag
from mirrorstream.safetext import shortened
from mirrorstream.screen import Line, Span, Style, columns
from mirrorstream.tagstates import State, TagState

FAILED = (State.FAILING, State.REFUSED, State.UNMIRRORED, State.OPTED_OUT, State.PENDING)
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
    insecure = stream.annotations.insecure_repository == "true"
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
class Outcome:
    """What became of one tag; `platform`: its own import succeeded."""

    state: TagState
    platform: bool = False

    @property
    def well(self) -> bool:
        """Whether the tag was imported, by whomever."""
        return self.platform or self.state.state in (State.HEALED, State.IMPORTED)

    def document(self) -> dict[str, Any]:
        """The JSON form."""
        return {**self.state.document(), "importedByPlatform": self.platform}


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
        case State.FAILING:
            return fresh and not patient
        case _:
            return False


def render_outcomes(outcomes: Iterable[Outcome]) -> list[Line]:
    """One line for each tag."""
    return columns([(Span(outcome.state.name, Style.TITLE), *_told(outcome)) for outcome in outcomes])


def _told(outcome: Outcome) -> tuple[Span | str, ...]:
    state = outcome.state
    if outcome.platform:
        return (Span("imported by the platform", Style.GOOD), state.image)
    if state.through:
        return (Span("healed", Style.GOOD), f"through {state.through}")
    match state.state:
        case State.HEALED | State.IMPORTED:
            return (Span("imported", Style.GOOD), state.image)
        case State.REFUSED:
            return (Span("refused", Style.BAD), shortened(state.why, 2 * MESSAGE_WIDTH))
        case State.PENDING:
            return (Span("pending", Style.WARNING), state.why)
    why = [f"{state.failure.kind}: {shortened(brief(state.failure.message), MESSAGE_WIDTH)}"] if state.failure else []
    if state.state is not State.FAILING:
        why.append(state.why)
    elif state.tried is None:
        why.append("nothing is known to have been tried through a mirror")
    else:
        attempt = state.tried.attempt
        why += [f"{a.reference}: {a.failure}" for a in attempt.candidates if a.failure]
        why += [shortened(attempt.message, MESSAGE_WIDTH)] if attempt.message else []
    return (Span("still failing", Style.BAD), "; ".join(why))
