"""Which images of failing tags no mirror has: told from the rules and from what mirrorstream's attempts brought."""

import dataclasses
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from mirrorstream.diagnose.causes import cause_of
from mirrorstream.diagnose.tag_status import State, TagState
from mirrorstream.imagestream.failures import FailureClass
from mirrorstream.imagestream.messages import brief
from mirrorstream.imagestream.model import WHOLE_REPOSITORY
from mirrorstream.imagestream.outcomes import AttemptResult, CandidateAnswer
from mirrorstream.rules.references import parse_or_none
from mirrorstream.text.sanitize import listed
from mirrorstream.text.terminal import Span, Style, Text, blank, comma_separated, line, table


class Absence(StrEnum):
    """What is known of an image and the mirrors."""

    MISSING = "missing"
    """No rule covers it, or every candidate answered that it does not have it."""
    UNKNOWN = "unknown"
    """A candidate could not be asked, or is not known to have been."""


@dataclass(frozen=True, slots=True)
class MissingImage:
    """An image, with all defaults filled in, and the tags that want it."""

    image: str
    absence: Absence
    why: str
    tags: tuple[str, ...]
    repository: bool = False
    """A whole repository, of which no tag is known."""
    answers: tuple[CandidateAnswer, ...] = ()
    covered: bool = False
    """Whether a mirror rule is known to cover it."""
    cause: str = ""
    """`why` without what differs from image to image."""

    def document(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "image": self.image,
            "state": str(self.absence),
            "why": self.why,
            "repository": self.repository,
            "tags": list(self.tags),
            "candidates": [answer.document() for answer in self.answers],
        }


def missing_images(states: Iterable[TagState]) -> list[MissingImage]:
    """The images that failing tags want and no mirror is known to have, by name; one that is missing is never unknown, too.

    Of tags that are refused or opted out nothing is said: nobody asked a mirror for them. Nor of what a mirror served, and is held
    or could not be recorded.
    """
    return merged(
        MissingImage(
            full_name(state.source, repository=state.tag == WHOLE_REPOSITORY),
            *_absence(state),
            (state.name,),
            state.tag == WHOLE_REPOSITORY,
            state.tried.attempt.candidates if state.tried else (),
            bool(state.candidates or state.skipped_mirrors),
            cause_of(state).text,
        )
        for state in states
        if (state.state in (State.FAILING, State.UNMIRRORED) or state.skipped_mirrors) and not _served(state)
    )


def full_name(source: str, *, repository: bool) -> str:
    """The image, or the repository, that `from.name` means, with all defaults filled in."""
    reference = parse_or_none(source)
    return (reference.name if repository else str(reference)) if reference else source


def merged(images: Iterable[MissingImage]) -> list[MissingImage]:
    """One for each image, by name, with the tags of all; what is known to be missing counts for more."""
    found: dict[tuple[str, bool], MissingImage] = {}
    for image in images:
        key = (image.image, image.repository)
        known = found.get(key)
        if known is None:
            found[key] = image
            continue
        better = known if known.absence is Absence.MISSING or image.absence is Absence.UNKNOWN else image
        found[key] = dataclasses.replace(better, tags=(*known.tags, *image.tags))
    return [found[key] for key in sorted(found)]


def _served(state: TagState) -> bool:
    """Whether a mirror that counts had the image at the last attempt, and yet it was not recorded."""
    if state.tried is None or state.tried.attempt.result == AttemptResult.IMPORTED:
        return False
    return any(not answer.failure for answer in state.valid_answers)


def _absence(state: TagState) -> tuple[Absence, str]:
    if state.skipped_mirrors:
        return Absence.UNKNOWN, state.why
    if state.state is State.UNMIRRORED:
        return Absence.MISSING, "no mirror rule covers it"
    if state.tried is None:
        return Absence.UNKNOWN, "no attempt is known"
    answers = {answer.reference: answer for answer in state.tried.attempt.candidates}
    wanted = [candidate.reference for candidate in state.candidates] if state.candidates is not None else list(answers)
    if state.tried.attempt.through:
        return Absence.UNKNOWN, f"{state.tried.attempt.through} served it before"
    unasked = [reference for reference in wanted if reference not in answers]
    if unasked or not wanted:
        said = state.tried.attempt.message or "not known to have been asked"
        return Absence.UNKNOWN, f"{unasked[0]}: {said}" if unasked else said
    others = [answers[reference] for reference in wanted if answers[reference].failure != FailureClass.NOT_FOUND]
    if others:
        said = brief(others[0].message)
        return Absence.UNKNOWN, f"{others[0].reference}: {others[0].failure}" + (f": {said}" if said else "")
    return Absence.MISSING, "every mirror answers that it does not have it" if len(wanted) > 1 else "the mirror does not have it"


_STYLES = {Absence.MISSING: Style.BAD, Absence.UNKNOWN: Style.WARNING}


def render_missing(images: Iterable[MissingImage], where: str) -> list[Text]:
    """The text for people: a line an image, below the reason that it shares with others."""
    images = list(images)
    if not images:
        return [line(Span(f"{where}: ", Style.TITLE), Span("no image of a failing tag is missing from the mirrors", Style.GOOD))]
    groups: dict[tuple[Absence, str], list[MissingImage]] = {}
    for image in images:
        groups.setdefault((image.absence, image.cause), []).append(image)
    counts = Counter(image.absence for image in images)
    spans = [Span(f"{counts[absence]} {absence}", style) for absence, style in _STYLES.items() if counts[absence]]
    lines: list[Text] = [line(Span(f"{where}: ", Style.TITLE), *comma_separated(spans))]
    for (absence, cause), found in sorted(groups.items(), key=lambda item: (item[0][0] != Absence.MISSING, -len(item[1]), item[0])):
        lines += [blank(), line(Span(f"{len(found)} {absence}: ", _STYLES[absence]), Span(cause, Style.TITLE))]
        lines.append(table([(image.image, _wanted_by(image)) for image in found], 2))
    return lines


def _wanted_by(image: MissingImage) -> str:
    return f"for {listed(image.tags, 1)}{', the whole repository' if image.repository else ''}"


def imageset(images: Iterable[MissingImage], *, unmirrored: bool = False) -> tuple[dict[str, Any], str]:
    """An oc-mirror v2 ImageSetConfiguration with the images that are missing, and what had to be left out of it, in a sentence.

    `unmirrored`: also those that no rule is known to cover. Any user who may create a stream can name such an image, so an
    administrator who mirrors what is missing everywhere would fetch what any tenant chose.
    A digest names its image alone: a tag in front of it is dropped.
    """
    names: list[str] = []
    left_out: Counter[str] = Counter()
    for image in images:
        if image.absence is Absence.UNKNOWN:
            left_out["{} not known to be missing"] += 1
        elif image.repository:
            left_out["{} for a whole repository, whose tags are not known"] += 1
        elif not image.covered and not unmirrored:
            left_out["{} that no rule is known to cover, so that any tenant could have named it (--unmirrored)"] += 1
        elif (reference := parse_or_none(image.image)) is None:
            left_out["{} that is no valid reference"] += 1
        else:
            names.append(f"{reference.name}@{reference.digest}" if reference.digest else str(reference))
    mirror = {"additionalImages": [{"name": name} for name in dict.fromkeys(names)]} if names else {}
    document = {"kind": "ImageSetConfiguration", "apiVersion": "mirror.openshift.io/v2alpha1", "mirror": mirror}
    return document, ", ".join(text.format(count) for text, count in left_out.items())
