"""Why an image comes from where it comes from: the mirror rules' answer to one reference, for people and for programs."""

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from mirrorstream.rules.candidates import Candidate, SkippedMirror
from mirrorstream.rules.policy import MirrorPolicy, PolicyWarning
from mirrorstream.rules.references import has_registry_host, parse_or_none, parse_reference
from mirrorstream.text.terminal import Line, Span, Style, blank, columns, line, notes

if TYPE_CHECKING:
    from mirrorstream.diagnose.tag_status import TagState


@dataclass(frozen=True, slots=True)
class ExplainedSource:
    """A pull source of a node; `objects` name the mirror, empty for the source itself."""

    reference: str
    insecure: bool
    blocked: bool
    objects: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ExplainedCandidate:
    """An import candidate, and the reference that would be recorded (`@DIGEST` stands for the image's digest)."""

    reference: str
    insecure: bool
    mirrorSet: str  # noqa: N815  spelled as in the JSON output
    recordedAs: str  # noqa: N815


@dataclass(frozen=True, slots=True)
class Explanation:
    """The whole answer for one reference; `stream`, `state` and `tag` are set when it came from an ImageStream's tag.

    Where a node cannot pull it from anywhere, `pullFailure` says why, and there are no `pullSources`.
    """

    reference: str
    scope: str
    objects: tuple[str, ...]
    pullSources: tuple[ExplainedSource, ...]  # noqa: N815
    pullFailure: str  # noqa: N815
    candidates: tuple[ExplainedCandidate, ...]
    skippedMirrors: tuple[SkippedMirror, ...]  # noqa: N815
    refused: str | None
    importAllowed: bool | None  # noqa: N815
    stream: str | None = None
    state: str | None = None
    tag: "TagState | None" = None

    def document(self) -> dict[str, Any]:
        """The JSON and YAML form, with the fields' names as above; `stream`, `state` and `tag` only for a tag."""
        found = asdict(dataclasses.replace(self, tag=None))
        found["tag"] = self.tag.document() if self.tag else None
        for entry in found["skippedMirrors"]:
            entry["mirrorSet"] = entry.pop("mirror_set")
        return {key: value for key, value in found.items() if key not in ("stream", "state", "tag") or value is not None}


@dataclass(frozen=True, slots=True)
class ExplainReport:
    """What `explain` prints: explanations, and the warnings about the rules in general."""

    explanations: tuple[Explanation, ...]
    warnings: tuple[PolicyWarning, ...]
    notes: tuple[str, ...] = field(default=())
    events: tuple[str, ...] = field(default=())
    """What Events say that no program can read: those of older versions."""
    rules_known: bool = True
    """Whether the asking user may see the mirror rules; if not, explanations say nothing of them."""

    def document(self) -> dict[str, Any]:
        """The JSON and YAML form."""
        return {
            "explanations": [explanation.document() for explanation in self.explanations],
            "rulesKnown": self.rules_known,
            "warnings": [asdict(warning) for warning in self.warnings],
            "notes": list(self.notes),
            "events": list(self.events),
        }


def explain_reference(
    policy: MirrorPolicy | None,
    reference: str,
    *,
    recorded_reference: str = "auto",
    insecure: bool = False,
    recorded_name: Callable[[Candidate], str] | None = None,
) -> Explanation:
    """Explain one pull spec under `policy`; None where it may not be seen. Raises ReferenceError.

    `recorded_name` tells which repository a candidate is recorded by, where more than the rules decide.
    """
    if policy is None:
        return Explanation(str(parse_reference(reference)), "", (), (), "", (), (), None, None)
    found = policy.resolve(parse_reference(reference))
    normalised, origins = str(found.reference), found.mirror_origins
    return Explanation(
        reference=normalised,
        scope=found.scope,
        objects=found.objects,
        pullSources=tuple(
            ExplainedSource(s.reference, s.insecure, s.blocked, () if s.reference == normalised else origins.get(s.reference, ()))
            for s in (() if found.pull_failure else found.pull_sources)
        ),
        pullFailure=found.pull_failure,
        candidates=tuple(
            _candidate(
                recorded_name(candidate) if recorded_name else found.recorded_name(reference, candidate, recorded_reference),
                candidate,
            )
            for candidate in found.candidates
        ),
        skippedMirrors=found.skipped_mirrors,
        refused=found.refusal,
        importAllowed=policy.import_allowed(reference, insecure=insecure),
    )


def searched(policy: MirrorPolicy | None, reference: str) -> list[str]:
    """Where nodes look for a name without a registry, in order; empty where the cluster has no list of its own for that.

    A node puts each registry of the list before the name. The list takes the place of docker.io.
    """
    if policy is None or has_registry_host(reference) or parse_or_none(reference) is None:
        return []
    found = [parse_or_none(f"{registry}/{reference}") for registry in policy.search_registries]
    return [str(place) for place in found if place]


def _candidate(recorded: str, candidate: Candidate) -> ExplainedCandidate:
    return ExplainedCandidate(candidate.reference, candidate.insecure, candidate.mirror_set, f"{recorded}@DIGEST")


def reference_heading(explanation: Explanation) -> Iterable[Line]:
    """What stands above the answer to a reference."""
    return [line(Span(explanation.reference, Style.TITLE))]


def render(answer: ExplainReport, heading: Callable[[Explanation], Iterable[Line]] = reference_heading) -> list[Line]:
    """The text for people; `heading` makes what stands above each explanation."""
    lines: list[Line] = []
    for explanation in answer.explanations:
        lines += [blank()] if lines else []
        lines += heading(explanation)
        lines += (
            _render(explanation) if answer.rules_known else [line("Mirror rules: you have no permission to list them", indent=2)]
        )
    if answer.events:
        lines += [blank(), line("Events of an older version say:"), *(line(text, indent=2) for text in answer.events)]
    if answer.warnings:
        lines += [blank(), line("Parts of the mirror rules that cannot be used:")]
        lines += [line(str(warning), indent=2) for warning in answer.warnings]
    return [*lines, *([blank()] if answer.notes else []), *notes(answer.notes)]


def _render(explanation: Explanation) -> Iterable[Line]:
    if explanation.scope:
        yield line(f"Rule: {explanation.scope}  ({', '.join(explanation.objects) or 'Image/cluster'})", indent=2)
    else:
        yield line("Rule: none covers this image", indent=2)
    if explanation.pullFailure:
        # What fails may be in another rule, which says nothing about this image.
        here = any(left.reason == explanation.pullFailure for left in explanation.skippedMirrors)
        part = "this mirror" if here else "only this"
        yield line(f"A node's pull fails: {explanation.pullFailure}. The controller skips {part}.", indent=2)
    else:
        yield line("A node pulls from, in this order:", indent=2)
    yield from _numbered(
        (source.reference, _flags(", ".join(source.objects) or "the source", source.insecure, source.blocked))
        for source in explanation.pullSources
    )
    if explanation.refused:
        yield line(f"The platform refuses it, and so does the controller: {explanation.refused}", indent=2)
    elif not explanation.importAllowed:
        yield line("Not in spec.allowedRegistriesForImport of the Image config: the controller does not import it.", indent=2)
    elif explanation.candidates:
        yield line("If its import fails, the controller imports through, in this order:", indent=2)
        yield from _numbered((c.reference, _flags(c.mirrorSet, c.insecure, False)) for c in explanation.candidates)
        recorded = list(dict.fromkeys(candidate.recordedAs for candidate in explanation.candidates))
        yield line(f"and records {' or '.join(recorded)}", indent=2)
    else:
        yield line("The controller has nothing to import it through.", indent=2)
    if explanation.skippedMirrors:
        yield line("Skipped mirrors:", indent=2)
        yield from columns([(f"- {left.reference}", f"{left.mirror_set}: {left.reason}") for left in explanation.skippedMirrors], 4)


def _numbered(rows: Iterable[tuple[str, str]]) -> list[Line]:
    return columns([(f"{number}. {reference}", text) for number, (reference, text) in enumerate(rows, 1)], 4)


def _flags(text: str, insecure: bool, blocked: bool) -> str:
    return ", ".join([text, *(["insecure"] if insecure else []), *(["blocked: not contacted"] if blocked else [])])
