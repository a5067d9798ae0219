"""Why the tags of a stream come from where they come from: the mirror rules' answers, and how each tag stands."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping

from mirrorstream.diagnose.explain import Explanation, explain_reference
from mirrorstream.diagnose.status import failing_for, story_lines
from mirrorstream.diagnose.tag_status import BROKEN, OBSERVES, State, TagState
from mirrorstream.imagestream.eligibility import recorded_name
from mirrorstream.imagestream.model import WHOLE_REPOSITORY, ImageStream
from mirrorstream.rules.candidates import Candidate
from mirrorstream.rules.policy import MirrorPolicy
from mirrorstream.rules.references import ReferenceError
from mirrorstream.text.terminal import Line, Span, Style, line


def explain_stream(
    policy: MirrorPolicy | None,
    stream: ImageStream,
    states: Mapping[str, TagState],
    only_tag: str | None = None,
    *,
    recorded_reference: str = "auto",
) -> tuple[list[Explanation], list[str]]:
    """Explain every importable tag of `stream` (or `only_tag`), and its whole repository; and say which names no image, and why.

    `states` has how the tags stand, by name.
    """
    name = f"{stream.metadata.namespace}/{stream.metadata.name}"
    found: list[Explanation] = []
    wrong: list[str] = []

    def name_of(source: str, tag: TagState | None, *, insecure: bool) -> Callable[[Candidate], str] | None:
        if policy is None:
            return None
        failure = tag.failure if tag else None
        return lambda candidate: recorded_name(
            policy, source, candidate, failure, insecure=insecure, recorded_reference=recorded_reference
        )

    def explain(subject: str, field: str, source: str, state: str, tag: TagState | None, *, insecure: bool) -> None:
        try:
            names = name_of(source, tag, insecure=insecure)
            explanation = explain_reference(policy, source, insecure=insecure, recorded_name=names)
        except ReferenceError as error:
            wrong.append(f"{subject} is not explained, since its {field} names no image: {error}")
        else:
            found.append(dataclasses.replace(explanation, stream=subject, state=state, tag=tag))

    for tag in stream.spec_tags:
        if only_tag in (None, tag.name) and tag.importable and tag.from_ is not None:
            state, insecure = _state(stream, tag.name), tag.import_policy.insecure or stream.is_insecure
            explain(f"{name}:{tag.name}", "from", tag.from_.name, state, states.get(tag.name), insecure=insecure)
    if stream.spec.docker_image_repository and only_tag is None:
        state = "imported" if stream.status.tags else "no tag was imported"
        repository = stream.spec.docker_image_repository
        whole = states.get(WHOLE_REPOSITORY)
        explain(name, "spec.dockerImageRepository", repository, state, whole, insecure=stream.is_insecure)
    return found, wrong


def _state(stream: ImageStream, tag: str) -> str:
    status = stream.status_tag(tag)
    newest = status.newest if status else None
    has = f"; it has {newest.docker_image_reference}" if newest else ""
    if status and status.failure:
        failure = status.failure
        since = f" since {failure.last_transition_time}" if failure.last_transition_time else ""
        return f"the import fails{since}: {failure.reason}: {failure.message}{has}"
    return f"imported{has}" if newest else "not imported yet"


def tag_heading(explanation: Explanation, now: float) -> Iterable[Line]:
    """What stands above the answer to a stream's tag; `now` in seconds since the epoch."""
    yield line(Span(explanation.stream or "", Style.TITLE), f"  from {explanation.reference}")
    tag = explanation.tag
    if tag:
        yield from (line(Span("Warning: ", Style.WARNING), text, indent=2, hang=9) for text in tag.warnings)
    if tag is None or tag.state in (State.PENDING, State.IMPORTED):
        yield line(f"State: {explanation.state}", indent=2)
        if tag and tag.followers:
            yield line(f"Followed by: {', '.join(tag.followers)}", indent=2)
        return
    if tag.failure:
        yield line("State: the import fails", f" since {tag.since}" if tag.since else "", indent=2)
    else:
        yield line(f"State: {explanation.state}", indent=2)
    bad = Style.BAD if tag.state in BROKEN else Style.GOOD if tag.state is State.HEALED else Style.WARNING
    standing = "only observes" if tag.why == OBSERVES else _STANDING[tag.state]
    yield line("mirrorstream: ", Span(standing, bad), f" ({failing_for(tag, now)})" if tag.failure else "", indent=2)
    yield from story_lines(tag, now, 4, source=False)


_STANDING = {
    State.FAILING: "finds it in no mirror yet, and retries",
    State.REFUSED: "must not import it through a mirror",
    State.HELD: "keeps the image of before for now",
    State.UNMIRRORED: "has no mirror for it",
    State.OPTED_OUT: "is kept away from it",
    State.HEALED: "imported it through a mirror",
}
